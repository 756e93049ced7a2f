package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func listenOne(t *testing.T, address string, o ListenOptions) net.Listener {
	t.Helper()
	list, err := Listen(t.Context(), address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { list[0].Close() })
	return list[0]
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "g.sock")
	l := listenOne(t, "unix://"+path, ListenOptions{Group: "1234"})
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Fatalf("mode %v %v", info.Mode(), err)
	}
	if _, err := Listen(t.Context(), "unix://"+path, ListenOptions{}); err == nil || !strings.Contains(err.Error(), "another daemon answers there") {
		t.Errorf("a second daemon: %v", err)
	}
	// A daemon that was killed leaves its socket behind.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	listenOne(t, path, ListenOptions{})

	plain := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(t.Context(), "unix://"+plain, ListenOptions{}); err == nil {
		t.Error("a file was replaced by a socket")
	}
	if _, err := Listen(t.Context(), "unix://"+path+"2", ListenOptions{Group: "no such group", NeedGroup: true}); err == nil {
		t.Error("a group that does not exist was accepted")
	}
	listenOne(t, "unix://"+path+"3", ListenOptions{Group: "no such group"})
}

func TestBadAddresses(t *testing.T) {
	for _, address := range []string{"", "gantry.sock", "unix://relative", "npipe:////./pipe/x", "tcp://127.0.0.1:0/path", "fd://"} {
		if _, err := Listen(t.Context(), address, ListenOptions{}); err == nil {
			t.Errorf("%q was accepted", address)
		}
	}
}

// certificates writes an authority, and a certificate and key it signed.
func certificates(t *testing.T) (dir string, pool *x509.CertPool) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey, certKey := key(), key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	certDER, err := x509.CreateCertificate(rand.Reader, cert, ca, &certKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(certKey)
	if err != nil {
		t.Fatal(err)
	}
	write("ca.pem", "CERTIFICATE", caDER)
	write("cert.pem", "CERTIFICATE", certDER)
	write("key.pem", "EC PRIVATE KEY", keyDER)
	pool = x509.NewCertPool()
	authority, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(authority)
	return dir, pool
}

func TestListenTLS(t *testing.T) {
	dir, pool := certificates(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	l := listenOne(t, "tcp://127.0.0.1:0", ListenOptions{TLS: true, VerifyClients: true, CAFile: at("ca.pem"), CertFile: at("cert.pem"), KeyFile: at("key.pem")})
	f := newFixture()
	go http.Serve(l, f.Server)
	pair, err := tls.LoadX509KeyPair(at("cert.pem"), at("key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	get := func(config *tls.Config) (*http.Response, error) {
		client := http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
		return client.Get("https://" + l.Addr().String() + "/_ping")
	}
	resp, err := get(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(data) != "OK" || resp.ProtoMajor != 1 {
		t.Errorf("got %q over %s", data, resp.Proto)
	}
	if resp, err := get(&tls.Config{RootCAs: pool}); err == nil {
		resp.Body.Close()
		t.Error("a client without a certificate was answered")
	}
	for _, o := range []ListenOptions{
		{TLS: true, CertFile: at("none.pem"), KeyFile: at("key.pem")},
		{TLS: true, VerifyClients: true, CAFile: at("key.pem"), CertFile: at("cert.pem"), KeyFile: at("key.pem")},
	} {
		if _, err := Listen(t.Context(), "tcp://127.0.0.1:0", o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

const activationEnv = "GANTRY_TEST_ACTIVATION"

// TestActivated runs itself as the service that systemd starts.
func TestActivated(t *testing.T) {
	if os.Getenv(activationEnv) != "" {
		serveActivated(t)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	// The shell's exec keeps the process, so that LISTEN_PID can be right.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestActivated$'`, self)
	cmd.Env = append(os.Environ(), activationEnv+"=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=api", "NOTIFY_SOCKET="+notify.LocalAddr().String())
	cmd.ExtraFiles = []*os.File{file}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 64)
	notify.SetReadDeadline(time.Now().Add(20 * time.Second))
	n, err := notify.Read(buffer)
	if err != nil || string(buffer[:n]) != "READY=1" {
		t.Errorf("notified %q %v", buffer[:n], err)
	}
	resp, err := http.Get("http://" + l.Addr().String() + "/_ping")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func serveActivated(t *testing.T) {
	if _, err := Listen(t.Context(), "fd://other", ListenOptions{}); err == nil {
		t.Error("a socket of another name was taken")
	}
	list, err := Listen(t.Context(), "fd://api", ListenOptions{})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if err := Notify("READY=1"); err != nil {
		t.Fatal(err)
	}
	conn, err := list[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
