package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"

	icontainer "github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/image"
	"github.com/gantry-containers/gantry/internal/registry"
)

// The default roots of the engine. An engine with both of them is "the" engine
// of the machine and may use the plain name gantry for what it creates there.
const (
	DefaultDataRoot = "/var/lib/gantry"
	DefaultExecRoot = "/run/gantry"
)

// Config is everything an engine can be told. The zero value of a field means
// the default named beside it; Defaults fills those in. It is built from flags
// and the configuration file by internal/daemonconfig.
type Config struct {
	DataRoot string // durable state; DefaultDataRoot
	ExecRoot string // sockets and what is gone after a boot; DefaultExecRoot
	ShimPath string // the gantry-shim binary; "" looks beside gantryd, then in PATH

	Debug  bool     // shown by info; the log level is the caller's
	Labels []string // "key=value" shown by info, for people who place work

	StorageDriver          string           // snapshotter: "" picks overlayfs where it works, else vfs
	MaxConcurrentDownloads int              // layers of one pull fetched at a time; 0 is what image.AtOnce says
	MaxConcurrentUploads   int              // blobs of one push sent at a time; 5
	ImageGC                image.Watermarks // of disk use, between which images are collected; none
	ImageGCIdle            time.Duration    // how long such an image was not used; 2 minutes
	InsecureRegistries     []string
	RegistryMirrors        []string // URLs asked before Docker Hub
	Neighbours             []string // other engines that serve their images, asked before going out
	RegistryHostsDir       string   // searched for hosts.toml and certificates before Docker's and containerd's directories

	LogDriver string            // of containers that name none; json-file
	LogOpts   map[string]string // of containers that name no driver

	DefaultRuntime string             // "" is the built-in one
	Runtimes       map[string]Runtime // external OCI runtimes by the name --runtime takes
	CDISpecDirs    []string           // of the Container Device Interface; /etc/cdi and /var/run/cdi
	CgroupParent   string             // "" is /<instance>
	SeccompProfile string             // file, "unconfined", or "" for the built-in default
	Init           bool               // run an init in containers that do not say
	InitPath       string             // "" is the built-in init
	ShmSize        int64              // bytes of /dev/shm; 64 MiB
	IpcMode        container.IpcMode  // "private" or "shareable"; private
	CgroupnsMode   container.CgroupnsMode
	DefaultUlimits map[string]*container.Ulimit

	BridgeAddr    netip.Prefix // address and subnet of the default bridge; zero picks a free one
	MTU           int          // of the default bridge; 1500
	SpareNetworks int          // prepared network namespaces kept while containers are started; 2
	NetworkPrefix string       // start of names of interfaces and tables, at most 8 bytes; "" is Instance
	DNS           []netip.Addr // for containers that name none; empty copies the host's
	DNSSearch     []string
	DNSOptions    []string
}

// Runtime is an external program that speaks the OCI runtime command line.
type Runtime struct {
	Path string   `json:"path,omitempty" toml:"path,omitempty"`
	Args []string `json:"runtimeArgs,omitempty" toml:"runtimeArgs,omitempty"`
}

// Registries is how registries are reached.
func (c *Config) Registries() registry.Settings {
	s := registry.Settings{
		Insecure:   slices.Clone(c.InsecureRegistries),
		Mirrors:    slices.Clone(c.RegistryMirrors),
		Neighbours: slices.Clone(c.Neighbours),
		HostDirs:   registry.DefaultHostDirs(),
	}
	if c.RegistryHostsDir != "" {
		s.HostDirs = append([]string{c.RegistryHostsDir}, s.HostDirs...)
	}
	return s
}

// SetImageGC reads the watermarks of disk use: percentages of the file system
// or sizes of all images; an empty high turns collection off.
func (c *Config) SetImageGC(high, low string) (err error) {
	if c.ImageGC.High, err = image.ParseWatermark(high); err != nil {
		return err
	}
	if c.ImageGC.Low, err = image.ParseWatermark(low); err != nil {
		return err
	}
	return c.ImageGC.Check()
}

// KnowsRuntime reports whether --runtime may name it: one that was configured,
// or one of the names of the built-in runtime.
func (c *Config) KnowsRuntime(name string) bool {
	_, configured := c.Runtimes[name]
	return configured || icontainer.IsBuiltinRuntime(name)
}

// Defaults fills every field whose zero value is not its default.
func (c *Config) Defaults() {
	setDefault(&c.DataRoot, DefaultDataRoot)
	setDefault(&c.ExecRoot, DefaultExecRoot)
	setDefault(&c.LogDriver, "json-file")
	setDefault(&c.MaxConcurrentUploads, 5)
	setDefault(&c.ImageGCIdle, 2*time.Minute)
	setDefault(&c.ShmSize, 64<<20)
	setDefault(&c.IpcMode, container.IPCModePrivate)
	setDefault(&c.MTU, 1500)
	setDefault(&c.SpareNetworks, 2)
	setDefault(&c.NetworkPrefix, c.Instance())
	if len(c.CDISpecDirs) == 0 {
		c.CDISpecDirs = []string{"/etc/cdi", "/var/run/cdi"}
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Instance names what this engine creates on the machine outside its roots:
// its cgroup parent, bridge, nftables table and interfaces. It is "gantry" for
// the default roots, and otherwise derived from the data root, so that two
// engines on one machine never touch each other's.
func (c *Config) Instance() string {
	if filepath.Clean(c.DataRoot) == DefaultDataRoot && filepath.Clean(c.ExecRoot) == DefaultExecRoot {
		return "gantry"
	}
	sum := sha256.Sum256([]byte(filepath.Clean(c.DataRoot)))
	return "g" + hex.EncodeToString(sum[:])[:6]
}
