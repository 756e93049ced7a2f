package conformance

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gantry-containers/gantry/internal/registry/depot/bucket/s3test"
)

func onDirectory(t *testing.T, gantryd string) subject {
	return subject{name: "gantry", ours: true, address: serve(t, gantryd, t.TempDir(), nil)}
}

func onBucket(t *testing.T, gantryd string) subject {
	h := httptest.NewServer(s3test.New(5 << 20))
	t.Cleanup(h.Close)
	address := serve(t, gantryd, t.TempDir(), []string{"AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret"},
		"--s3-endpoint", strings.TrimPrefix(h.URL, "http://"), "--s3-insecure", "--s3-bucket", "depot")
	return subject{name: "gantry on S3", ours: true, address: address}
}

// withAccounts is how one would serve to others: TLS, accounts and tokens.
func withAccounts(t *testing.T, gantryd string) subject {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("ann:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	address := serve(t, gantryd, root, nil, "--tls-self-signed", "--htpasswd", users, "--tokens")
	return subject{name: "gantry, TLS and tokens", ours: true, address: address, env: []string{
		"OCI_TLS=enabled", "SSL_CERT_FILE=" + filepath.Join(root, "tls", "ca.crt"), "OCI_USERNAME=ann", "OCI_PASSWORD=secret",
	}, skips: map[string]string{
		"/blob-mount": "the program asks for tokens for one repository at a time, and a blob is mounted only from one the token lets its bearer read; it is uploaded then",
	}}
}

// serve runs our registry until the test ends.
func serve(t *testing.T, gantryd, root string, env []string, args ...string) (address string) {
	t.Helper()
	args = append([]string{"registry", "serve", "--listen", "127.0.0.1:0", "--root", root}, args...)
	cmd := exec.Command(gantryd, args...)
	cmd.Env = append(os.Environ(), env...)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(log)
	said := &bytes.Buffer{}
	served := regexp.MustCompile(`the registry is served.* addresses="?\[([^] ]+)`)
	for address == "" && lines.Scan() {
		fmt.Fprintln(said, lines.Text())
		if m := served.FindStringSubmatch(lines.Text()); m != nil {
			address = m[1]
		}
	}
	ended := make(chan error, 1)
	go func() {
		for lines.Scan() {
			fmt.Fprintln(said, lines.Text())
		}
		ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended: Wait says so
		if err := <-ended; err != nil {
			t.Errorf("the registry did not end well: %v", err)
		}
		if t.Failed() {
			t.Logf("gantryd %s said:\n%s", strings.Join(args, " "), said)
		}
	})
	if address == "" {
		t.Fatalf("the registry does not serve:\n%s", said)
	}
	return address
}

// dockerRegistry is Debian's docker-registry, when it is installed.
func dockerRegistry(t *testing.T) (subject, bool) {
	t.Helper()
	path, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Log("docker-registry is not installed: there is nothing to compare with")
		return subject{}, false
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: %s\n  secret: s\n", dir, address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // by being killed
	})
	for deadline := time.Now().Add(time.Minute); ; {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("docker-registry does not answer: %v", err)
		}
		time.Sleep(10 * time.Millisecond) // it says nowhere that it is ready
	}
	return subject{name: version(path), address: address}, true
}

// version is the program's name and version, as "docker-registry 2.8.2".
func version(path string) string {
	out, err := exec.Command(path, "--version").Output()
	words := strings.Fields(string(out))
	if err != nil || len(words) == 0 {
		return "docker-registry"
	}
	return "docker-registry " + words[len(words)-1]
}
