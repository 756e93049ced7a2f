package registry

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// show writes what was read so that it can be compared.
func show(hosts []hostConfig) string {
	var b strings.Builder
	for _, h := range hosts {
		words := []string{"-"}
		if h.url != nil {
			words[0] = h.url.String()
		}
		for name, c := range map[string]capability{"pull": canPull} {
			if h.can&c != 0 {
				words = append(words, name)
			}
		}
		if h.can&canResolve != 0 {
			words = append(words, "resolve")
		}
		if h.can&canPush != 0 {
			words = append(words, "push")
		}
		for _, ca := range h.tls.authorities {
			words = append(words, "ca="+ca)
		}
		for _, pair := range h.tls.pairs {
			words = append(words, "cert="+pair[0]+"+"+pair[1])
		}
		if h.tls.skipVerify != nil {
			words = append(words, fmt.Sprint("skip=", *h.tls.skipVerify))
		}
		if h.header != nil {
			words = append(words, fmt.Sprint(h.header))
		}
		if h.dialTimeout != 0 {
			words = append(words, h.dialTimeout.String())
		}
		fmt.Fprintln(&b, strings.Join(words, " "))
	}
	return b.String()
}

// The examples of containerd's documentation are read as it says.
func TestHostsFile(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"empty":       {"# nothing", "- pull resolve push\n"},
		"server only": {`server = "https://registry.example.com"`, "https://registry.example.com/v2 pull resolve push\n"},
		"no scheme":   {`server = "registry.example.com:5000"`, "https://registry.example.com:5000/v2 pull resolve push\n"},
		"the site":    {`server = "https://docker.io"`, "https://registry-1.docker.io/v2 pull resolve push\n"},
		"order is kept": {`
			server = "https://registry-1.docker.io"
			ca = "own.pem"
			[host."https://z.example"]
			capabilities = ["pull"]
			[host."https://z.example".header]
			x-one = "1"
			x-two = ["2", "3"]
			[host."https://a.example"]
			capabilities = ["pull", "resolve"]
			ca = ["/etc/certs/1.pem", "2.pem"]
			dial_timeout = "2s"
			[host."http://m.example:5000"]
			skip_verify = true`,
			`https://z.example/v2 pull map[X-One:[1] X-Two:[2 3]]
https://a.example/v2 pull resolve ca=/etc/certs/1.pem ca=/d/2.pem 2s
http://m.example:5000/v2 pull resolve push skip=true
https://registry-1.docker.io/v2 pull resolve push ca=/d/own.pem
`},
		"paths": {`
			[host."https://a.example/"]
			[host."https://b.example/v2/"]
			[host."https://c.example/us"]
			[host."https://d.example/v2/upstream"]
			override_path = true
			[host."https://e.example"]
			override_path = true`,
			`https://a.example/v2 pull resolve push
https://b.example/v2 pull resolve push
https://c.example/us/v2 pull resolve push
https://d.example/v2/upstream pull resolve push
https://e.example pull resolve push
- pull resolve push
`},
		"clients": {`
			client = "all.pem"
			[host."https://a.example"]
			client = ["1.pem", "2.pem"]
			[host."https://b.example"]
			client = [["c.cert", "/k/c.key"], ["3.pem", ""], ["4.pem"]]`,
			`https://a.example/v2 pull resolve push cert=/d/1.pem+ cert=/d/2.pem+
https://b.example/v2 pull resolve push cert=/d/c.cert+/k/c.key cert=/d/3.pem+ cert=/d/4.pem+
- pull resolve push cert=/d/all.pem+
`},
		"dotted keys":  {"host.\"https://z.example\".capabilities = [\"pull\"]\nhost.\"https://a.example\".capabilities = [\"pull\"]", "https://z.example/v2 pull\nhttps://a.example/v2 pull\n- pull resolve push\n"},
		"one table":    {"[host]\n\"https://z.example\".skip_verify = false\n\"https://a.example\" = {capabilities=[\"resolve\"]}", "https://z.example/v2 pull resolve push skip=false\nhttps://a.example/v2 resolve\n- pull resolve push\n"},
		"inline":       {`host = {"https://z.example" = {}, "https://a.example" = {}}`, "https://a.example/v2 pull resolve push\nhttps://z.example/v2 pull resolve push\n- pull resolve push\n"},
		"referrers":    {`capabilities = ["pull", "referrers"]`, "- pull\n"},
		"later fields": {`from_the_future = 1`, "- pull resolve push\n"},
	} {
		hosts, err := parseHosts("/d", []byte(tt.text))
		if got := show(hosts); err != nil || got != tt.want {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, tt.want)
		}
	}
	for text, want := range map[string]string{
		`server = "ftp://x"`:                           `server "ftp://x": it is not a URL such as https://mirror.example`,
		`server = "https://me:secret@x"`:               "it is not a URL",
		`capabilities = ["fly"]`:                       `unknown capability "fly"`,
		`ca = 7`:                                       "ca: 7 is neither a string nor a list of strings",
		`client = [["a", "b", "c"]]`:                   "is not a pair of certificate and key",
		`dial_timeout = "soon"`:                        `dial_timeout: "soon" is not a duration`,
		"[host.\"https://a\".header]\nx = {}":          `host "https://a": header x: `,
		`server = `:                                    "toml:",
		"[host.\"\"]\ncapabilities = [\"pull\"]":       "a host without a name",
		"[host.\"https://a\"]\n[host.\"https://a\"]\n": "toml:",
	} {
		if _, err := parseHosts("/d", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}

// A registry's directory is found where Docker, containerd and the person look.
func TestFindHosts(t *testing.T) {
	mine, docker, containerd := t.TempDir(), t.TempDir(), t.TempDir()
	dirs := []string{mine, docker, filepath.Join(t.TempDir(), "missing"), containerd}
	write(t, docker+"/r.example:5000/ca.crt", "x")
	write(t, docker+"/r.example:5000/client.cert", "x")
	write(t, docker+"/r.example:5000/client.key", "x")
	write(t, containerd+"/r.example:5000/hosts.toml", `server = "https://other"`)
	write(t, containerd+"/u.example_5000_/hosts.toml", `server = "https://underscored"`)
	write(t, containerd+"/u.example:5000/hosts.toml", `server = "https://colon"`)
	write(t, containerd+"/docker.io/hosts.toml", `[host."https://hub.example"]`)
	write(t, docker+"/key.example/client.key", "x")
	write(t, docker+"/cert.example/client.cert", "x")
	write(t, docker+"/bad.example/hosts.toml", `server =`)
	write(t, docker+"/a-file.example", "")
	os.Mkdir(docker+"/empty.example", 0o755)
	check := func(name, want string) {
		t.Helper()
		hosts, err := findHosts(dirs, name)
		if got := strings.ReplaceAll(show(hosts), docker, "D"); err != nil || got != want {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, want)
		}
	}
	check("r.example:5000", "- pull resolve push ca=D/r.example:5000/ca.crt cert=D/r.example:5000/client.cert+D/r.example:5000/client.key\n")
	check("u.example:5000", "https://underscored/v2 pull resolve push\n")
	check("docker.io", "https://hub.example/v2 pull resolve push\n- pull resolve push\n")
	check("empty.example", "")
	check("a-file.example", "")
	check("..", "")
	write(t, mine+"/_default/hosts.toml", `[host."https://all.example"]`)
	check("empty.example", "https://all.example/v2 pull resolve push\n- pull resolve push\n")
	check("r.example:5000", "- pull resolve push ca=D/r.example:5000/ca.crt cert=D/r.example:5000/client.cert+D/r.example:5000/client.key\n")
	for name, want := range map[string]string{
		"key.example":  "missing client certificate client.cert for key client.key",
		"cert.example": "missing key client.key for client certificate client.cert",
		"bad.example":  "cannot use " + docker + "/bad.example/hosts.toml: ",
	} {
		if _, err := findHosts(dirs, name); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestSettings(t *testing.T) {
	s := Settings{Mirrors: []string{"https://m.example", "https://m.example/", "http://n:5000/x/"}, Insecure: []string{"http://r:5000", "10.1.2.3/8", "r:5000", "[::1]:5000", "fd00::1"},
		Neighbours: []string{"n:5000", "https://n:5001", "http://10.0.0.1:5000/"}}
	if err := s.Check(); err != nil || fmt.Sprint(s.Mirrors, s.Insecure) != "[https://m.example/ http://n:5000/x/] [r:5000 10.0.0.0/8 [::1]:5000 fd00::1]" {
		t.Errorf("%v: %+v", err, s)
	}
	for want, s := range map[string]Settings{
		`invalid mirror: no scheme specified for "m.example:5000": must use either 'https://' or 'http://'`:      {Mirrors: []string{"m.example:5000"}},
		`invalid mirror: unsupported scheme "ftp" in "ftp://m.example": must use either 'https://' or 'http://'`: {Mirrors: []string{"ftp://m.example"}},
		`invalid mirror: username/password not allowed in URI "https://me:xxxxx@m.example"`:                      {Mirrors: []string{"https://me:secret@m.example"}},
		`invalid mirror: query or fragment at end of the URI "https://m.example?x=1"`:                            {Mirrors: []string{"https://m.example?x=1"}},
		`insecure registry ftp://r should not contain '://'`:                                                     {Insecure: []string{"ftp://r"}},
		`invalid index name (-r). Cannot begin or end with a hyphen`:                                             {Insecure: []string{"-r"}},
		`insecure registry r:99999 is not valid: it is neither a host, with or without a port, nor a network`:    {Insecure: []string{"r:99999"}},
		`invalid neighbour: "n" is not HOST:PORT`:                                                                {Neighbours: []string{"n"}},
		`invalid neighbour: "ftp://n:1" is neither HOST:PORT nor http(s)://HOST:PORT`:                            {Neighbours: []string{"ftp://n:1"}},
		`invalid neighbour: "https://n:1/path" is neither HOST:PORT nor http(s)://HOST:PORT`:                     {Neighbours: []string{"https://n:1/path"}},
	} {
		if err := s.Check(); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

// Whatever stands in a hosts.toml, it is understood or refused.
func FuzzHosts(f *testing.F) {
	f.Add([]byte("server = \"https://a\"\n[host.\"https://b\"]\ncapabilities = [\"pull\"]\nclient = [[\"a\", \"b\"]]\n[host.\"https://b\".header]\nx = [\"y\"]\n"))
	f.Add([]byte("host = {\"a\" = {skip_verify = true}}"))
	f.Add([]byte("[host]\n\"https://a\".ca = \"x\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		hosts, err := parseHosts("/d", data)
		if err != nil {
			return
		}
		for i, h := range hosts {
			if h.url == nil && i < len(hosts)-1 || h.url != nil && (h.url.Host == "" || h.url.User != nil) {
				t.Errorf("took %+v", h)
			}
		}
	})
}

func TestChallenges(t *testing.T) {
	for header, want := range map[string]string{
		`Bearer realm="https://auth.docker.io/token",service="registry.docker.io"`:      `[bearer map[realm:https://auth.docker.io/token service:registry.docker.io]]`,
		`bearer Realm = "https://a/t" , scope="repository:a:pull,push"`:                 `[bearer map[realm:https://a/t scope:repository:a:pull,push]]`,
		`Basic realm="a \"b\", c", charset=UTF-8`:                                       `[basic map[charset:UTF-8 realm:a "b", c]]`,
		`Negotiate, Basic realm=x, Bearer realm="https://t",error="insufficient_scope"`: `[negotiate map[] basic map[realm:x] bearer map[error:insufficient_scope realm:https://t]]`,
		`Negotiate a/b+c==, Basic realm="x"`:                                            `[negotiate map[] a map[] basic map[realm:x]]`,
		`Bearer realm=https://t/token?a=b,service=s`:                                    `[bearer map[realm:https://t/token?a=b service:s]]`,
		`Bearer realm="https://t`:                                                       `[bearer map[]]`,
		`,,, Basic`:                                                                     `[basic map[]]`,
		`=x, Basic`:                                                                     `[basic map[]]`,
		``:                                                                              `[]`,
	} {
		var flat []any
		for _, c := range parseChallenges([]string{header}) {
			flat = append(flat, c.scheme, c.params)
		}
		if got := fmt.Sprint(flat); got != want {
			t.Errorf("%s:\n got %s\nwant %s", header, got, want)
		}
	}
}

// Whatever a server offers, reading it ends, and nothing is made up.
func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://a/t",service="s"`, `Basic realm=x`)
	f.Add(`Negotiate abc==, Digest qop="auth, auth-int", nonce="\"`, `,=`)
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, c := range parseChallenges([]string{a, b}) {
			if c.scheme == "" || strings.ToLower(c.scheme) != c.scheme || len(c.params) > len(a)+len(b) {
				t.Errorf("got %+v", c)
			}
		}
	})
}
