package peers

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// ask makes a request of the engine's API.
func (f *fixture) ask(method, path, body string, header ...string) (int, string) {
	f.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", f.Socket)
	}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(f.Context(), method, "http://d"+path, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// image makes a small image in the engine.
func (f *fixture) image(name string) {
	f.Helper()
	file := filepath.Join(f.Dir, "a-file")
	if err := os.WriteFile(file, []byte(name), 0o644); err != nil {
		f.Fatal(err)
	}
	archive := file + ".tar"
	tar := f.Command("tar", "-C", f.Dir, "-cf", archive, "a-file")
	if _, err := enginetest.Output(tar); err != nil {
		f.Fatal(err)
	}
	f.ok("docker", "import", archive, name)
}

// What a person would lose: `docker login`, and with it every private registry.
func TestLoginOfDocker(t *testing.T) {
	addr := enginetest.RegistryFor(t, withAccount(t))
	f := newFixture(t)
	f.image(addr + "/private:1")
	if out, err := f.try("docker", "push", addr+"/private:1"); err == nil || !strings.Contains(err.Error(), "no basic auth credentials") {
		t.Errorf("pushed without a login: %s, %v", out, err)
	}
	if _, err := f.try("docker", "login", "-u", "me", "-p", "wrong", addr); err == nil || !strings.Contains(err.Error(), "401 Unauthorized") {
		t.Errorf("logged in with a wrong password: %v", err)
	}
	if got := f.ok("docker", "login", "-u", "me", "-p", "secret", addr); !strings.Contains(got, "Login Succeeded") {
		t.Errorf("login said %q", got)
	}
	f.ok("docker", "push", addr+"/private:1")
	f.ok("docker", "rmi", addr+"/private:1")
	f.ok("docker", "pull", addr+"/private:1")
	// Again, with what the client remembers.
	if got := f.ok("docker", "login", addr); !strings.Contains(got, "Login Succeeded") {
		t.Errorf("the second login said %q", got)
	}
	f.ok("docker", "logout", addr)
	if _, err := f.try("docker", "pull", addr+"/private:1"); err == nil {
		t.Error("pulled after the logout")
	}

	status, body := f.ask("POST", "/auth", fmt.Sprintf(`{"username":"me","password":"wrong","serveraddress":%q}`, addr))
	if status != 401 || !strings.Contains(body, "login attempt to http://"+addr+"/v2/ failed with status: 401 Unauthorized") {
		t.Errorf("POST /auth: %d %s", status, body)
	}
	status, body = f.ask("POST", "/v1.41/auth", fmt.Sprintf(`{"username":"me","password":"secret","serveraddress":"http://%s/v1/"}`, addr))
	if status != 200 || body != `{"IdentityToken":"","Status":"Login Succeeded"}`+"\n" {
		t.Errorf("POST /auth: %d %s", status, body)
	}
	if status, body := f.ask("POST", "/auth", `{"serveraddress":"127.0.0.1:1"}`); status != 503 || !strings.Contains(body, "cannot reach registry 127.0.0.1:1: ") {
		t.Errorf("nobody there: %d %s", status, body)
	}
}

// Tools that look before they pull ask the engine what a name stands for.
func TestDistribution(t *testing.T) {
	addr := enginetest.RegistryFor(t, withAccount(t))
	f := newFixture(t)
	f.image(addr + "/private:1")
	f.ok("docker", "login", "-u", "me", "-p", "secret", addr)
	pushed := f.ok("docker", "push", "-q", addr+"/private:1")
	_, cred, _ := strings.Cut(f.ok("cat", filepath.Join(f.Dir, "docker-config", "config.json")), `"auth": "`)
	cred, _, _ = strings.Cut(cred, `"`)
	auth := base64.URLEncoding.EncodeToString([]byte(`{"auth":"` + cred + `"}`))
	want := f.ok("docker", "image", "inspect", "-f", "{{index .RepoDigests 0}} {{.Os}}/{{.Architecture}}", pushed)

	path := "/distribution/" + addr + "/private:1/json"
	status, body := f.ask("GET", path, "", "X-Registry-Auth", auth)
	var got struct {
		Descriptor struct{ Digest, MediaType string }
		Platforms  []struct{ OS, Architecture string }
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || len(got.Platforms) != 1 ||
		want != addr+"/private@"+got.Descriptor.Digest+" "+got.Platforms[0].OS+"/"+got.Platforms[0].Architecture {
		t.Errorf("%d %s, %v; want %s", status, body, err, want)
	}
	if status, body := f.ask("GET", strings.Replace(path, ":1/json", "@"+got.Descriptor.Digest+"/json", 1), "", "X-Registry-Auth", auth); status != 200 {
		t.Errorf("by digest: %d %s", status, body)
	}
	for path, want := range map[string]int{path: 401, "/distribution/" + addr + "/A/json": 400, "/distribution/" + strings.Repeat("0", 64) + "/json": 400, "/v1.29" + path: 404} {
		if status, body := f.ask("GET", path, ""); status != want {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := f.ask("GET", "/distribution/"+addr+"/private:2/json", "", "X-Registry-Auth", auth); status != 404 || !strings.Contains(body, "manifest unknown") {
		t.Errorf("a tag that is not there: %d %s", status, body)
	}
	if got := f.ok("docker", "manifest", "inspect", "--insecure", addr+"/private:1"); !strings.Contains(got, `"layers"`) {
		t.Errorf("docker manifest inspect: %s", got)
	}
}

// searchable is a registry that can be searched, in the protocol Docker speaks.
func searchable(t *testing.T) (addr string, asked func() string) {
	var last string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/search" {
			http.NotFound(w, r)
			return
		}
		last = r.URL.RawQuery + " " + r.Header.Get("Authorization")
		fmt.Fprint(w, `{"query":"web","num_results":2,"results":[
			{"name":"web","description":"the shop","star_count":7,"is_official":true,"is_automated":true},
			{"name":"team/web","description":"","star_count":1,"is_official":false}]}`)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), func() string { return last }
}

func TestSearchOfDocker(t *testing.T) {
	addr, asked := searchable(t)
	f := newFixture(t)
	if got := f.ok("docker", "search", "--format", "{{.Name}} {{.StarCount}} {{.IsOfficial}} {{.Description}}", addr+"/web"); got != "web 7 [OK] the shop\nteam/web 1  " {
		t.Errorf("found %q", got)
	}
	if asked() != "n=25&q=web " {
		t.Errorf("the registry was asked %q", asked())
	}
	if got := f.ok("docker", "search", "-f", "stars=2", "--limit", "3", "--format", "{{.Name}}", addr+"/a/b"); got != "web" || asked() != "n=3&q=a%2Fb " {
		t.Errorf("found %q with %q", got, asked())
	}
	if got := f.ok("docker", "search", "-f", "is-official=false", "--format", "{{.Name}}", addr+"/web"); got != "team/web" {
		t.Errorf("found %q", got)
	}
	for args, want := range map[string]string{
		"--limit 101":            "limit 101 is outside the range of [1, 100]",
		"-f color=red":           "invalid filter 'color'",
		"-f stars=many":          "invalid filter 'stars=many'",
		"-f is-official=perhaps": "invalid filter 'is-official=perhaps'",
	} {
		if _, err := f.try("docker", append(append([]string{"search"}, strings.Fields(args)...), addr+"/web")...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	auth := base64.URLEncoding.EncodeToString([]byte(`{"username":"me","password":"secret"}`))
	if status, body := f.ask("GET", "/images/search?term="+addr+"/web", "", "X-Registry-Auth", auth); status != 200 || !strings.HasSuffix(asked(), "Basic bWU6c2VjcmV0") {
		t.Errorf("%d %s, asked %q", status, body, asked())
	}
	// One that cannot be searched says so.
	if _, err := f.try("docker", "search", enginetest.RegistryFor(t)+"/web"); err == nil || !strings.Contains(err.Error(), "cannot be searched") {
		t.Errorf("got %v", err)
	}
}

// A private authority and client certificates are found where Docker and
// containerd keep them, at once when they are put there.
func TestPrivateAuthority(t *testing.T) {
	ca := newAuthority(t)
	ca.issue("server")
	ca.issue("client")
	addr := enginetest.RegistryFor(t, fmt.Sprintf("  tls:\n    certificate: %s\n    key: %s\n    clientcas:\n      - %s\n", ca.file("server.cert"), ca.file("server.key"), ca.file("ca.crt")))
	hosts := t.TempDir()
	f := newFixture(t, "--registry-hosts-dir", hosts)
	f.image(addr + "/private:1")
	// In TLS 1.3 a client learns of it when it has sent its request already, or
	// finds the connection closed while it sends.
	if _, err := f.try("docker", "push", addr+"/private:1"); err == nil ||
		!strings.Contains(err.Error(), "certificate") && !strings.Contains(err.Error(), "cannot reach registry "+addr) {
		t.Errorf("pushed without a certificate: %v", err)
	}
	other := newAuthority(t)
	other.copy(filepath.Join(hosts, addr), "ca.crt")
	ca.copy(filepath.Join(hosts, addr), "client.cert", "client.key")
	if _, err := f.try("docker", "push", addr+"/private:1"); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("pushed to a stranger: %v", err)
	}
	ca.copy(filepath.Join(hosts, addr), "ca.crt")
	f.ok("docker", "push", addr+"/private:1")

	os.Rename(filepath.Join(hosts, addr), filepath.Join(hosts, "files"))
	ca.copy(filepath.Join(hosts, addr), "ca.crt")
	toml := fmt.Sprintf("server = \"https://%s\"\nca = \"../files/ca.crt\"\nclient = [[\"../files/client.cert\", \"../files/client.key\"]]\n", addr)
	if err := os.WriteFile(filepath.Join(hosts, addr, "hosts.toml"), []byte(toml), 0o600); err != nil {
		t.Fatal(err)
	}
	f.ok("docker", "rmi", addr+"/private:1")
	f.ok("docker", "pull", addr+"/private:1")
	if err := os.WriteFile(filepath.Join(hosts, addr, "hosts.toml"), []byte("server ="), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.try("docker", "pull", addr+"/private:1"); err == nil || !strings.Contains(err.Error(), "cannot use "+filepath.Join(hosts, addr, "hosts.toml")) {
		t.Errorf("got %v", err)
	}
}

// SIGHUP brings mirrors, neighbours and insecure registries in, and info shows
// them; a mistake changes nothing.
func TestReload(t *testing.T) {
	config := filepath.Join(t.TempDir(), "daemon.json")
	settings := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	settings(`{"registry-mirrors":["https://m1.example"],"insecure-registries":["10.1.0.0/16","r.example:5000"]}`)
	f := newFixture(t, "--config-file", config)
	shown := func() string {
		return f.ok("docker", "info", "-f", `{{.RegistryConfig.Mirrors}} {{json .RegistryConfig.InsecureRegistryCIDRs}} {{range .RegistryConfig.IndexConfigs}}{{.Name}}={{.Secure}} {{end}}`)
	}
	if got, want := shown(), `[https://m1.example/] ["::1/128","127.0.0.0/8","10.1.0.0/16"] docker.io=true r.example:5000=false `; got != want {
		t.Errorf("info shows %s\nwant %s", got, want)
	}
	until := func(text string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !strings.Contains(f.Log(), text); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the daemon does not log %q", text)
			}
		}
	}
	settings(`{"registry-mirrors":["http://127.0.0.1:1","https://m2.example/sub/"],"insecure-registries":[],"neighbours":["n.example:5000"]}`)
	syscall.Kill(f.Pid(), syscall.SIGHUP)
	until("the configuration was read again")
	if got, want := shown(), `[http://127.0.0.1:1/ https://m2.example/sub/] ["::1/128","127.0.0.0/8"] docker.io=true `; got != want {
		t.Errorf("info shows %s\nwant %s", got, want)
	}
	if status, body := f.ask("GET", "/info", ""); status != 200 || !strings.Contains(body, `"Neighbours":["n.example:5000"]`) {
		t.Errorf("info shows no neighbours: %d %s", status, body)
	}
	settings(`{"registry-mirrors":["m3.example"]}`)
	syscall.Kill(f.Pid(), syscall.SIGHUP)
	until("the configuration stays as it was")
	if got := shown(); !strings.HasPrefix(got, "[http://127.0.0.1:1/ https://m2.example/sub/]") {
		t.Errorf("info shows %s", got)
	}
}
