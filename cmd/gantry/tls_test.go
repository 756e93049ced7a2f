package main

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The gantry without TLS becomes the one beside it where it is to speak it, and
// says so when there is none. Neither trusts an engine it does not know.
func TestTLS(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("built with TLS on other systems")
	}
	dir := t.TempDir()
	build := func(name string, args ...string) string {
		path := filepath.Join(dir, name)
		cmd := exec.Command("go", append(append([]string{"build", "-o", path}, args...), ".")...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return path
	}
	lean := build("gantry", "-tags", "lean")
	engine := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"Version":"99.9 over TLS","ApiVersion":"1.51"}`))
	}))
	defer engine.Close()
	host := "tcp://" + strings.TrimPrefix(engine.URL, "https://")
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: engine.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(env []string, args ...string) string {
		cmd := exec.Command(lean, append([]string{"-H", host}, args...)...)
		cmd.Env = append(os.Environ(), append(env, "HOME="+dir, "DOCKER_CONFIG="+dir)...)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	version := []string{"version", "--format", "{{.Server.Version}}"}
	trusting := append([]string{"--tlsverify", "--tlscacert", ca}, version...)
	if out := run(nil, trusting...); !strings.Contains(out, "this gantry does not speak TLS, and gantry-tls, which does, is not beside it in "+dir) {
		t.Errorf("without gantry-tls: %s", out)
	}
	build("gantry-tls")
	for name, out := range map[string]string{
		"flags":       run(nil, trusting...),
		"environment": run([]string{"DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=" + dir}, version...),
		"unverified":  run(nil, append([]string{"--tls"}, version...)...),
	} {
		if out != "99.9 over TLS\n" {
			t.Errorf("%s: %s", name, out)
		}
	}
	if err := os.Remove(ca); err != nil {
		t.Fatal(err)
	}
	if out := run(nil, append([]string{"--tlsverify"}, version...)...); !strings.Contains(out, "certificate") {
		t.Errorf("an engine nobody vouches for: %s", out)
	}
	if out := run(nil, version...); strings.Contains(out, "99.9") {
		t.Errorf("without TLS: %s", out)
	}
}
