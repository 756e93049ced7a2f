package fault

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// slowRegistry serves one image, so slowly that a pull is easily caught in the
// middle, and counts what of it was sent.
type slowRegistry struct {
	dir               string // an OCI layout
	addr              string
	mediaType, digest string // of its manifest

	mu     sync.Mutex // guards what follows
	sent   map[string]int64
	ranges int // requests for a part of a blob
}

// startRegistry serves the image busybox.
func (f *fixture) startRegistry() (ref string) {
	f.Helper()
	archive := filepath.Join(f.Dir, "busybox.tar")
	f.ok("save", "-o", archive, "busybox")
	return f.serve(archive).ref()
}

// serve serves what is in an archive.
func (f *fixture) serve(archive string) *slowRegistry {
	f.Helper()
	s := &slowRegistry{dir: filepath.Join(f.Dir, "layout"), sent: map[string]int64{}}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		f.Fatal(err)
	}
	if out, err := exec.Command("tar", "-xf", archive, "-C", s.dir).CombinedOutput(); err != nil {
		f.Fatalf("tar: %v: %s", err, out)
	}
	s.mediaType, s.digest = f.layout(s.dir)
	server := httptest.NewServer(s)
	f.Cleanup(server.Close)
	s.addr = strings.TrimPrefix(server.URL, "http://")
	return s
}

func (s *slowRegistry) ref() string { return s.addr + "/slow:1" }

func (s *slowRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	digest := path.Base(r.URL.Path)
	if strings.Contains(r.URL.Path, "/manifests/") {
		digest = s.digest
		w.Header().Set("Content-Type", s.mediaType)
		w.Header().Set("Docker-Content-Digest", digest)
	}
	if r.URL.Path == "/v2/" {
		return
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "blobs", strings.Replace(digest, ":", "/", 1)))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	if r.Header.Get("Range") != "" {
		s.ranges++
	}
	s.mu.Unlock()
	http.ServeContent(&slowWriter{w, s, digest}, r, "", time.Time{}, bytes.NewReader(b))
}

// total is how many bytes were sent of all blobs.
func (s *slowRegistry) total() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.sent {
		n += m
	}
	return n
}

type slowWriter struct {
	http.ResponseWriter
	registry *slowRegistry
	digest   string
}

func (w *slowWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 {
		m, err := w.ResponseWriter.Write(b[:min(len(b), 128<<10)])
		n += m
		w.registry.mu.Lock()
		w.registry.sent[w.digest] += int64(m)
		w.registry.mu.Unlock()
		if err != nil {
			return n, err
		}
		b = b[m:]
		w.ResponseWriter.(http.Flusher).Flush()
		time.Sleep(3 * time.Millisecond)
	}
	return n, nil
}
