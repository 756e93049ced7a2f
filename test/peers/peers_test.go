// Package peers has real engines, clients and registries of different makers
// talk to each other: what one pushes another pulls, byte for byte, and a login
// done with one is good for all.
package peers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Println("SKIP: an engine needs root")
		return 0
	}
	for _, program := range []string{"docker", "docker-registry"} {
		if _, err := exec.LookPath(program); err != nil {
			fmt.Println("SKIP: " + program + " is not installed")
			return 0
		}
	}
	dir, err := os.MkdirTemp("", "gantry-peers-bin")
	if err == nil {
		defer os.RemoveAll(dir)
		var bin string
		if bin, err = enginetest.Programs(dir); err == nil {
			os.Setenv("GANTRY_BIN", bin)
		}
	}
	if err != nil {
		fmt.Println("cannot build the engine:", err)
		return 1
	}
	return m.Run()
}

// fixture is one engine of a test, with the clients that speak to it.
type fixture struct {
	*testing.T
	*enginetest.Engine
}

func newFixture(t *testing.T, args ...string) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("", "gantry-peers")
	if err != nil {
		t.Fatal(err)
	}
	e, err := enginetest.New(dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t, e}
	t.Cleanup(f.close)
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) close() {
	if f.Failed() {
		f.Logf("gantryd logged:\n%s", f.Engine.Log())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := f.Close(ctx); err != nil {
		f.Errorf("the engine did not leave the host clean: %v", err)
	}
}

// try runs docker or gantry against the engine.
func (f *fixture) try(program string, args ...string) (string, error) {
	return output(f.Command(program, args...))
}

func (f *fixture) ok(program string, args ...string) string {
	f.Helper()
	out, err := f.try(program, args...)
	if err != nil {
		f.Fatal(err)
	}
	return out
}

// output runs a command and returns what it prints; the error holds the rest.
func output(cmd *exec.Cmd) (string, error) {
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s%s", strings.Join(cmd.Args, " "), err, errOut.String(), out.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// registry runs Debian's docker-registry on an address of its own, with more
// configuration for its http section and beside it, in YAML.
func registry(t *testing.T, http, beside string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: %s\n  secret: s\n%s%s",
		dir, addr, http, beside)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log := &bytes.Buffer{}
	cmd := exec.Command("docker-registry", "serve", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("docker-registry said:\n%s", log)
		}
	})
	for deadline := time.Now().Add(time.Minute); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return addr
		}
		select {
		case <-ended:
			t.Fatalf("docker-registry ended:\n%s", log)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("docker-registry does not answer: %v", err)
		}
	}
}

// withAccount is the configuration of a registry that knows me with "secret".
func withAccount(t *testing.T) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte("me:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("auth:\n  htpasswd:\n    realm: test\n    path: %s\n", file)
}

// authority is a private certificate authority, with its files in a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, dir: t.TempDir(), key: key}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peers"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a.save("ca.crt", "CERTIFICATE", der)
	return a
}

func (a *authority) save(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// issue makes NAME.cert and NAME.key, for servers on this machine and clients.
func (a *authority) issue(name string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.save(name+".cert", "CERTIFICATE", der)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.save(name+".key", "PRIVATE KEY", private)
}

// copy puts files of the authority into a directory.
func (a *authority) copy(dir string, names ...string) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		a.t.Fatal(err)
	}
	for _, name := range names {
		data, err := os.ReadFile(a.file(name))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
}
