package registryd

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gantry-containers/gantry/internal/registry/catalog"
	"github.com/gantry-containers/gantry/internal/registry/depot/bucket/s3test"
)

// What a person would lose: what was pushed to a registry on a bucket has to be
// there for the next process, on another disk.
func TestRegistryOnS3(t *testing.T) {
	store := s3test.New(5 << 20)
	h := httptest.NewServer(store)
	t.Cleanup(h.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	args := []string{"--s3-endpoint", strings.TrimPrefix(h.URL, "http://"), "--s3-insecure", "--s3-bucket", "depot", "--s3-prefix", "registry/", "--s3-region", "us-east-1"}
	r := start(t, args...)
	other, err := Parse(append([]string{"--root", t.TempDir(), "--listen", "127.0.0.1:0"}, args...), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := Start(t.Context(), other); err == nil {
		s.close()
		t.Error("a registry on another machine opens the same bucket")
	} else if !strings.Contains(err.Error(), "in use by a registry on") {
		t.Error(err)
	}
	dgst := r.push("app", "v1", "", describe("On a bucket"))
	until(r, "/api/v1/search?q=app", "", func(f catalog.Found) bool { return f.Total == 1 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, args...)
	_, header, _ := r.do("GET", "/v2/app/manifests/v1", "", nil)
	if got := header.Get("Docker-Content-Digest"); got != dgst.String() {
		t.Errorf("the manifest is %s after a restart, want %s", got, dgst)
	}
	store.Mu.Lock()
	objects := len(store.Objects)
	store.Mu.Unlock()
	if objects == 0 {
		t.Error("nothing is in the bucket")
	}
}
