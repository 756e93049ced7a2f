package images

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// front puts something before a registry that sees every request first, and
// answers it itself when it returns true.
func front(t *testing.T, addr string, see func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	behind, err := url.Parse("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(behind)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // of clients that die
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !see(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// The stock client shows a push as it shows Docker's, and others can pull it.
func TestPushWithTheStockClient(t *testing.T) {
	addr := enginetest.RegistryFor(t)
	f := newFixture(t, "")
	f.ok("run", "--name", "one", "busybox", "sh", "-c", "echo new >/new")
	f.ok("commit", "one", addr+"/team/made:1")
	f.ok("tag", addr+"/team/made:1", addr+"/team/made:2")
	out := f.ok("push", "-a", addr+"/team/made")
	for _, want := range []string{"The push refers to repository [" + addr + "/team/made]", ": Pushed", ": Layer already exists", "1: digest: sha256:", "2: digest: sha256:"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if quiet := f.ok("push", "-q", addr+"/team/made:1"); quiet != addr+"/team/made:1" {
		t.Errorf("push -q said %q", quiet)
	}
	id := f.ok("inspect", "-f", "{{.Id}}", addr+"/team/made:1")
	digest := f.ok("inspect", "-f", "{{index .RepoDigests 0}}", addr+"/team/made:1")
	f.ok("rm", "one")
	f.ok("rmi", addr+"/team/made:1", addr+"/team/made:2")
	f.ok("pull", digest)
	if got := f.ok("inspect", "-f", "{{.Id}}", digest); got != id {
		t.Errorf("%s came back as %s", id, got)
	}
	if got := f.ok("run", "--rm", digest, "cat", "/new"); got != "new" {
		t.Errorf("its file says %q", got)
	}
}

// A daemon that is killed in a push has sent nothing twice afterwards, and
// nothing is left of it here.
func TestKilledInPush(t *testing.T) {
	addr := enginetest.RegistryFor(t)
	f := newFixture(t, "")
	f.ok("run", "--name", "one", "busybox", "sh", "-c", "head -c 3000000 /dev/urandom >/first")
	f.ok("commit", "one", "first")
	f.ok("rm", "one")
	var kill atomic.Int32 // at which request of an upload
	var seen atomic.Int32
	killed := make(chan error, 1)
	here := front(t, addr, func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/uploads/") || r.Method == http.MethodPut {
			if seen.Add(1) == kill.Load() {
				killed <- f.Kill(9)
			}
		}
		return false
	})
	f.ok("tag", "first", here+"/killed:1")
	for round := range 6 {
		seen.Store(0)
		kill.Store(int32(round + 1))
		out, err := f.try("push", here+"/killed:1")
		if err == nil { // it was through before
			t.Logf("through after %d kills:\n%s", round, out)
			break
		}
		select {
		case err = <-killed:
		case <-time.After(30 * time.Second):
		}
		if err != nil {
			t.Fatal(err)
		}
		f.start()
		f.agree(fmt.Sprintf("after round %d", round))
		f.ok("run", "--rm", here+"/killed:1", "true")
	}
	kill.Store(0)
	f.ok("push", here+"/killed:1")
	id := f.ok("inspect", "-f", "{{.Id}}", here+"/killed:1")
	f.ok("rmi", "first", here+"/killed:1")
	f.ok("pull", here+"/killed:1")
	if got := f.ok("inspect", "-f", "{{.Id}}", here+"/killed:1"); got != id {
		t.Errorf("%s came back as %s", id, got)
	}
}
