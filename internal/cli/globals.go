package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/config"
)

// DefaultHost is where the engine of this machine listens.
const DefaultHost = "unix:///run/gantry/gantry.sock"

// globals are the flags that stand before the command.
type globals struct {
	configDir             string
	context               string
	hosts                 []string
	debug                 bool
	logLevel              string
	useTLS, verify        bool
	caFile, cert, keyFile string
	noStart               bool
	version               bool
}

func (g *globals) addTo(fs *pflag.FlagSet) {
	certs := os.Getenv("DOCKER_CERT_PATH")
	if certs == "" {
		certs = config.Dir()
	}
	fs.StringVar(&g.configDir, "config", config.Dir(), "Location of client config files")
	fs.StringVarP(&g.context, "context", "c", "", "Accepted for Docker's sake; only \"default\" exists")
	fs.StringArrayVarP(&g.hosts, "host", "H", nil, "Engine socket to connect to (default "+DefaultHost+")")
	fs.BoolVarP(&g.debug, "debug", "D", false, "Enable debug mode")
	fs.StringVarP(&g.logLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	fs.BoolVar(&g.useTLS, "tls", false, "Use TLS; implied by --tlsverify")
	fs.StringVar(&g.caFile, "tlscacert", filepath.Join(certs, "ca.pem"), "Trust certs signed only by this CA")
	fs.StringVar(&g.cert, "tlscert", filepath.Join(certs, "cert.pem"), "Path to TLS certificate file")
	fs.StringVar(&g.keyFile, "tlskey", filepath.Join(certs, "key.pem"), "Path to TLS key file")
	fs.BoolVar(&g.verify, "tlsverify", os.Getenv("DOCKER_TLS_VERIFY") != "", "Use TLS and verify the remote")
	fs.BoolVar(&g.noStart, "no-start", false, "Do not start the engine when none answers on the default socket")
	fs.BoolVarP(&g.version, "version", "v", false, "Print version information and quit")
	for _, name := range []string{"context", "debug", "log-level"} {
		fs.Lookup(name).Hidden = true
	}
}

// parse reads the flags in front of the command and returns what follows.
func (g *globals) parse(args []string) ([]string, error) {
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		// Almost every call: no flags to look at.
		g.configDir = config.Dir()
		g.verify = os.Getenv("DOCKER_TLS_VERIFY") != ""
		return args, nil
	}
	fs := pflag.NewFlagSet("gantry", pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.Usage = func() {}
	g.addTo(fs)
	help := fs.BoolP("help", "h", false, "Print usage")
	if err := fs.Parse(args); err != nil {
		return nil, &exitError{code: 125, err: err, hint: "\nUsage:  gantry [OPTIONS] COMMAND [ARG...]\n\nRun 'gantry --help' for more information"}
	}
	if g.context != "" && g.context != "default" {
		return nil, fmt.Errorf("context %q: not found; gantry chooses its engine with -H, GANTRY_HOST or DOCKER_HOST", g.context)
	}
	if len(g.hosts) > 1 {
		return nil, errors.New("specify only one -H")
	}
	if *help {
		return append([]string{"help"}, fs.Args()...), nil
	}
	return fs.Args(), nil
}

// host chooses the engine. isDefault says that nobody named one.
func (g *globals) host() (host string, isDefault bool) {
	if len(g.hosts) > 0 {
		return strings.TrimSpace(g.hosts[0]), false
	}
	for _, name := range []string{"GANTRY_HOST", "DOCKER_HOST"} {
		if v := os.Getenv(name); v != "" {
			return v, false
		}
	}
	return DefaultHost, true
}

// secure is what makes a connection one of TLS; nil where none is asked for.
func (g *globals) secure() (client.Secure, error) {
	if !g.useTLS && !g.verify {
		return nil, nil
	}
	files := *g
	if g.caFile == "" { // only the environment asked for it
		files.addTo(pflag.NewFlagSet("", pflag.ContinueOnError))
	}
	return LoadTLS(files.caFile, files.cert, files.keyFile, g.verify, true)
}
