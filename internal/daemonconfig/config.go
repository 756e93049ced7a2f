// Package daemonconfig turns the flags of gantryd and its configuration file
// into one checked Config.
//
// It owns the names of both: the flags are dockerd's, the keys of the file are
// those of Docker's daemon.json, in JSON or, by the suffix .toml, in TOML. What
// the engine does not honour is not accepted here either. It knows nothing of
// how the settings are used.
package daemonconfig

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gantry-containers/gantry/internal/engine"
)

// DefaultFile is read when it exists and --config-file is not given.
const DefaultFile = "/etc/gantry/daemon.json"

// ErrHelp is returned by Parse after it has printed the usage for --help.
var ErrHelp = pflag.ErrHelp

// Config is all that gantryd can be told: what concerns the engine, embedded,
// and what concerns the daemon around it.
type Config struct {
	engine.Config

	Hosts       []string // addresses to listen on: unix://, tcp://, fd://
	SocketGroup string   // group of unix sockets; one that is missing is an error only when it was asked for
	TLS         TLS
	ServeImages []string // addresses, as host:port, where neighbours get our images

	Pidfile         string
	LogLevel        slog.Level
	LogFormat       string        // "text" or "json"
	ShutdownTimeout time.Duration // how long a stopping daemon waits for running requests; negative: for ever

	ShowVersion  bool // print the version and exit
	ValidateOnly bool // check the configuration and exit

	groupAsked bool
	args       []string
}

// TLS says how tcp:// addresses are protected. Files are PEM.
type TLS struct {
	Enable, Verify    bool // Verify asks clients for a certificate of the CA, and implies Enable
	CAFile, Cert, Key string
}

// GroupAsked tells whether the socket group was named by the user, so that it
// has to exist.
func (c *Config) GroupAsked() bool { return c.groupAsked }

// Parse reads the arguments (without the program's name) and the configuration
// file they name. Usage goes to out when it is asked for.
func Parse(args []string, out io.Writer) (*Config, error) {
	c := &Config{args: slices.Clone(args)}
	raw := &values{}
	flags := raw.flags(c)
	flags.SetOutput(out)
	flags.Usage = func() {
		fmt.Fprintf(out, "Usage: gantryd [OPTIONS]\n\nThe daemon of the Gantry container engine.\n\nOptions:\n%s", flags.FlagUsages())
	}
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("gantryd takes no arguments: %s", strings.Join(flags.Args(), " "))
	}
	if err := mergeFile(flags, raw.configFile, flags.Changed("config-file")); err != nil {
		return nil, err
	}
	if err := raw.finish(c, flags); err != nil {
		return nil, err
	}
	return c, nil
}

// Reload parses the same arguments again, and the file as it is now.
func (c *Config) Reload() (*Config, error) { return Parse(c.args, io.Discard) }

// finish checks the values and puts them where they belong.
func (v *values) finish(c *Config, flags *pflag.FlagSet) error {
	if v.debug {
		v.logLevel = "debug"
	}
	if err := parseLevel(v.logLevel, &c.LogLevel); err != nil {
		return err
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("invalid log format: %s", c.LogFormat)
	}
	c.Debug = c.LogLevel <= slog.LevelDebug
	c.ShutdownTimeout = time.Duration(v.shutdownTimeout) * time.Second
	c.groupAsked = flags.Changed("group")
	c.TLS.Enable = c.TLS.Enable || c.TLS.Verify

	var err error
	if c.DNS, err = parseAddrs("dns", v.dns); err != nil {
		return err
	}
	if c.BridgeAddr, err = parseBridge(v.bip); err != nil {
		return err
	}
	if err := checkRoots(c); err != nil {
		return err
	}
	if err := checkValues(c); err != nil {
		return err
	}
	if err := c.SetImageGC(v.imageGCHigh, v.imageGCLow); err != nil {
		return err
	}
	c.Defaults()
	if len(c.Hosts) == 0 {
		c.Hosts = []string{"unix://" + filepath.Join(c.ExecRoot, "gantry.sock")}
	}
	return nil
}

func parseLevel(s string, level *slog.Level) error {
	switch strings.ToLower(s) {
	case "trace", "debug":
		*level = slog.LevelDebug
	case "info":
		*level = slog.LevelInfo
	case "warn":
		*level = slog.LevelWarn
	case "error", "fatal", "panic":
		*level = slog.LevelError
	default:
		return fmt.Errorf("invalid logging level: %s", s)
	}
	return nil
}

func parseAddrs(key string, list []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, s := range list {
		addr, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("%s: %q is not an IP address", key, s)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func parseBridge(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return p, fmt.Errorf("bip: %q is not an IPv4 address with a prefix length, such as 172.20.0.1/16", s)
	}
	if p.Bits() < 31 && p.Addr() == p.Masked().Addr() {
		return p, fmt.Errorf("bip: %s is the subnet itself, not an address in it", s)
	}
	return p, nil
}

// checkRoots makes the roots absolute: the daemon's working directory is no
// place to depend on.
func checkRoots(c *Config) error {
	if c.RegistryHostsDir != "" {
		abs, err := filepath.Abs(c.RegistryHostsDir)
		if err != nil {
			return fmt.Errorf("cannot make %s absolute: %w", c.RegistryHostsDir, err)
		}
		c.RegistryHostsDir = abs
	}
	for _, dir := range []*string{&c.DataRoot, &c.ExecRoot} {
		if *dir == "" {
			return errors.New("data-root and exec-root must not be empty")
		}
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return fmt.Errorf("cannot make %s absolute: %w", *dir, err)
		}
		*dir = abs
	}
	if c.DataRoot == c.ExecRoot {
		return fmt.Errorf("data-root and exec-root must differ: %s", c.DataRoot)
	}
	return nil
}

func checkValues(c *Config) error {
	switch {
	case slices.ContainsFunc(c.ServeImages, isNoHostPort):
		return fmt.Errorf("serve-images needs addresses such as 192.0.2.1:2380: %s", strings.Join(c.ServeImages, " "))
	case c.MTU < 0:
		return fmt.Errorf("invalid default MTU: %d", c.MTU)
	case c.MaxConcurrentDownloads < 0:
		return fmt.Errorf("invalid max concurrent downloads: %d", c.MaxConcurrentDownloads)
	case c.ImageGCIdle < 0:
		return fmt.Errorf("invalid image gc idle: %s", c.ImageGCIdle)
	case c.MaxConcurrentUploads < 0:
		return fmt.Errorf("invalid max concurrent uploads: %d", c.MaxConcurrentUploads)
	case c.ShmSize < 0:
		return fmt.Errorf("invalid default shm size: %d", c.ShmSize)
	case len(c.NetworkPrefix) > 8 || strings.ContainsAny(c.NetworkPrefix, "/: \t\n"):
		return fmt.Errorf("invalid network prefix %q: at most 8 characters that may stand in the name of an interface", c.NetworkPrefix)
	case c.IpcMode != "" && !c.IpcMode.IsPrivate() && !c.IpcMode.IsShareable():
		return fmt.Errorf("IPC mode %q is not supported as default value; use private or shareable", c.IpcMode)
	case c.CgroupnsMode != "" && !c.CgroupnsMode.IsPrivate() && !c.CgroupnsMode.IsHost():
		return fmt.Errorf("default cgroup namespace mode %q is invalid; use private or host", c.CgroupnsMode)
	case c.TLS.Enable && (c.TLS.Cert == "" || c.TLS.Key == ""):
		return errors.New("TLS needs a certificate and its key: give tlscert and tlskey")
	case c.TLS.Verify && c.TLS.CAFile == "":
		return errors.New("tlsverify needs the certificate authority of the clients: give tlscacert")
	}
	if !c.KnowsRuntime(c.DefaultRuntime) {
		return fmt.Errorf("default runtime %q is not among the runtimes", c.DefaultRuntime)
	}
	settings := c.Registries()
	if err := settings.Check(); err != nil {
		return err
	}
	return checkLabels(c.Labels)
}

func isNoHostPort(address string) bool {
	_, _, err := net.SplitHostPort(address)
	return err != nil
}

func checkLabels(labels []string) error {
	seen := map[string]string{}
	for _, label := range labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return fmt.Errorf("bad attribute format: %s", label)
		}
		if old, ok := seen[key]; ok && old != value {
			return fmt.Errorf("conflict labels for %s=%s and %s=%s", key, value, key, old)
		}
		seen[key] = value
	}
	return nil
}

// isMissing tells whether a file named by default simply is not there.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
