package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

// Who compares two versions sees every file and setting that is not the same,
// and which layer it is from.
func TestDiff(t *testing.T) {
	r := newRig(t)
	base, err := r.Import(t.Context(), bytes.NewReader(tarball(t, map[string]string{"etc/": "", "etc/app": "v1", "keep": "k", "old": "123"})),
		ImportOptions{Repo: "app", Tag: "1", Changes: []string{"ENV A=1", "ENV B=1", "EXPOSE 80", "CMD x", "USER web"}})
	if err != nil {
		t.Fatal(err)
	}
	one, _ := r.Resolve(t.Context(), base.String(), nil)
	next := one.Config.Config
	id, _, err := r.Commit(t.Context(), CommitOptions{Parent: base, Container: next, Config: next, Repo: "app", Tag: "2", Author: "me",
		Changes: []string{"ENV A=2", "ENV C=", "LABEL l=1", `CMD ["y", "z"]`, "WORKDIR /w", "HEALTHCHECK CMD true"},
		Diff:    tarred(tarball(t, map[string]string{"etc/app": "v2 is longer", "new": "12345", ".wh.old": ""}))})
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.Diff(t.Context(), "app:1", "app:2")
	if err != nil {
		t.Fatal(err)
	}
	file := func(size int64, layer int) *FileNode {
		return &FileNode{Type: "file", Mode: 0o644, Size: size, Layer: layer}
	}
	want := []FileDiff{
		{Path: "/etc/app", Kind: DiffChanged, What: []string{"content"}, Old: file(2, 0), New: file(12, 1)},
		{Path: "/new", Kind: DiffAdded, New: file(5, 1)},
		{Path: "/old", Kind: DiffRemoved, Old: file(3, 0)},
	}
	if diff := cmp.Diff(want, d.Files); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(DiffSummary{Added: 1, Changed: 1, Removed: 1, BytesAdded: 15, BytesRemoved: 3}, d.Summary); diff != "" {
		t.Error(diff)
	}
	if d.From.ID != base || d.To.ID != id || !d.From.Layers[0].Shared || !d.To.Layers[0].Shared || d.To.Layers[1].Shared || d.To.Layers[1].CreatedBy != "/bin/sh -c x" {
		t.Errorf("of %+v to %+v", d.From, d.To)
	}
	data, err := json.Marshal(d.Config)
	if err != nil {
		t.Fatal(err)
	}
	const config = `[{"Field":"Author","Old":null,"New":"me"},{"Field":"Cmd","Old":["/bin/sh","-c","x"],"New":["y","z"]},` +
		`{"Field":"Env","Key":"A","Old":"1","New":"2"},{"Field":"Env","Key":"C","Old":null,"New":""},` +
		`{"Field":"Healthcheck","Old":null,"New":{"Test":["CMD-SHELL","true"]}},{"Field":"Labels","Key":"l","Old":null,"New":"1"},` +
		`{"Field":"WorkingDir","Old":null,"New":"/w"}]`
	if diff := cmp.Diff(strings.ReplaceAll(config, "},{", "},\n{"), strings.ReplaceAll(string(data), "},{", "},\n{")); diff != "" {
		t.Error(diff)
	}
	same, err := r.Diff(t.Context(), "app:2", id.String())
	if err != nil || len(same.Files)+len(same.Config) != 0 {
		t.Errorf("an image differs from itself: %+v, %v", same, err)
	}
	if _, err := r.Diff(t.Context(), "app:1", "app:3"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("an image that is not here: %v", err)
	}
	if _, err := r.Diff(t.Context(), digest.FromString("x").String(), "app:2"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("an image that is not here: %v", err)
	}
	if n := len(r.pins.blobs) + len(r.pins.layers); n != 0 {
		t.Errorf("%d things stay pinned", n)
	}
}
