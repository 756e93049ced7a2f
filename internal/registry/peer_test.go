package registry

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// peer is Debian's docker-registry, running.
type peer struct {
	addr string
	root string
	log  *bytes.Buffer
}

// startPeer runs docker-registry with the configuration given besides storage
// and address, in YAML.
func startPeer(t testing.TB, extra string) *peer {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Skip("docker-registry is not installed here")
	}
	dir := t.TempDir()
	p := &peer{addr: freeAddr(t), root: filepath.Join(dir, "data"), log: &bytes.Buffer{}}
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: %s\n  secret: s\n%s",
		p.root, p.addr, extra)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", config)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-exited
		if t.Failed() {
			t.Logf("docker-registry said:\n%s", p.log)
		}
	})
	scheme := "http"
	if strings.Contains(extra, "tls:") {
		scheme = "https"
	}
	insecure := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer insecure.CloseIdleConnections()
	for deadline := time.Now().Add(time.Minute); ; {
		req, _ := http.NewRequest(http.MethodGet, scheme+"://"+p.addr+"/", nil)
		resp, err := insecure.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
			return p
		}
		if strings.Contains(err.Error(), "certificate") {
			return p // it answers, and wants a certificate of us
		}
		select {
		case <-exited:
			t.Fatalf("docker-registry ended:\n%s", p.log)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("docker-registry does not answer: %v", err)
		}
	}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
