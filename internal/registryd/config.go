package registryd

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/pflag"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/access"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// DefaultRoot is where a registry keeps everything unless it is told.
const DefaultRoot = "/var/lib/gantry-registry"

// ErrHelp is returned by Parse after it has printed the usage for --help.
var ErrHelp = pflag.ErrHelp

// Duration is a time.Duration that a configuration file spells "90s" or "36h".
// It knows days, as retention is told in them: "30d".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	var days int
	if n, err := fmt.Sscanf(string(text), "%dd", &days); n == 1 && err == nil && string(text) == fmt.Sprintf("%dd", days) {
		*d = Duration(time.Duration(days) * 24 * time.Hour)
		return nil
	}
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration, such as 90s, 12h or 30d", text)
	}
	*d = Duration(v)
	return nil
}

// Set implements pflag.Value.
func (d *Duration) Set(s string) error { return d.UnmarshalText([]byte(s)) }

// Type implements pflag.Value.
func (d *Duration) Type() string { return "duration" }

func (d *Duration) String() string { return time.Duration(*d).String() }

// Config is all a registry can be told. The keys are those of its file; the
// flags have the same names where there are flags.
type Config struct {
	Listen          []string `toml:"listen"`
	Root            string   `toml:"root"`
	ShutdownTimeout Duration `toml:"shutdown-timeout"`
	ReadOnly        bool     `toml:"read-only"`
	// Host is what clients call the registry, with its port. Without it that
	// is what each client says, also in the events of webhooks.
	Host           string   `toml:"host"`
	TrustedProxies []string `toml:"trusted-proxies"`

	Log struct {
		Level  string `toml:"level"`
		Format string `toml:"format"`
	} `toml:"log"`
	TLS struct {
		Cert       string   `toml:"cert"`
		Key        string   `toml:"key"`
		SelfSigned bool     `toml:"self-signed"`
		Names      []string `toml:"names"`
		ClientCA   string   `toml:"client-ca"`
	} `toml:"tls"`
	S3       S3 `toml:"s3"`
	Accounts struct {
		Htpasswd      string   `toml:"htpasswd"`
		AnonymousRead bool     `toml:"anonymous-read"`
		Tokens        bool     `toml:"tokens"`
		Realm         string   `toml:"realm"`
		Service       string   `toml:"service"`
		Issuer        string   `toml:"issuer"`
		Lifetime      Duration `toml:"lifetime"`
	} `toml:"accounts"`
	Groups    map[string][]string `toml:"groups"`
	Rules     []access.Rule       `toml:"rule"`
	Trust     *access.Trust       `toml:"trust"`
	Mirrors   []Mirror            `toml:"mirror"`
	Webhooks  []Webhook           `toml:"webhook"`
	GC        GC                  `toml:"gc"`
	Retention []Retention         `toml:"retention"`
	Metrics   struct {
		Listen string `toml:"listen"`
	} `toml:"metrics"`

	proxies []netip.Prefix
	file    string
	args    []string
}

// S3 is where blobs are kept instead of below the root.
type S3 struct {
	Endpoint  string `toml:"endpoint"`
	Bucket    string `toml:"bucket"`
	Prefix    string `toml:"prefix"`
	Region    string `toml:"region"`
	AccessKey string `toml:"access-key"`
	SecretKey string `toml:"secret-key"`
	Insecure  bool   `toml:"insecure"` // plain HTTP
}

// Mirror is another registry this one stands in front of.
type Mirror struct {
	Prefix       string   `toml:"prefix"`
	Registry     string   `toml:"registry"`
	Path         string   `toml:"path"`
	Username     string   `toml:"username"`
	Password     string   `toml:"password"`
	PasswordFile string   `toml:"password-file"`
	TTL          Duration `toml:"ttl"`
	Insecure     bool     `toml:"insecure"`
}

// Webhook is a receiver of events.
type Webhook struct {
	Name       string              `toml:"name"`
	URL        string              `toml:"url"`
	Headers    map[string]string   `toml:"headers"`
	Timeout    Duration            `toml:"timeout"`
	Backoff    Duration            `toml:"backoff"`
	MaxBackoff Duration            `toml:"max-backoff"`
	MaxAge     Duration            `toml:"max-age"`
	Events     []serve.EventAction `toml:"events"`
	Blobs      bool                `toml:"blobs"`
}

// GC says when garbage is collected, and what that is.
type GC struct {
	Every    Duration `toml:"every"`    // 0: never by itself
	Grace    Duration `toml:"grace"`    // what is younger, or was asked for since, stays
	Uploads  Duration `toml:"uploads"`  // after so long without a byte an upload is given up
	Untagged bool     `toml:"untagged"` // manifests without a tag are garbage too
}

// Retention is one rule of depot.Retention.
type Retention struct {
	Repositories []string `toml:"repositories"`
	Tags         []string `toml:"tags"`
	Keep         []string `toml:"keep"`
	KeepLast     int      `toml:"keep-last"`
	OlderThan    Duration `toml:"older-than"`
}

// Parse reads the arguments after "registry serve" and the file they name. Usage
// goes to out when it is asked for.
func Parse(args []string, out io.Writer) (*Config, error) {
	c := &Config{}
	c.defaults()
	c.args = args
	flags := c.flags()
	flags.SetOutput(out)
	flags.Usage = func() { usage(out, flags) }
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, errs.InvalidArgument("gantryd registry serve takes no arguments: %s", strings.Join(flags.Args(), " "))
	}
	if c.file != "" {
		// The file goes first: what the command line says counts.
		path := c.file
		fresh := &Config{}
		fresh.defaults()
		if err := fresh.read(path); err != nil {
			return nil, err
		}
		*c = *fresh
		c.args = args
		flags = c.flags()
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
	}
	return c, c.check()
}

func (c *Config) defaults() {
	c.Root = DefaultRoot
	c.ShutdownTimeout = Duration(30 * time.Second)
	c.Log.Level, c.Log.Format = "info", "text"
	c.GC = GC{Every: Duration(24 * time.Hour), Grace: Duration(time.Hour), Uploads: Duration(24 * time.Hour)}
	c.S3.Region = "us-east-1"
}

func (c *Config) flags() *pflag.FlagSet {
	f := pflag.NewFlagSet("gantryd registry serve", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringSliceVar(&c.Listen, "listen", c.Listen, "Addresses to listen on, as 127.0.0.1:5000, :443 or unix:///PATH (default 127.0.0.1:5000)")
	f.StringVar(&c.Root, "root", c.Root, "Directory of everything the registry keeps")
	f.StringVar(&c.Host, "host", c.Host, "What clients call the registry, as registry.example:5000 (default whatever each of them says)")
	f.StringVar(&c.file, "config", c.file, "Configuration file (TOML); flags override it, SIGHUP reads it again")
	f.StringVar(&c.TLS.Cert, "tls-cert", c.TLS.Cert, "TLS certificate with its chain (PEM)")
	f.StringVar(&c.TLS.Key, "tls-key", c.TLS.Key, "Key of the TLS certificate (PEM)")
	f.BoolVar(&c.TLS.SelfSigned, "tls-self-signed", c.TLS.SelfSigned, "Make a certificate authority and a certificate, kept under the root")
	f.StringSliceVar(&c.TLS.Names, "tls-name", c.TLS.Names, "Further names and addresses for the self-made certificate")
	f.StringVar(&c.TLS.ClientCA, "tls-client-ca", c.TLS.ClientCA, "Only serve clients with a certificate of this authority (PEM)")
	f.StringVar(&c.Accounts.Htpasswd, "htpasswd", c.Accounts.Htpasswd, "Accounts: a file made by htpasswd -B, read again when it changes")
	f.BoolVar(&c.Accounts.AnonymousRead, "anonymous-read", c.Accounts.AnonymousRead, "Let everybody pull, and accounts do everything")
	f.BoolVar(&c.Accounts.Tokens, "tokens", c.Accounts.Tokens, "Give clients tokens instead of asking for the password each time")
	f.BoolVar(&c.ReadOnly, "read-only", c.ReadOnly, "Refuse pushes and deletes")
	f.StringVar(&c.S3.Endpoint, "s3-endpoint", c.S3.Endpoint, "Keep content in a bucket of this S3-compatible server, as s3.example:9000")
	f.StringVar(&c.S3.Bucket, "s3-bucket", c.S3.Bucket, "Name of the bucket")
	f.StringVar(&c.S3.Prefix, "s3-prefix", c.S3.Prefix, "What the keys of all objects begin with")
	f.StringVar(&c.S3.Region, "s3-region", c.S3.Region, "Region of the bucket")
	f.BoolVar(&c.S3.Insecure, "s3-insecure", c.S3.Insecure, "Speak plain HTTP to the S3 server")
	f.Var(&c.GC.Every, "gc-every", "Time between collections of garbage; 0 for none")
	f.Var(&c.GC.Grace, "gc-grace", "Age below which nothing is collected")
	f.BoolVar(&c.GC.Untagged, "gc-untagged", c.GC.Untagged, "Collect manifests that no tag leads to, too")
	f.StringVar(&c.Metrics.Listen, "metrics-listen", c.Metrics.Listen, "Serve /metrics on this address without asking for an account")
	f.StringSliceVar(&c.TrustedProxies, "trusted-proxy", c.TrustedProxies, "Networks of proxies whose X-Forwarded headers are believed")
	f.StringVar(&c.Log.Level, "log-level", c.Log.Level, "debug, info, warn or error")
	f.StringVar(&c.Log.Format, "log-format", c.Log.Format, "text or json")
	f.Var(&c.ShutdownTimeout, "shutdown-timeout", "How long running requests may go on after SIGTERM")
	return f
}

func usage(out io.Writer, flags *pflag.FlagSet) {
	fmt.Fprintf(out, `Usage: gantryd registry serve [OPTIONS]

Serve a registry: the OCI distribution protocol under /v2/, a web page under /,
search under /v1/ and /api/v1/, tokens under /token, figures under /metrics.

Options:
%s
The keys of an S3 bucket come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or
from the configuration file. Rights, mirrors, webhooks and retention are set in the
file: see docs/registry.md.
`, flags.FlagUsages())
}

// read takes the file over. Relative paths in it are relative to its directory.
func (c *Config) read(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return errs.InvalidArgument("cannot read the configuration: %w", err)
	}
	if err := c.decode(data); err != nil {
		return errs.InvalidArgument("cannot read the configuration %s: %w", path, err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return errs.System("cannot find the directory of %s: %w", path, err)
	}
	files := []*string{&c.Root, &c.TLS.Cert, &c.TLS.Key, &c.TLS.ClientCA, &c.Accounts.Htpasswd}
	if c.Trust != nil {
		files = append(files, &c.Trust.RootCertBundle, &c.Trust.JWKS)
	}
	for i := range c.Mirrors {
		files = append(files, &c.Mirrors[i].PasswordFile)
	}
	for _, file := range files {
		if *file != "" && !filepath.IsAbs(*file) {
			*file = filepath.Join(filepath.Dir(abs), *file)
		}
	}
	return nil
}

func (c *Config) decode(data []byte) error {
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	err := dec.Decode(c)
	var unknown *toml.StrictMissingError
	if errors.As(err, &unknown) && len(unknown.Errors) > 0 {
		row, _ := unknown.Errors[0].Position()
		return fmt.Errorf("line %d: there is no key %s", row, strings.Join(unknown.Errors[0].Key(), "."))
	}
	var wrong *toml.DecodeError
	if errors.As(err, &wrong) {
		row, _ := wrong.Position()
		return fmt.Errorf("line %d: %w", row, err)
	}
	return err
}

func (c *Config) check() error {
	if len(c.Listen) == 0 {
		c.Listen = []string{"127.0.0.1:5000"}
	}
	root, err := filepath.Abs(c.Root)
	if err != nil || c.Root == "" {
		return errs.InvalidArgument("root must name a directory")
	}
	c.Root = root
	for _, address := range c.Listen {
		if _, _, err := network(address); err != nil {
			return err
		}
	}
	for _, text := range c.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if addr, aerr := netip.ParseAddr(text); aerr == nil {
			prefix, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return errs.InvalidArgument("trusted proxy %q is no address or network", text)
		}
		c.proxies = append(c.proxies, prefix)
	}
	switch {
	case (c.TLS.Cert == "") != (c.TLS.Key == ""):
		return errs.InvalidArgument("TLS needs a certificate and its key: give both tls-cert and tls-key")
	case c.TLS.Cert != "" && c.TLS.SelfSigned:
		return errs.InvalidArgument("TLS takes a given certificate or a self-made one, not both")
	case c.TLS.ClientCA != "" && !c.tls():
		return errs.InvalidArgument("clients can only be asked for certificates in TLS: give a certificate, or tls-self-signed")
	case strings.ContainsAny(c.Host, "/ \"\\@"):
		return errs.InvalidArgument("invalid host %q: give a name, and a port where it is not the usual one", c.Host)
	case c.Log.Format != "text" && c.Log.Format != "json":
		return errs.InvalidArgument("invalid log format: %s", c.Log.Format)
	case (c.S3.Endpoint == "") != (c.S3.Bucket == ""):
		return errs.InvalidArgument("S3 needs an endpoint and a bucket")
	case c.Accounts.AnonymousRead && c.Accounts.Htpasswd == "":
		return errs.InvalidArgument("anonymous-read means something only where there are accounts: give htpasswd")
	}
	_, err = level(c.Log.Level)
	return err
}

func (c *Config) tls() bool { return c.TLS.Cert != "" || c.TLS.SelfSigned }

// Reload parses the same arguments again, and the file as it is now.
func (c *Config) Reload() (*Config, error) { return Parse(c.args, io.Discard) }

// network says how to listen on an address.
func network(address string) (proto, at string, err error) {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return "unix", path, nil
	}
	at = strings.TrimPrefix(address, "tcp://")
	if _, _, err := net.SplitHostPort(at); err != nil {
		return "", "", errs.InvalidArgument("cannot listen on %q: give HOST:PORT, :PORT or unix:///PATH", address)
	}
	return "tcp", at, nil
}

// accessOptions are those of package access.
func (c *Config) accessOptions() access.Options {
	o := access.Options{
		Htpasswd: c.Accounts.Htpasswd, Rules: c.Rules, Groups: c.Groups, Tokens: c.Accounts.Tokens,
		Issuer: c.Accounts.Issuer, Service: c.Accounts.Service, Realm: c.Accounts.Realm,
		Lifetime: time.Duration(c.Accounts.Lifetime), KeyDir: filepath.Join(c.Root, "keys"), Trust: c.Trust,
	}
	if c.Accounts.AnonymousRead {
		if len(o.Rules) == 0 {
			o.Rules = append(o.Rules, access.Rule{Repositories: []string{"**"}, Users: []string{"*"}, Allow: []string{"read", "write", "delete"}})
		}
		o.Rules = append(o.Rules, access.Rule{Repositories: []string{"**"}, Users: []string{"anonymous"}, Allow: []string{"read"}})
	}
	return o
}
