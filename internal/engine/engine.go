// Package engine builds the managers of one engine, lets them know of each
// other as far as they must, and restores them when the daemon starts.
//
// It is the one place that sees all managers. It owns no noun itself: what a
// user asks for is a manager's to do.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"

	api "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/content"
	"github.com/gantry-containers/gantry/internal/image"
	"github.com/gantry-containers/gantry/internal/network"
	"github.com/gantry-containers/gantry/internal/registry"
	"github.com/gantry-containers/gantry/internal/shim"
	"github.com/gantry-containers/gantry/internal/snapshot"
	"github.com/gantry-containers/gantry/internal/state"
	"github.com/gantry-containers/gantry/internal/volume"
)

// Engine is the managers of one engine.
type Engine struct {
	Containers *container.Manager
	Images     *image.Manager
	Networks   *network.Manager
	Volumes    *volume.Manager
	Registries *registry.Client
	Events     *state.Events

	db        *state.DB
	shim      *shim.Client
	snapshots snapshot.Snapshotter
	log       *slog.Logger
	id        string
	// appArmorWarning says why containers have no AppArmor profile; "" otherwise.
	appArmorWarning string

	stopWatching func() // the disk; nil before that began

	mu     sync.Mutex // guards config
	config Config
}

// New opens the engine of the configured roots, starting its shim where none
// runs, and restores what the last daemon left.
func New(ctx context.Context, config Config) (*Engine, error) {
	config.Defaults()
	e := &Engine{config: config, Events: &state.Events{}, log: slog.Default()}
	if err := e.open(ctx); err != nil {
		e.Shutdown(ctx)
		return nil, err
	}
	return e, nil
}

func (e *Engine) open(ctx context.Context) (err error) {
	c := &e.config
	for _, dir := range []string{c.DataRoot, c.ExecRoot} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("cannot make %s: %w", dir, err)
		}
	}
	if e.db, err = state.Open(c.DataRoot, c.ExecRoot); err != nil {
		return err
	}
	if e.id, err = engineID(e.db); err != nil {
		return err
	}
	binary, err := e.findBinary(c.ShimPath, "gantry-shim")
	if err != nil {
		return err
	}
	if e.shim, err = shim.Ensure(ctx, c.ExecRoot, binary); err != nil {
		return err
	}
	e.RenewShim(ctx)
	if err := e.openImages(); err != nil {
		return err
	}
	if e.Volumes, err = volume.New(c.DataRoot, e.db, e.Events); err != nil {
		return err
	}
	if e.Networks, err = network.New(ctx, network.Options{
		DB: e.db, Events: e.Events, Shim: e.shim, Instance: c.NetworkPrefix, BridgeAddr: c.BridgeAddr, MTU: c.MTU, Spare: c.SpareNetworks,
	}); err != nil {
		return err
	}
	if err := e.openContainers(ctx); err != nil {
		return err
	}
	e.Volumes.SetUsers(e.Containers.VolumeUsers())
	if err := e.Containers.Restore(ctx); err != nil {
		return err
	}
	if err := e.Images.Collect(ctx); err != nil {
		return err
	}
	e.watchDisk()
	return nil
}

// watchDisk has images collected for as long as the engine runs, if that was
// asked for.
func (e *Engine) watchDisk() {
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	e.stopWatching = func() { stop(); <-ended }
	go func() {
		defer close(ended)
		e.Images.Watch(ctx, func(r *image.ReclaimReport, err error) {
			if err != nil {
				e.log.Error("cannot collect images", "error", err)
			}
			if r != nil && r.Reclaimed > 0 {
				e.log.Info("images were collected, as the disk is full", "images", len(r.Images), "bytes", r.Reclaimed)
			}
		})
	}()
}

// RenewShim upgrades a shim that runs another gantry-shim than is installed now,
// with its containers running on. One that cannot be upgraded is left as it is.
func (e *Engine) RenewShim(ctx context.Context) {
	renewed, err := e.shim.Renew(ctx)
	switch {
	case err != nil:
		e.log.Error("the shim stays what it was", "error", err)
	case renewed:
		e.log.Info("the shim was upgraded")
	}
}

func (e *Engine) openImages() error {
	c := &e.config
	settings := c.Registries()
	if err := settings.Check(); err != nil {
		return err
	}
	c.InsecureRegistries, c.RegistryMirrors = settings.Insecure, settings.Mirrors // as info shows them
	e.Registries = registry.New(registry.Options{Settings: settings, UserAgent: "gantry/" + Version})
	store, err := content.Open(c.DataRoot)
	if err != nil {
		return err
	}
	if e.snapshots, err = snapshot.New(c.StorageDriver, c.DataRoot); err != nil {
		return err
	}
	e.Images, err = image.New(image.Options{
		DB:          e.db,
		Content:     store,
		Snapshots:   e.snapshots,
		Events:      e.Events,
		Registry:    e.Registries,
		InUse:       e.imageUsers,
		Running:     e.imageRunners,
		LayersInUse: e.layersInUse,
		Parallel:    cmp.Or(c.MaxConcurrentDownloads, image.AtOnce(memory())),
		Uploads:     c.MaxConcurrentUploads,
		Watermarks:  c.ImageGC,
		Idle:        c.ImageGCIdle,
	})
	return err
}

func (e *Engine) openContainers(ctx context.Context) (err error) {
	c := &e.config
	var ulimits []*api.Ulimit
	for _, u := range c.DefaultUlimits {
		ulimits = append(ulimits, u)
	}
	runtimes := map[string]container.Runtime{}
	for name, r := range c.Runtimes {
		runtimes[name] = container.Runtime{Path: r.Path, Args: r.Args}
	}
	initPath := c.InitPath
	if initPath == "" {
		// Without one only --init fails, and says so.
		initPath, _ = e.findBinary("", "gantry-init")
	}
	profile := ""
	if profile, e.appArmorWarning = loadAppArmor(ctx); e.appArmorWarning != "" {
		e.log.Warn(e.appArmorWarning)
	}
	e.Containers, err = container.New(container.Options{
		DataRoot:  c.DataRoot,
		ExecRoot:  c.ExecRoot,
		Instance:  c.Instance(),
		DB:        e.db,
		Events:    e.Events,
		Shim:      e.shim,
		Snapshots: e.snapshots,
		Images:    images{e.Images},
		Networks:  networks{e.Networks},
		Volumes:   volumes{e.Volumes},
		Log:       e.log,
		Defaults: container.Defaults{
			LogDriver: c.LogDriver, LogOpts: c.LogOpts, CgroupParent: c.CgroupParent, CgroupnsMode: c.CgroupnsMode,
			IPCMode: c.IpcMode, ShmSize: c.ShmSize, Init: c.Init, InitPath: initPath, Ulimits: ulimits,
			Runtime: defaultRuntime(c), Runtimes: runtimes, CDISpecDirs: c.CDISpecDirs, SeccompProfile: c.SeccompProfile, AppArmorProfile: profile,
			DNS: c.DNS, DNSSearch: c.DNSSearch, DNSOptions: c.DNSOptions,
			HostGateway: func() []netip.Addr {
				if gateway := e.Networks.Gateway(); gateway.IsValid() {
					return []netip.Addr{gateway}
				}
				return nil
			},
		},
	})
	return err
}

// findBinary finds one of our programs: where it was said to be, beside this
// one, or in PATH.
func (e *Engine) findBinary(configured, name string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("cannot find %s beside gantryd or in PATH", name)
}

// Reload takes over what of a configuration can change while the engine runs:
// labels, the debug flag that info shows, and how registries are reached. When
// it fails, nothing has changed.
func (e *Engine) Reload(c Config) error {
	settings := c.Registries()
	if err := settings.Check(); err != nil {
		return err
	}
	e.Registries.Configure(settings)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.config.Labels, e.config.Debug = c.Labels, c.Debug
	e.config.InsecureRegistries, e.config.RegistryMirrors = settings.Insecure, settings.Mirrors
	e.config.Neighbours, e.config.RegistryHostsDir = settings.Neighbours, c.RegistryHostsDir
	return nil
}

// Shutdown closes the managers. Containers run on, and so does their shim.
func (e *Engine) Shutdown(ctx context.Context) error {
	var failed []error
	if e.stopWatching != nil {
		e.stopWatching()
	}
	if e.Containers != nil {
		failed = append(failed, e.Containers.Close())
	}
	if e.snapshots != nil {
		failed = append(failed, e.snapshots.Close())
	}
	if e.Networks != nil {
		failed = append(failed, e.Networks.Close())
	}
	if e.shim != nil {
		failed = append(failed, e.shim.Close())
	}
	if e.db != nil {
		failed = append(failed, e.db.Close())
	}
	return errors.Join(failed...)
}
