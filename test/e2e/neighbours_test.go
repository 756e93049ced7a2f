package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/gantry-containers/gantry/internal/enginetest"
	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// What a person would lose: the start of a machine while the registry is down,
// although the machine beside it has the image. One engine serves its images
// and the other, which is told of it, pulls from it.
func TestNeighboursPullFromOneAnother(t *testing.T) {
	ctx := context.Background()
	registry, address, name, want := serving(t, ctx)
	taker := startEngine(t, ctx, "--neighbour", address)
	registry.Close() // nobody but the neighbour has it now
	must(t, taker, "pull", name)
	if got := identity(t, taker, name); got != want {
		t.Errorf("the neighbour's image is %s, want %s", got, want)
	}
	if out := must(t, taker, "run", "--rm", "--network", "none", name, "echo", "ran"); out != "ran" {
		t.Errorf("it says %q", out)
	}
	readOnly(t, address, name)
}

// serving is an engine that serves, at an address, an image that it pulled by
// its name from a registry.
func serving(t *testing.T, ctx context.Context) (registry *httptest.Server, address, name, id string) {
	t.Helper()
	depot, err := directory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	registry = httptest.NewServer(serve.New(serve.Options{Depot: depot}))
	t.Cleanup(func() { registry.Close(); depot.Close() })
	name = strings.TrimPrefix(registry.URL, "http://") + "/team/app:v1"
	address = freeAddress(t)
	giver := startEngine(t, ctx, "--serve-images", address)
	if err := giver.ImportBusybox(); err != nil {
		t.Fatal(err)
	}
	must(t, giver, "tag", "busybox", name)
	must(t, giver, "push", name)
	must(t, giver, "rmi", name)
	must(t, giver, "pull", name)
	return registry, address, name, identity(t, giver, name)
}

func identity(t *testing.T, e *enginetest.Engine, name string) string {
	t.Helper()
	return must(t, e, "image", "inspect", "-f", "{{.Id}} {{index .RepoDigests 0}}", name)
}

// What a person would lose: every pull, because one machine of the many has a
// broken disk or a bad owner. A neighbour that sends other bytes than were asked
// for is passed over and named, and the next one or the registry is asked.
func TestLyingNeighbourIsPassedOver(t *testing.T) {
	ctx := context.Background()
	_, address, name, want := serving(t, ctx)
	liar := httptest.NewServer(lies(t, address))
	defer liar.Close()
	lying := strings.TrimPrefix(liar.URL, "http://")
	for _, args := range [][]string{{"--neighbour", lying}, {"--neighbour", lying, "--neighbour", address}} {
		taker := startEngine(t, ctx, args...)
		out := must(t, taker, "pull", name)
		if !strings.Contains(out, lying+" sent something else than blob sha256:") {
			t.Errorf("the pull said:\n%s", out)
		}
		if got := identity(t, taker, name); got != want {
			t.Errorf("pulled %s, want %s", got, want)
		}
		if out := must(t, taker, "run", "--rm", "--network", "none", name, "echo", "ran"); out != "ran" {
			t.Errorf("it says %q", out)
		}
	}
}

// lies is what another engine serves, with the last byte of every blob changed.
func lies(t *testing.T, address string) http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
	proxy.ModifyResponse = func(resp *http.Response) error {
		if !strings.Contains(resp.Request.URL.Path, "/blobs/") {
			return nil
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || len(body) == 0 {
			return err
		}
		body[len(body)-1]++
		resp.Body = io.NopCloser(bytes.NewReader(body))
		return nil
	}
	proxy.ErrorLog = log.New(t.Output(), "", 0)
	return proxy
}

// readOnly checks what a neighbour's door lets do.
func readOnly(t *testing.T, address, name string) {
	t.Helper()
	host, rest, _ := strings.Cut(name, "/")
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/v2/", 200}, {"GET", "/v2/team/app/manifests/v1?ns=" + url.QueryEscape(host), 200},
		{"GET", "/v2/team/app/tags/list?ns=" + url.QueryEscape(host), 200},
		{"GET", "/v2/team/app/manifests/v1", 404}, {"GET", "/v2/team/app/manifests/v1?ns=..%2F..", 404},
		{"GET", "/v2/team/app/blobs/sha256:" + strings.Repeat("0", 64), 404},
		{"POST", "/v2/team/app/blobs/uploads/", 405}, {"DELETE", "/v2/team/app/manifests/v1", 405}, {"PUT", "/v2/team/app/manifests/v1", 405},
		{"GET", "/containers/json", 404},
	} {
		req, err := http.NewRequest(c.method, fmt.Sprintf("http://%s%s", address, c.path), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s %s of %s: %d %s, want %d", c.method, c.path, rest, resp.StatusCode, body, c.status)
		}
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func startEngine(t *testing.T, ctx context.Context, args ...string) *enginetest.Engine {
	t.Helper()
	e := enginetest.For(t, "", args...)
	if err := e.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return e
}

func must(t *testing.T, e *enginetest.Engine, args ...string) string {
	t.Helper()
	out, err := e.Run(args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, e.Log())
	}
	return out
}
