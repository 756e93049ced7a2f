package registryd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A webhook of the configuration hears of a push, also when the address of it
// changes with a reload.
func TestWebhooksOfTheConfiguration(t *testing.T) {
	heard := make(chan string, 10)
	hook := func(name string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			var e struct {
				Events []struct {
					Target  struct{ Repository, Tag, URL string }
					Actor   struct{ Name string }
					Request struct{ Host string }
				}
			}
			if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
				t.Error(err)
				return
			}
			x := e.Events[0]
			heard <- fmt.Sprintf("%s: %s:%s by %s at %s %v", name, x.Target.Repository, x.Target.Tag, x.Actor.Name, x.Request.Host, strings.Contains(x.Target.URL, "/manifests/sha256:"))
		}))
		t.Cleanup(s.Close)
		return s
	}
	first, second := hook("first"), hook("second")
	text := func(u string) string { return "[[webhook]]\nname = \"ci\"\nurl = \"" + u + "\"\ntimeout = \"30s\"\n" }
	config := write(t, "c.toml", text(first.URL))
	r := start(t, "--config", config, "--htpasswd", accounts(t, "ann:a"))
	next := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Errorf("heard %q, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("nobody heard %q", want)
		}
	}
	r.push("team/app", "v1", "ann:a", nil)
	next("first: team/app:v1 by ann at " + r.addr + " true")
	if err := os.WriteFile(config, []byte(text(second.URL)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.reload(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.push("team/app", "v2", "ann:a", nil)
	next("second: team/app:v2 by ann at " + r.addr + " true")
}

// What a person would lose: the password a receiver of events uses for the address
// in them, to who pushes and says that the registry is called like his own.
func TestEventsNameTheConfiguredHost(t *testing.T) {
	heard := make(chan string, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		heard <- string(body)
	}))
	t.Cleanup(hook.Close)
	config := write(t, "c.toml", "host = \"registry.example:5000\"\n[[webhook]]\nname = \"ci\"\nurl = \""+hook.URL+"\"\nevents = [\"push\"]\nblobs = true\n")
	r := start(t, "--config", config, "--htpasswd", accounts(t, "ann:a"), "--tokens")
	data := []byte("x")
	req, err := http.NewRequest("POST", "http://"+r.addr+"/v2/r/blobs/uploads/?digest="+digest.FromBytes(data).String(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("WWW-Authenticate"); !strings.Contains(got, `realm="http://registry.example:5000/token"`) {
		t.Errorf("tokens are said to be had at %s", got)
	}
	req.SetBasicAuth("ann", "a")
	req.Body = io.NopCloser(bytes.NewReader(data))
	if resp, err = http.DefaultClient.Do(req); err != nil || resp.StatusCode != 201 {
		t.Fatalf("%v %v", resp, err)
	}
	resp.Body.Close()
	select {
	case got := <-heard:
		if strings.Contains(got, "evil") || !strings.Contains(got, "http://registry.example:5000/v2/r/blobs/") {
			t.Errorf("heard %s", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was heard")
	}
}

// A mirror of the configuration, with credentials for the other registry.
func TestMirrorsOfTheConfiguration(t *testing.T) {
	origin := start(t, "--htpasswd", accounts(t, "ann:a"), "--tokens")
	dgst := origin.push("team/app", "v1", "ann:a", nil)
	password := write(t, "password", "a\n")
	config := write(t, "c.toml", fmt.Sprintf("[[mirror]]\nprefix = \"other\"\nregistry = %q\nusername = \"ann\"\npassword-file = %q\nttl = \"1h\"\n", origin.addr, password))
	r := start(t, "--config", config)
	if got := r.want(200, "GET", "/v2/other/team/app/manifests/v1", "", nil); digest.FromBytes(got) != dgst {
		t.Error("other bytes")
	}
	body := r.want(403, "POST", "/v2/other/team/app/blobs/uploads/", "", nil)
	if !strings.Contains(string(body), "is a mirror of "+origin.addr) {
		t.Errorf("%s", body)
	}
	r.push("own/app", "v1", "", nil)
	if err := origin.stop(); err != nil {
		t.Fatal(err)
	}
	r.want(200, "GET", "/v2/other/team/app/manifests/v1", "", nil)
	if text := string(r.want(200, "GET", "/metrics", "", nil)); !strings.Contains(text, `gantry_registry_mirror_total{what="fetch"} 1`) {
		t.Error("the figures do not know of the mirror")
	}
}

// Guessing is answered with 429 and when to come back.
func TestGuessing(t *testing.T) {
	r := start(t, "--htpasswd", accounts(t, "ann:a"))
	for range 100 {
		status, header, _ := r.do("GET", "/v2/", "ann:wrong", nil)
		if status == http.StatusTooManyRequests {
			if header.Get("Retry-After") == "" {
				t.Error("it does not say when to come back")
			}
			return
		}
	}
	t.Error("a hundred guesses are free")
}

// Addresses of every kind, and certificates of clients.
func TestListening(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "registry.sock")
	r := start(t, "--listen", "unix://"+socket, "--metrics-listen", "127.0.0.1:0", "--htpasswd", accounts(t, "ann:a"))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	resp, err := client.Get("http://registry/v2/")
	if err != nil || resp.StatusCode != 401 {
		t.Fatalf("%+v %v", resp, err)
	}
	resp.Body.Close()
	if status, _, body := r.do("GET", "http://"+r.private[0].Addr().String()+"/metrics", "", nil); status != 200 || !strings.Contains(string(body), "gantry_registry_") {
		t.Errorf("%d %s", status, body)
	}
}

func TestCertificatesOfClients(t *testing.T) {
	maker := authority{dir: t.TempDir(), log: start(t).log}
	if err := maker.renew([]string{"client.example"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	r := start(t, "--root", root, "--tls-self-signed", "--tls-client-ca", maker.path("ca.crt"))
	ca, err := os.ReadFile(filepath.Join(root, "tls", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	get := func(certs ...tls.Certificate) error {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}}}
		resp, err := client.Get("https://" + r.addr + "/v2/")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		return err
	}
	if err := get(); err == nil {
		t.Error("a client without a certificate is served")
	}
	// A server's certificate is not a client's: it is of the authority, and
	// not for this.
	pair, err := tls.LoadX509KeyPair(maker.path("server.crt"), maker.path("server.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := get(pair); err == nil {
		t.Error("a certificate for servers is taken for a client's")
	}
	own, err := clientCertificate(maker)
	if err != nil {
		t.Fatal(err)
	}
	if err := get(own); err != nil {
		t.Error(err)
	}
}

// clientCertificate is one for clients, of the authority.
func clientCertificate(a authority) (tls.Certificate, error) {
	ca, key, err := a.read("ca")
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if _, _, err := a.make("client", template, ca, key); err != nil {
		return tls.Certificate{}, err
	}
	return tls.LoadX509KeyPair(a.path("client.crt"), a.path("client.key"))
}

// A second registry on one root would take the first one's storage apart.
func TestOneRegistryForARoot(t *testing.T) {
	r := start(t)
	c, err := Parse([]string{"--root", r.root, "--listen", "127.0.0.1:0"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Start(context.Background(), c)
	if err == nil {
		s.close()
		t.Fatal("a second one starts")
	}
	if !strings.Contains(err.Error(), "in use by another process") {
		t.Error(err)
	}
	r.push("x", "v1", "", nil)
}
