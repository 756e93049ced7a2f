package fault

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// startRegistry serves the image busybox as HOST/slow:1, so slowly that a pull
// is easily caught in the middle.
func (f *fixture) startRegistry() (ref string) {
	f.Helper()
	dir := filepath.Join(f.Dir, "layout")
	if err := os.Mkdir(dir, 0o755); err != nil {
		f.Fatal(err)
	}
	archive := filepath.Join(f.Dir, "busybox.tar")
	f.ok("save", "-o", archive, "busybox")
	if out, err := exec.Command("tar", "-xf", archive, "-C", dir).CombinedOutput(); err != nil {
		f.Fatalf("tar: %v: %s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	var index struct {
		Manifests []struct{ MediaType, Digest string }
	}
	if err == nil {
		err = json.Unmarshal(raw, &index)
	}
	if err != nil || len(index.Manifests) != 1 {
		f.Fatalf("index.json is %s, %v", raw, err)
	}
	m := index.Manifests[0]
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		digest := path.Base(r.URL.Path)
		if strings.Contains(r.URL.Path, "/manifests/") {
			digest = m.Digest
			w.Header().Set("Content-Type", m.MediaType)
			w.Header().Set("Docker-Content-Digest", digest)
		}
		if r.URL.Path == "/v2/" {
			return
		}
		b, err := os.ReadFile(filepath.Join(dir, "blobs", strings.Replace(digest, ":", "/", 1)))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		for len(b) > 0 && r.Method != http.MethodHead {
			n := min(len(b), 128<<10)
			if _, err := w.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
			w.(http.Flusher).Flush()
			time.Sleep(3 * time.Millisecond)
		}
	}))
	f.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://") + "/slow:1"
}
