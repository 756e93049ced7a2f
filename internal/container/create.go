package container

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"runtime/trace"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/snapshot"
)

// Create makes a container that is not started. It is refused with
// errdefs.ErrNotFound when the image is not here, ErrConflict when the name is
// taken and ErrInvalidArgument for options that cannot be had; nothing is left
// of a refused one.
func (m *Manager) Create(ctx context.Context, o *CreateOptions) (api.CreateResponse, error) {
	if o.Config == nil {
		return api.CreateResponse{}, errs.InvalidArgument("Config cannot be empty in order to create a container")
	}
	if o.HostConfig == nil {
		o.HostConfig = &api.HostConfig{}
	}
	if o.Config.Image == "" {
		return api.CreateResponse{}, errs.InvalidArgument("no image specified")
	}
	image, err := m.opts.Images.Resolve(ctx, o.Config.Image, o.Platform)
	if err != nil {
		return api.CreateResponse{}, err
	}
	if err := mergeImage(o.Config, &image.Config); err != nil {
		return api.CreateResponse{}, err
	}
	m.applyDefaults(o.HostConfig)
	warnings, err := m.validate(o)
	if err != nil {
		return api.CreateResponse{}, err
	}
	c, err := m.newContainer(o, image)
	if err != nil {
		return api.CreateResponse{}, err
	}
	if err := m.reserve(c, o.Name); err != nil {
		return api.CreateResponse{}, err
	}
	defer m.building(c)()
	if err := m.build(ctx, c, o); err != nil {
		m.unbuild(context.WithoutCancel(ctx), c)
		return api.CreateResponse{}, err
	}
	if o.born != nil {
		o.born(c)
	}
	m.add(c)
	m.publish(c, events.ActionCreate)
	return api.CreateResponse{ID: c.rec.ID, Warnings: warnings}, nil
}

// building notes that a container is being created, so that its layers are not
// removed meanwhile; the function it returns ends that.
func (m *Manager) building(c *Container) func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unborn[c] = struct{}{}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.unborn, c)
	}
}

func (m *Manager) newContainer(o *CreateOptions, image *Image) (*Container, error) {
	id, err := newID()
	if err != nil {
		return nil, err
	}
	argv := append(append([]string{}, o.Config.Entrypoint...), o.Config.Cmd...)
	if len(argv) == 0 {
		return nil, errs.InvalidArgument("no command specified")
	}
	if o.Config.Hostname == "" {
		o.Config.Hostname = m.defaultHostname(id, o.HostConfig.NetworkMode)
	}
	c := &Container{rec: Record{
		ID:                id,
		Created:           time.Now().UTC(),
		Path:              argv[0],
		Args:              argv[1:],
		Config:            o.Config,
		HostConfig:        o.HostConfig,
		ImageID:           image.ID,
		Layers:            image.Layers,
		Platform:          "linux",
		Driver:            m.opts.Snapshots.Name(),
		State:             State{Status: api.StateCreated},
		ResolvedLogDriver: o.HostConfig.LogConfig.Type,
		ResolvedLogOpts:   o.HostConfig.LogConfig.Config,
	}}
	if o.NetworkingConfig != nil {
		c.rec.Endpoints = o.NetworkingConfig.EndpointsConfig
	}
	return c, nil
}

// defaultHostname is the short ID, or the name of whose network it is.
func (m *Manager) defaultHostname(id string, mode api.NetworkMode) string {
	switch {
	case mode.IsHost():
		if name, err := os.Hostname(); err == nil {
			return name
		}
	case mode.IsContainer():
		if owner, err := m.lookup(mode.ConnectedContainer()); err == nil {
			return owner.copy().Config.Hostname
		}
	}
	return id[:12]
}

// build makes what the container has on disk and records it.
func (m *Manager) build(ctx context.Context, c *Container, o *CreateOptions) error {
	id := c.rec.ID
	if tag := c.rec.ResolvedLogOpts["tag"]; tag != "" {
		if _, err := expandTag(tag, &c.rec); err != nil {
			return err
		}
	}
	if err := m.makeDir(id); err != nil {
		return fmt.Errorf("cannot make the container's directory: %w", err)
	}
	if log := m.logPath(&c.rec); log != "" && filepath.Dir(log) != m.dir(id) {
		if err := os.Mkdir(filepath.Dir(log), 0o700); err != nil {
			return fmt.Errorf("cannot make the directory of the container's log: %w", err)
		}
	}
	options := snapshot.PrepareOptions{Ephemeral: o.HostConfig.AutoRemove, Entries: ownEntries(&c.rec)}
	if size, ok := o.HostConfig.StorageOpt["size"]; ok {
		limit, err := parseSize(size)
		if err != nil {
			return errs.InvalidArgument("invalid storage option size=%s: %w", size, err)
		}
		options.SizeLimit = limit
	}
	region := trace.StartRegion(ctx, "snapshot.Prepare")
	err := m.opts.Snapshots.Prepare(ctx, id, c.rec.Layers, options)
	region.End()
	if err != nil {
		return err
	}
	if err := m.markRoot(id); err != nil {
		return err
	}
	if err := m.resolveMounts(ctx, c, o.DefaultReadOnlyNonRecursive); err != nil {
		return err
	}
	if err := m.copyUp(ctx, c); err != nil {
		return err
	}
	defer trace.StartRegion(ctx, "state.Put").End() // the one synced write, and none with --rm
	return m.save(c)
}

const dirMode = 0o710 // of a container's directory, and of the one around them

// makeDir makes the container's directory, if it can of one that is there.
func (m *Manager) makeDir(id string) error {
	if spare := m.spares.Take(); spare != "" {
		if unix.Rename(spare, m.dir(id)) == nil {
			return nil
		}
		os.RemoveAll(spare) // containers/ is on another disk, or not there
	}
	return os.MkdirAll(m.dir(id), dirMode)
}

// unbuild takes back what build and reserve did.
func (m *Manager) unbuild(ctx context.Context, c *Container) {
	for _, mnt := range c.rec.Mounts {
		if mnt.Name != "" && mnt.Driver != "" {
			m.opts.Volumes.Release(ctx, mnt.Name, c.rec.ID, true)
		}
	}
	m.opts.Snapshots.Remove(ctx, c.rec.ID)
	os.RemoveAll(m.dir(c.rec.ID))
	m.table.Delete(c.rec.ID)
	m.forget(c)
}

// reserve gives the container its name, or a generated one.
func (m *Manager) reserve(c *Container, name string) error {
	if name == "" {
		return m.reserveGenerated(c)
	}
	name = strings.TrimPrefix(name, "/")
	if err := validName(name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if holder, taken := m.byName[name]; taken {
		return errs.Conflict("Conflict. The container name %q is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", "/"+name, holder)
	}
	c.rec.Name = name
	m.byName[name] = c.rec.ID
	return nil
}

func (m *Manager) reserveGenerated(c *Container) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for attempt := range 8 {
		name := generateName(attempt)
		if _, taken := m.byName[name]; !taken {
			c.rec.Name = name
			m.byName[name] = c.rec.ID
			return nil
		}
	}
	c.rec.Name = c.rec.ID[:12]
	m.byName[c.rec.Name] = c.rec.ID
	return nil
}

// validName holds a name to Docker's [a-zA-Z0-9][a-zA-Z0-9_.-]+.
func validName(name string) error {
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || r != '_' && r != '.' && r != '-') {
			return badName(name)
		}
	}
	if len(name) < 2 {
		return badName(name)
	}
	return nil
}

func badName(name string) error {
	return errs.InvalidArgument("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
}

func newID() (string, error) {
	var b [32]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return "", err
		}
		id := hex.EncodeToString(b[:])
		// An ID whose short form is a number would be mistaken for one.
		if strings.ContainsAny(id[:12], "abcdef") {
			return id, nil
		}
	}
}

// Rename gives the container another name. The old one is free at once.
func (m *Manager) Rename(ctx context.Context, ref, name string) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	name = strings.TrimPrefix(name, "/")
	if name == "" {
		return errs.InvalidArgument("Neither old nor new names may be empty")
	}
	if err := validName(name); err != nil {
		return fmt.Errorf("Error when allocating new name: %w", badName("/"+name))
	}
	c.op.Lock()
	defer c.op.Unlock()
	old := c.copy().Name
	if old == name {
		return errs.InvalidArgument("Renaming a container with the same name as its current name")
	}
	m.mu.Lock()
	if holder, taken := m.byName[name]; taken {
		m.mu.Unlock()
		return errs.Conflict("Error when allocating new name: Conflict. The container name %q is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", "/"+name, holder)
	}
	m.byName[name] = c.rec.ID
	m.mu.Unlock()
	c.mu.Lock()
	c.rec.Name = name
	c.mu.Unlock()
	if err := m.save(c); err != nil {
		c.mu.Lock()
		c.rec.Name = old
		c.mu.Unlock()
		m.mu.Lock()
		delete(m.byName, name)
		m.mu.Unlock()
		return err
	}
	m.mu.Lock()
	delete(m.byName, old)
	m.mu.Unlock()
	if err := m.opts.Networks.Rename(c.rec.ID, name); err != nil {
		m.opts.Log.Error("cannot tell the network of a renamed container", "container", c.rec.ID, "error", err)
	}
	m.publish(c, events.ActionRename, "oldName", "/"+old)
	return nil
}

func (m *Manager) logPath(rec *Record) string {
	switch rec.ResolvedLogDriver {
	case "json-file":
		return filepath.Join(m.dir(rec.ID), rec.ID+"-json.log")
	case "local":
		return filepath.Join(m.dir(rec.ID), "local-logs", "container.log")
	}
	return ""
}
