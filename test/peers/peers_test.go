// Package peers has real engines, clients and registries of different makers
// talk to each other: what one pushes another pulls, byte for byte, and a login
// done with one is good for all.
package peers

import (
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
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

func TestMain(m *testing.M) { os.Exit(enginetest.Each(m, "docker", "docker-registry")) }

// fixture is one engine of a test, with the clients that speak to it.
type fixture struct {
	*testing.T
	*enginetest.Engine
}

func newFixture(t *testing.T, args ...string) *fixture {
	t.Helper()
	f := &fixture{t, enginetest.For(t, "", args...)}
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// try runs docker or gantry against the engine.
func (f *fixture) try(program string, args ...string) (string, error) {
	return enginetest.Output(f.Command(program, args...))
}

func (f *fixture) ok(program string, args ...string) string {
	f.Helper()
	out, err := f.try(program, args...)
	if err != nil {
		f.Fatal(err)
	}
	return out
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
