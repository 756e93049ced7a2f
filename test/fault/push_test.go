package fault

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// slowReceiver is before a registry, and counts the bytes of uploads, which it
// takes so slowly that a push is easily caught in the middle.
type slowReceiver struct {
	http.Handler
	received atomic.Int64
	slow     atomic.Bool
}

func (s *slowReceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.Contains(r.URL.Path, "/blobs/uploads/") {
		r.Body = &slowBody{r.Body, s}
	}
	s.Handler.ServeHTTP(w, r)
}

type slowBody struct {
	io.ReadCloser
	at *slowReceiver
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), 128<<10)])
	b.at.received.Add(int64(n))
	if b.at.slow.Load() {
		time.Sleep(3 * time.Millisecond)
	}
	return n, err
}

// What a killed daemon had sent of a blob is not sent again, at a registry that
// keeps it; at Debian's docker-registry, which throws away what a request that
// was cut brought, the push begins anew and comes to its end.
func TestPushResumesAfterKill(t *testing.T) {
	const size = 48 << 20
	f := newFixture(t)
	depot, err := directory.Open(filepath.Join(f.Dir, "ours"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { depot.Close() })
	registries := map[string]http.Handler{"ours": serve.New(serve.Options{Depot: depot})}
	if addr, stop, err := enginetest.DockerRegistry(filepath.Join(f.Dir, "debian")); err != nil {
		t.Logf("without docker-registry: %v", err)
	} else {
		t.Cleanup(stop)
		registries["debian"] = behind(t, addr)
	}
	for name, registry := range registries {
		f.ok("run", "--name", "maker", "busybox", "dd", "if=/dev/urandom", "of=/data", "bs=1M", fmt.Sprintf("count=%d", size>>20))
		f.ok("commit", "maker", "large:1")
		f.ok("rm", "maker")
		sums := f.sums("large:1")
		front := &slowReceiver{Handler: registry}
		server := httptest.NewServer(front)
		t.Cleanup(server.Close)
		ref := strings.TrimPrefix(server.URL, "http://") + "/killed:1"
		f.ok("tag", "large:1", ref)
		f.killInPush(front, ref, size/2)
		sent := front.received.Load()
		out := f.ok("push", ref)
		again := front.received.Load() - size
		t.Logf("%s: %d bytes were received, then %d", name, sent, front.received.Load()-sent)
		if name == "ours" && (again > size/8 || !strings.Contains(out, "since an earlier push")) {
			t.Errorf("%d bytes were sent twice; the push said:\n%s", again, out)
		}
		f.agree("after the push")
		id := f.ok("inspect", "-f", "{{.Id}}", ref)
		f.gone(ref, "large:1")
		f.ok("pull", "-q", ref)
		if got := f.ok("inspect", "-f", "{{.Id}}", ref); got != id {
			t.Errorf("%s came back as %s", id, got)
		}
		f.same(ref, sums)
		f.gone(ref)
	}
	f.clean()
}

// killInPush kills the daemon when the registry has received so many bytes, and
// starts another.
func (f *fixture) killInPush(front *slowReceiver, ref string, after int64) {
	f.Helper()
	front.slow.Store(true)
	ended := make(chan error, 1)
	go func() {
		_, err := f.try("push", "-q", ref)
		ended <- err
	}()
	f.eventually(func() string {
		if n := front.received.Load(); n < after {
			return fmt.Sprintf("the registry has received %d bytes", n)
		}
		return ""
	})
	if err := f.Kill(syscall.SIGKILL); err != nil {
		f.Fatal(err)
	}
	if err := <-ended; err == nil {
		f.Fatal("a push without a daemon succeeded")
	}
	front.slow.Store(false)
	f.start()
	f.agree("after the kill")
}

// behind hands requests on to a registry.
func behind(t *testing.T, addr string) http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: addr})
	proxy.ErrorLog = log.New(t.Output(), "", 0) // of clients that die
	return proxy
}
