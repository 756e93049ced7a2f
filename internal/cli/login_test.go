package cli

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// credentialHelper makes the test binary docker-credential-NAME: it keeps logins
// in a file of its own, and fails as NAME says.
func credentialHelper(name string, args []string) int {
	fail := func(text string) int {
		fmt.Println(text)
		return 1
	}
	if name == "broken" {
		return fail("the vault is closed")
	}
	path := os.Getenv("GANTRY_TEST_VAULT")
	vault := map[string][2]string{}
	if text, err := os.ReadFile(path); err == nil {
		json.Unmarshal(text, &vault)
	}
	in, _ := io.ReadAll(os.Stdin)
	key := strings.TrimSpace(string(in))
	switch args[0] {
	case "store":
		var s struct{ ServerURL, Username, Secret string }
		if json.Unmarshal(in, &s) != nil || s.ServerURL == "" {
			return fail("no credentials server URL")
		}
		vault[s.ServerURL] = [2]string{s.Username, s.Secret}
	case "get":
		e, ok := vault[key]
		if !ok {
			return fail("credentials not found in native keychain")
		}
		json.NewEncoder(os.Stdout).Encode(map[string]string{"ServerURL": key, "Username": e[0], "Secret": e[1]})
		return 0
	case "erase":
		if _, ok := vault[key]; !ok {
			return fail("credentials not found in native keychain")
		}
		delete(vault, key)
	default:
		return fail("what is " + args[0])
	}
	text, _ := json.Marshal(vault)
	os.WriteFile(path, text, 0o600)
	return 0
}

// wallet is a person's configuration directory, with helpers in PATH.
type wallet struct {
	t    *testing.T
	dir  string
	path string
}

func newWallet(t *testing.T, config string) *wallet {
	t.Helper()
	w := &wallet{t: t, dir: t.TempDir(), path: t.TempDir()}
	if config != "" {
		if err := os.WriteFile(filepath.Join(w.dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"vault", "broken"} {
		if err := os.Symlink(exe, filepath.Join(w.path, "docker-credential-"+name)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *wallet) run(program string, f *fake, args ...string) result {
	w.t.Helper()
	cmd := command(w.t, program, f.Host, args...)
	cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+w.dir, "PATH="+w.path+":"+os.Getenv("PATH"), "GANTRY_TEST_VAULT="+filepath.Join(w.path, "vault.json"))
	cmd.Stdin = strings.NewReader("from stdin\n")
	r := finishRun(w.t, cmd)
	for _, text := range []*string{&r.Out, &r.Err} {
		*text = strings.NewReplacer(w.dir, "DIR", "'docker ", "'gantry ", "gantry: ", "").Replace(ansi.ReplaceAllString(*text, ""))
	}
	return r
}

// kept is what the files hold, as JSON reads it.
func (w *wallet) kept() map[string]any {
	out := map[string]any{}
	for _, name := range []string{filepath.Join(w.dir, "config.json"), filepath.Join(w.path, "vault.json")} {
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			w.t.Errorf("%s: %v", name, err)
		}
		out[filepath.Base(name)] = v
	}
	return out
}

func (f *fake) login(t *testing.T, path string) string {
	t.Helper()
	for _, c := range f.take() {
		if c.Path != path {
			continue
		}
		text, err := base64.URLEncoding.DecodeString(c.auth)
		if err != nil {
			t.Errorf("X-Registry-Auth of %s: %v", path, err)
		}
		return string(text)
	}
	t.Errorf("nobody asked for %s", path)
	return ""
}

const otherKeys = `{
	"HttpHeaders": {"X-Meta": "a<b>&c"},
	"auths": {
		"other:1": {"auth": "eDp5", "email": "a@b"}
	},
	"credHelpers": {"vault.example": "vault", "broken.example": "broken"},
	"someone": {"else's": [1e3, 9007199254740993, null]}
}`

// TestSameLogins does the same with both clients, each in a wallet of its own:
// what they say and what they leave in the files must be the same.
func TestSameLogins(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the stock docker client is not installed")
	}
	store := `{"credsStore": "vault"}`
	for _, test := range []struct{ name, config, steps string }{
		{"no file", "", "login -u a -p b localhost:5000;logout localhost:5000;logout localhost:5000"},
		{"hub", "", "login -u a -p b;login;logout"},
		{"stdin", "", "login -u a --password-stdin https://localhost:5000/v2/;login localhost:5000;login -u c -p d localhost:5000"},
		{"others' keys", otherKeys, "login -u a -p b localhost:5000;logout other:1"},
		{"nothing kept", "", "login localhost:5000;logout localhost:5000;logout"},
		{"identity token", "", "login -u a -p b token.example;login token.example;logout token.example"},
		{"refused", "", "login -u a -p wrong localhost:5000"},
		{"credsStore", store, "login -u a -p b localhost:5000;login localhost:5000;login -u a -p b;logout localhost:5000;logout localhost:5000"},
		{"credsStore, token", store, "login -u a -p b token.example;logout token.example"},
		{"credHelpers", otherKeys, "login -u a -p b vault.example;login vault.example;logout vault.example"},
		{"helper that fails", otherKeys, "login -u a -p b broken.example;login broken.example;logout broken.example"},
		{"no such helper", `{"credsStore": "nosuch"}`, "login -u a -p b localhost:5000;logout localhost:5000"},
		{"refused, kept", `{"auths":{"localhost:5000":{"auth":"YTp3cm9uZw=="}}}`, "login localhost:5000"},
		{"older key", `{"auths":{"https://localhost:5000/v1/":{"auth":"YTpi"}}}`, "login localhost:5000;logout localhost:5000;logout https://localhost:5000/v1/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.answer("POST /auth", answer{body: `{"Status":"Login Succeeded"}`, by: func(c call) answer {
				auth := fmt.Sprint(c.Body)
				switch {
				case strings.Contains(auth, "wrong"):
					return answer{status: 401, body: `{"message":"unauthorized: incorrect username or password"}`}
				case strings.Contains(auth, "token.example"):
					return answer{status: 200, body: `{"Status":"Login Succeeded","IdentityToken":"tok"}`}
				}
				return answer{status: 200, body: `{"Status":"Login Succeeded"}`}
			}})
			theirs, ours := newWallet(t, test.config), newWallet(t, test.config)
			for _, step := range strings.Split(test.steps, ";") {
				args := strings.Fields(step)
				want := theirs.run(docker, f, args...)
				wantCalls := normalCalls(f.take())
				got := ours.run("gantry", f, args...)
				if diff := cmp.Diff(wantCalls, normalCalls(f.take())); diff != "" {
					t.Errorf("%s: requests (-docker +gantry):\n%s", step, diff)
				}
				// Of the warnings that differ in words only, and of an error said
				// for several names in any order, the first line is compared.
				if strings.Contains(want.Err, "could not erase") {
					want.Err, got.Err = message(want.Err), message(got.Err)
				}
				want.Err = strings.ReplaceAll(want.Err, "Error response from daemon: ", "")
				// The stock client counts a name twice and then says nothing.
				if strings.HasPrefix(step, "logout") && strings.Contains(got.Err, "executable file not found") {
					got.Err = ""
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s (-docker +gantry):\n%s", step, diff)
				}
				if diff := cmp.Diff(theirs.kept(), ours.kept()); diff != "" && !strings.Contains(test.config, "someone") {
					t.Errorf("%s: what is kept (-docker +gantry):\n%s", step, diff)
				}
			}
			if strings.Contains(test.config, "someone") {
				text, _ := os.ReadFile(filepath.Join(ours.dir, "config.json"))
				for _, want := range []string{`"X-Meta": "a<b>&c"`, "1e3", "9007199254740993"} {
					if !bytes.Contains(text, []byte(want)) {
						t.Errorf("%s is gone from the file:\n%s", want, text)
					}
				}
			}
		})
	}
}

// A login done with one client is a login for the other.
func TestLoginsOfTheOther(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the stock docker client is not installed")
	}
	for _, config := range []string{"", `{"credsStore":"vault"}`, `{"credHelpers":{"localhost:5000":"vault"}}`} {
		for _, pair := range [][2]string{{"gantry", docker}, {docker, "gantry"}} {
			t.Run(filepath.Base(pair[0])+config, func(t *testing.T) {
				t.Parallel()
				f, w := newFake(t), newWallet(t, config)
				for _, args := range [][]string{{"login", "-u", "a", "-p", "geheim", "localhost:5000"}, {"login", "-u", "hub", "-p", "geheim"}} {
					if r := w.run(pair[0], f, args...); r.Code != 0 {
						t.Fatal(r)
					}
				}
				f.take()
				for args, path := range map[string]string{
					"pull localhost:5000/x": "/images/create", "push localhost:5000/x": "/images/localhost:5000/x/push", "search localhost:5000/x": "/images/search",
				} {
					w.run(pair[1], f, strings.Fields(args)...)
					if got, want := f.login(t, path), `{"username":"a","password":"geheim","serveraddress":"localhost:5000"}`; got != want {
						t.Errorf("%s sends %s, want %s", args, got, want)
					}
				}
				w.run(pair[1], f, "pull", "busybox")
				if got := f.login(t, "/images/create"); !strings.Contains(got, `"username":"hub","password":"geheim","serveraddress":"https://index.docker.io/v1/"`) {
					t.Errorf("Docker Hub gets %s", got)
				}
				w.run(pair[1], f, "logout", "localhost:5000")
				f.take()
				w.run(pair[0], f, "push", "localhost:5000/x")
				if got := f.login(t, "/images/localhost:5000/x/push"); strings.Contains(got, "geheim") {
					t.Errorf("after the logout: %s", got)
				}
			})
		}
	}
}

// With --use-api-socket a container finds the engine and the logins, from the
// file and from the helpers, whichever client created it.
func TestLoginsInContainer(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the stock docker client is not installed")
	}
	f := newFake(t)
	logins := func(program string, env ...string) (string, []string) {
		w := newWallet(t, `{"auths":{"a:1":{"auth":"YTpi"},"t":{"auth":"dTo=","identitytoken":"tok"}},"credHelpers":{"vault.example":"vault"},"proxies":{}}`)
		w.run("gantry", f, "login", "-u", "v", "-p", "s", "vault.example")
		f.take()
		cmd := command(t, program, f.Host, "create", "--use-api-socket", "busybox")
		cmd.Env = append(append(cmd.Env, "DOCKER_CONFIG="+w.dir, "PATH="+w.path+":"+os.Getenv("PATH"), "GANTRY_TEST_VAULT="+filepath.Join(w.path, "vault.json")), env...)
		if r := finishRun(t, cmd); r.Code != 0 {
			t.Fatal(r)
		}
		calls := f.take()
		for _, c := range calls {
			if c.Method != "PUT" {
				continue
			}
			tr := tar.NewReader(strings.NewReader(c.raw))
			h, err := tr.Next()
			if err != nil || h.Name != "/run/secrets/docker/config.json" && h.Name != "run/secrets/docker/config.json" || h.Mode != 0o600 {
				t.Fatal(h, err)
			}
			text, _ := io.ReadAll(tr)
			for i := range calls {
				if calls[i].Method == "PUT" {
					calls[i].Body = nil
				}
			}
			return string(text), normalCalls(calls)
		}
		t.Fatalf("%s copies nothing: %v", program, calls)
		return "", nil
	}
	for _, env := range []string{"A=B", `DOCKER_AUTH_CONFIG={"auths":{"e":{"auth":"YTpi"}}}`} {
		want, wantCalls := logins(docker, env)
		got, gotCalls := logins("gantry", env)
		if diff := cmp.Diff(inOrder(want), inOrder(got)); diff != "" {
			t.Errorf("logins (-docker +gantry):\n%s", diff)
		}
		if diff := cmp.Diff(wantCalls, gotCalls); diff != "" {
			t.Errorf("requests (-docker +gantry):\n%s", diff)
		}
	}
}
