package daemonconfig

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gantry-containers/gantry/internal/engine"
)

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Both forms of the file and the flags say the same in three languages.
func TestThreeWaysToSayIt(t *testing.T) {
	json := file(t, "daemon.json", "\xef\xbb\xbf"+`{
		"data-root": "/d", "hosts": ["unix:///a.sock", "tcp://127.0.0.1:1"], "labels": ["a=b"], "debug": true,
		"log-driver": "local", "log-opts": {"max-size": "1m", "max-file": 3},
		"default-ulimits": {"nofile": {"Name": "nofile", "Soft": 10, "Hard": 20}},
		"runtimes": {"crun": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}}, "default-runtime": "crun",
		"dns": ["1.1.1.1"], "bip": "172.20.0.1/16", "mtu": 1400, "default-shm-size": "128m", "live-restore": true,
		"insecure-registries": ["r:5000"], "registry-mirrors": ["https://m.example/"], "neighbours": ["n:5000"], "registry-hosts-dir": "/h", "shutdown-timeout": 3, "max-concurrent-uploads": 2,
		"image-gc-high": "80%", "image-gc-low": "60%", "image-gc-idle": "5m"
	}`)
	toml := file(t, "daemon.toml", `
		data-root = "/d"
		hosts = ["unix:///a.sock", "tcp://127.0.0.1:1"]
		labels = ["a=b"]
		debug = true
		log-driver = "local"
		default-runtime = "crun"
		dns = ["1.1.1.1"]
		bip = "172.20.0.1/16"
		mtu = 1400
		default-shm-size = "128m"
		insecure-registries = ["r:5000"]
		registry-mirrors = ["https://m.example/"]
		neighbours = ["n:5000"]
		registry-hosts-dir = "/h"
		shutdown-timeout = 3
		max-concurrent-uploads = 2
		image-gc-high = "80%"
		image-gc-low = "60%"
		image-gc-idle = "5m"
		[log-opts]
		max-size = "1m"
		max-file = 3
		[default-ulimits]
		nofile = { Soft = 10, Hard = 20 }
		[runtimes.crun]
		path = "/usr/bin/crun"
		runtimeArgs = ["--debug"]
	`)
	flags := []string{"--data-root=/d", "-H", "unix:///a.sock", "-H", "tcp://127.0.0.1:1", "--label", "a=b", "-D",
		"--log-driver", "local", "--log-opt", "max-size=1m", "--log-opt", "max-file=3", "--default-ulimit", "nofile=10:20",
		"--add-runtime", "crun=/usr/bin/crun", "--default-runtime=crun", "--dns", "1.1.1.1", "--bip", "172.20.0.1/16", "--mtu", "1400",
		"--default-shm-size", "128m", "--insecure-registry", "r:5000",
		"--registry-mirror", "https://m.example/", "--neighbour", "n:5000", "--registry-hosts-dir", "/h", "--shutdown-timeout", "3",
		"--max-concurrent-uploads", "2", "--image-gc-high", "80%", "--image-gc-low", "60%", "--image-gc-idle", "5m"}
	fromJSON := parse(t, "--config-file", json)
	fromTOML := parse(t, "--config-file", toml)
	fromFlags := parse(t, flags...)
	fromFlags.Runtimes["crun"] = engine.Runtime{Path: "/usr/bin/crun", Args: []string{"--debug"}} // no flag for those
	compare := cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "args" }, cmp.Ignore())
	exported := cmp.Exporter(func(reflect.Type) bool { return true })
	if diff := cmp.Diff(fromJSON, fromTOML, compare, exported); diff != "" {
		t.Errorf("JSON and TOML differ:\n%s", diff)
	}
	if diff := cmp.Diff(fromJSON, fromFlags, compare, exported); diff != "" {
		t.Errorf("file and flags differ:\n%s", diff)
	}
	c := fromJSON
	if c.DataRoot != "/d" || len(c.Hosts) != 2 || c.LogOpts["max-file"] != "3" || c.DefaultUlimits["nofile"].Hard != 20 ||
		c.ShmSize != 128<<20 || c.LogLevel != slog.LevelDebug || !c.Debug || c.ShutdownTimeout != 3*time.Second {
		t.Errorf("got %+v", c)
	}
}

func parse(t *testing.T, args ...string) *Config {
	t.Helper()
	c, err := Parse(args, &bytes.Buffer{})
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := parse(t, "--config-file", file(t, "empty.json", "\n"))
	if c.DataRoot != "/var/lib/gantry" || c.ExecRoot != "/run/gantry" || c.Instance() != "gantry" || c.NetworkPrefix != "gantry" ||
		c.LogDriver != "json-file" || c.MaxConcurrentDownloads != 0 || c.Hosts[0] != "unix:///run/gantry/gantry.sock" || c.MTU != 1500 {
		t.Errorf("got %+v", c)
	}
	other := parse(t, "--data-root", "/x", "--exec-root", "/y")
	if other.Instance() == "gantry" || len(other.Instance()) != 7 || other.Hosts[0] != "unix:///y/gantry.sock" {
		t.Errorf("a second engine is %s at %s", other.Instance(), other.Hosts)
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct {
		args string
		json string
		want string
	}{
		{"--mtu=1400", `{"mtu":1500}`, "the following directives are specified both as a flag and in the configuration file: mtu: (from flag: 1400, from file: 1500)"},
		{"--label=a=b", `{"labels":["a=c"]}`, "labels: (from flag: [a=b], from file: [a=c])"},
		{"", `{"iptables":true,"color":1}`, "the following directives don't match any configuration option: color, iptables"},
		{"", `{"host":["unix:///x"]}`, "don't match any configuration option: host"},
		{"", `{"mtu":`, "invalid JSON: unexpected EOF"},
		{"", `{} {}`, "unexpected content after the settings"},
		{"", `{"mtu":"wide"}`, `mtu: strconv.ParseInt: parsing "wide": invalid syntax`},
		{"", `{"mtu":{}}`, "is neither a string, a number nor a boolean"},
		{"", `{"hosts":"unix:///x"}`, "hosts: unix:///x is not a list"},
		{"", `{"runtimes":{"x":{}}}`, "runtimes: x: no path given"},
		{"", `{"default-ulimits":{"nofile":{"Sofd":1}}}`, `unknown field "Sofd"`},
		{"--default-runtime=crun", "", `default runtime "crun" is not among the runtimes`},
		{"--registry-mirror=m.example", "", `invalid mirror: no scheme specified for "m.example"`},
		{"", `{"neighbours":["n"]}`, `invalid neighbour: "n" is not HOST:PORT`},
		{"", `{"insecure-registries":["ftp://r"]}`, "insecure registry ftp://r should not contain '://'"},
		{"", `{"registry-mirror":["https://m.example"]}`, "don't match any configuration option: registry-mirror"},
		{"--dns=here", "", `dns: "here" is not an IP address`},
		{"--bip=172.20.0.0/16", "", "bip: 172.20.0.0/16 is the subnet itself, not an address in it"},
		{"--bip=172.20.0.1", "", `bip: "172.20.0.1" is not an IPv4 address with a prefix length`},
		{"--log-level=loud", "", "invalid logging level: loud"},
		{"--log-format=xml", "", "invalid log format: xml"},
		{"--default-ipc-mode=host", "", `IPC mode "host" is not supported as default value; use private or shareable`},
		{"--tlsverify", "", "TLS needs a certificate and its key"},
		{"--tlsverify --tlscert=a --tlskey=b", "", "tlsverify needs the certificate authority of the clients"},
		{"--label=a", "", "bad attribute format: a"},
		{"--label=a=1 --label=a=2", "", "conflict labels for a=2 and a=1"},
		{"--network-prefix=muchtoolong", "", "at most 8 characters"},
		{"--data-root=/a --exec-root=/a", "", "data-root and exec-root must differ"},
		{"--no-such-flag", "", "unknown flag: --no-such-flag"},
		{"surplus", "", "gantryd takes no arguments: surplus"},
		{"--config-file=/no/such/file", "", "cannot read the configuration file"},
	} {
		args := strings.Fields(tt.args)
		if tt.json != "" {
			args = append(args, "--config-file", file(t, "daemon.json", tt.json))
		}
		_, err := Parse(args, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q %s:\n got %v\nwant %s", tt.args, tt.json, err, tt.want)
		}
	}
}

func TestSameInBothPlacesIsNoConflict(t *testing.T) {
	path := file(t, "daemon.json", `{"mtu":1400,"labels":["a=b"],"runtimes":{"crun":{"path":"crun"}}}`)
	c := parse(t, "--mtu=1400", "--label=a=b", "--add-runtime=runc=/runc", "--config-file", path)
	if c.MTU != 1400 || len(c.Runtimes) != 2 {
		t.Errorf("got %+v", c.Runtimes)
	}
}

func TestReload(t *testing.T) {
	path := file(t, "daemon.json", `{"labels":["a=b"]}`)
	c := parse(t, "--config-file", path)
	if err := os.WriteFile(path, []byte(`{"labels":["a=c"],"log-level":"debug"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh, err := c.Reload()
	if err != nil || fresh.Labels[0] != "a=c" || !fresh.Debug {
		t.Errorf("got %+v %v", fresh, err)
	}
}

func TestHelpNamesEveryFlag(t *testing.T) {
	var out bytes.Buffer
	if _, err := Parse([]string{"--help"}, &out); !errors.Is(err, ErrHelp) {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "--data-root directory") || !strings.Contains(out.String(), "Usage: gantryd [OPTIONS]") {
		t.Errorf("usage:\n%s", &out)
	}
}

func FuzzFile(f *testing.F) {
	f.Add([]byte(`{"mtu":1400,"log-opts":{"a":"b"}}`), false)
	f.Add([]byte("mtu = 1400\n[log-opts]\na = \"b\"\n"), true)
	f.Add([]byte(`{"runtimes":{"x":{"path":"y"}},"default-ulimits":{"nofile":{"Soft":1}}}`), false)
	f.Fuzz(func(t *testing.T, data []byte, isTOML bool) {
		settings, err := decode(data, isTOML)
		if err != nil {
			return
		}
		for key, value := range settings {
			flags := (&values{}).flags(&Config{})
			if flag := flags.Lookup(flagOf(key)); flag != nil {
				_ = setFromFile(flag, value)
				_ = asFlag(value)
			}
		}
	})
}
