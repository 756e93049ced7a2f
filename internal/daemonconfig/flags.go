package daemonconfig

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/gantry-containers/gantry/internal/engine"
)

// values holds what has to be looked at before it can go into a Config.
type values struct {
	configFile      string
	debug           bool
	logLevel        string
	shutdownTimeout int
	liveRestore     bool
	bip             string
	dns             []string
	imageGCHigh     string
	imageGCLow      string
}

// flags defines every flag. A key of the configuration file is the name of a
// flag, or stands in fileKeys.
func (v *values) flags(c *Config) *pflag.FlagSet {
	f := pflag.NewFlagSet("gantryd", pflag.ContinueOnError)
	f.SortFlags = true
	v.daemonFlags(f, c)
	v.networkFlags(f, c)
	containerFlags(f, c)
	return f
}

func (v *values) daemonFlags(f *pflag.FlagSet, c *Config) {
	f.StringVar(&v.configFile, "config-file", DefaultFile, "Read settings from this `file`, JSON or (by its suffix) TOML")
	f.BoolVar(&c.ValidateOnly, "validate", false, "Check the configuration and exit")
	f.BoolVarP(&c.ShowVersion, "version", "v", false, "Print the version and exit")
	f.StringVar(&c.DataRoot, "data-root", engine.DefaultDataRoot, "Keep in this `directory` what outlives a boot: images, containers, volumes")
	f.StringVar(&c.ExecRoot, "exec-root", engine.DefaultExecRoot, "Keep in this `directory` sockets and what ends with a boot")
	f.StringVar(&c.ShimPath, "shim", "", "The gantry-shim `binary` (default: beside gantryd)")
	f.StringArrayVarP(&c.Hosts, "host", "H", nil, "Listen on this `address`: unix://, tcp:// or fd:// (default: gantry.sock in the exec root)")
	f.StringVarP(&c.SocketGroup, "group", "G", "docker", "Give unix sockets to this `group`")
	f.StringVarP(&c.Pidfile, "pidfile", "p", "", "Write the process ID to this `file`")
	f.BoolVar(&c.TLS.Enable, "tls", false, "Use TLS on tcp:// addresses; implied by --tlsverify")
	f.BoolVar(&c.TLS.Verify, "tlsverify", false, "Use TLS and ask clients for a certificate")
	f.StringVar(&c.TLS.CAFile, "tlscacert", "", "PEM `file` of the certificate authority that signs clients")
	f.StringVar(&c.TLS.Cert, "tlscert", "", "PEM `file` of the certificate")
	f.StringVar(&c.TLS.Key, "tlskey", "", "PEM `file` of the certificate's key")
	f.BoolVarP(&v.debug, "debug", "D", false, "Log at level debug and serve /debug")
	f.StringVarP(&v.logLevel, "log-level", "l", "info", "Lowest `level` logged: debug, info, warn, error")
	f.StringVar(&c.LogFormat, "log-format", "text", "Log in this `format`: text or json")
	f.IntVar(&v.shutdownTimeout, "shutdown-timeout", 15, "How many `seconds` a stopping daemon waits for running requests; -1 for ever")
	f.BoolVar(&v.liveRestore, "live-restore", true, "Accepted for Docker's sake: containers always run on without the daemon")
	f.StringArrayVar(&c.Labels, "label", nil, "`KEY=VALUE` to show in info")
	f.StringVarP(&c.StorageDriver, "storage-driver", "s", "", "Snapshotter: overlayfs or vfs (default: the best that works)")
	f.IntVar(&c.MaxConcurrentDownloads, "max-concurrent-downloads", 0, "Layers of a pull fetched and unpacked at a time (default: one for each 512 MiB of memory, at least 3 and at most 16)")
	f.StringVar(&v.imageGCHigh, "image-gc-high", "", "Remove unused images, those not used for longest first, when the disk is fuller than this `level`: \"85%\" of its file system, or \"50GB\" of images (default: never)")
	f.StringVar(&v.imageGCLow, "image-gc-low", "", "`Level` at which --image-gc-high ends (default nine tenths of that)")
	f.DurationVar(&c.ImageGCIdle, "image-gc-idle", 2*time.Minute, "How long an image that --image-gc-high removes must not have been used")
	f.IntVar(&c.MaxConcurrentUploads, "max-concurrent-uploads", 5, "Layers of a push sent at a time")
	f.StringArrayVar(&c.InsecureRegistries, "insecure-registry", nil, "Do without trusted TLS for this `registry` or network")
	f.StringArrayVar(&c.RegistryMirrors, "registry-mirror", nil, "Ask this `URL` before Docker Hub")
	f.StringArrayVar(&c.Neighbours, "neighbour", nil, "Ask this engine at `HOST:PORT`, which serves its images, before any registry")
	f.StringArrayVar(&c.ServeImages, "serve-images", nil, "Let neighbours pull every image here from `HOST:PORT`; without --tlsverify whoever reaches it can read them (default: nobody)")
	f.StringVar(&c.RegistryHostsDir, "registry-hosts-dir", "", "Search this `directory` for hosts.toml and certificates of registries, before those of Docker and containerd")
}

func (v *values) networkFlags(f *pflag.FlagSet, c *Config) {
	f.StringVar(&v.bip, "bip", "", "IPv4 `address/length` of the default bridge")
	f.IntVar(&c.MTU, "mtu", 0, "MTU of the default bridge (default 1500)")
	f.StringVar(&c.NetworkPrefix, "network-prefix", "", "Start of the names of interfaces and tables, at most 8 characters")
	f.StringArrayVar(&v.dns, "dns", nil, "DNS server `address` for containers")
	f.StringArrayVar(&c.DNSSearch, "dns-search", nil, "DNS search `domain` for containers")
	f.StringArrayVar(&c.DNSOptions, "dns-opt", nil, "DNS `option` for containers")
}

func containerFlags(f *pflag.FlagSet, c *Config) {
	f.StringVar(&c.LogDriver, "log-driver", "json-file", "Log `driver` of containers that name none")
	f.Var(mapValue{&c.LogOpts}, "log-opt", "`NAME=VALUE` for the log driver")
	f.Var(ulimitsValue{&c.DefaultUlimits}, "default-ulimit", "`NAME=SOFT[:HARD]` for containers that do not say")
	f.StringVar(&c.DefaultRuntime, "default-runtime", "", "Runtime `name` of containers that name none (default: built in)")
	f.Var(runtimesValue{&c.Runtimes}, "add-runtime", "`NAME=PATH` of another OCI runtime")
	f.StringArrayVar(&c.CDISpecDirs, "cdi-spec-dir", nil, "`Directory` of CDI device files (default: /etc/cdi and /var/run/cdi)")
	f.StringVar(&c.CgroupParent, "cgroup-parent", "", "Put containers below this `cgroup`")
	f.StringVar(&c.SeccompProfile, "seccomp-profile", "", "Seccomp profile `file`, or unconfined (default: built in)")
	f.BoolVar(&c.Init, "init", false, "Run an init in containers that do not say")
	f.StringVar(&c.InitPath, "init-path", "", "The init `binary` (default: gantry-init beside gantryd)")
	f.Var(sizeValue{&c.ShmSize}, "default-shm-size", "The `size` of /dev/shm in containers that do not say (default 64m)")
	f.StringVar((*string)(&c.IpcMode), "default-ipc-mode", "private", "IPC `mode`: private or shareable")
	f.StringVar((*string)(&c.CgroupnsMode), "default-cgroupns-mode", "", "Cgroup namespace `mode`: private or host")
}

// flagOf returns the flag a key of the configuration file stands for: most
// have the same name, those that may be given several times are plural.
func flagOf(key string) string {
	switch key {
	case "hosts":
		return "host"
	case "labels":
		return "label"
	case "insecure-registries":
		return "insecure-registry"
	case "registry-mirrors":
		return "registry-mirror"
	case "neighbours":
		return "neighbour"
	case "dns-opts":
		return "dns-opt"
	case "log-opts":
		return "log-opt"
	case "default-ulimits":
		return "default-ulimit"
	case "runtimes":
		return "add-runtime"
	case "cdi-spec-dirs":
		return "cdi-spec-dir"
	case "host", "label", "insecure-registry", "registry-mirror", "neighbour", "dns-opt", "log-opt", "default-ulimit", "add-runtime", "cdi-spec-dir",
		"config-file", "validate", "version":
		return ""
	}
	return key
}
