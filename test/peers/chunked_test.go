package peers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// grow puts what archives have trouble with into the tree of the images.
func (r *room) grow(t *testing.T) {
	t.Helper()
	at := func(name string) string { return filepath.Join(r.tree, name) }
	err := errors.Join(
		os.MkdirAll(at("many/deep/er"), 0o755),
		os.WriteFile(at("empty"), nil, 0o600),
		os.Link(at("etc/motd"), at("many/deep/linked")),
		os.Symlink("../etc/motd", at("many/pointer")),
		os.WriteFile(at("sparse"), []byte("begins"), 0o644),
		os.Truncate(at("sparse"), 64<<20),
		os.WriteFile(at("large"), []byte(strings.Repeat(r.text, 300)), 0o4755),
	)
	for i := range 300 {
		err = errors.Join(err, os.WriteFile(at(fmt.Sprint("many/deep/er/", i)), []byte(strings.Repeat(fmt.Sprint(i), i)), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// An image that Podman and Buildah pushed as zstd:chunked, each file a frame of
// its own and a table of contents behind them, is pulled as any other, and gone
// on with as it is.
func TestZstdChunkedOfPeers(t *testing.T) {
	addr := enginetest.RegistryFor(t)
	r := newRoom(newFixture(t))
	r.grow(t)
	for _, pusher := range []string{"buildah", "podman"} {
		t.Run(pusher, func(t *testing.T) {
			// Another layer for each, or the second finds the first one's there.
			if err := os.WriteFile(filepath.Join(r.tree, "many/who"), []byte(pusher), 0o600); err != nil {
				t.Fatal(err)
			}
			name, back := addr+"/from/"+pusher+":1", addr+"/by/"+pusher+":1"
			r.built(pusher, "--compression-format", "zstd:chunked")(t, name)
			dgst, id := r.manifest(t, name)
			if manifest := read(t, filepath.Join(r.dir, "manifest")); !strings.Contains(manifest, "zstd-chunked.manifest-checksum") {
				t.Fatalf("what %s pushed has no table of contents: %s", pusher, manifest)
			}
			r.do(t, "gantry", "pull", "-q", name)
			if got := strings.TrimPrefix(r.do(t, "gantry", "image", "inspect", "-f", "{{.Id}}", name), "sha256:"); got != id {
				t.Errorf("the image is %s and became %s", id, got)
			}
			container := r.do(t, "gantry", "create", name)
			out := filepath.Join(t.TempDir(), "out")
			r.do(t, "gantry", "cp", "-a", container+":/.", out)
			r.do(t, "gantry", "rm", container)
			for _, part := range []string{"many", "etc/motd", "empty", "sparse", "large"} {
				r.run(t, "diff", "-r", "--no-dereference", filepath.Join(r.tree, part), filepath.Join(out, part))
			}
			one, err1 := os.Stat(filepath.Join(out, "etc/motd"))
			other, err2 := os.Stat(filepath.Join(out, "many/deep/linked"))
			if errors.Join(err1, err2) != nil || !os.SameFile(one, other) {
				t.Errorf("a hard link is none any more: %v", errors.Join(err1, err2))
			}
			r.do(t, "gantry", "tag", name, back)
			r.do(t, "gantry", "push", "-q", back)
			if got, _ := r.manifest(t, back); got != dgst {
				t.Errorf("%s came back as %s", dgst, got)
			}
			r.do(t, "gantry", "rmi", name, back)
		})
	}
}
