package image

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/filter"
)

func TestRemoveInUse(t *testing.T) {
	r := newRig(t)
	var users, running []string
	var layers []digest.Digest
	r.Manager.opts.InUse = func(digest.Digest) []string { return users }
	r.Manager.opts.Running = func(digest.Digest) []string { return running }
	r.Manager.opts.LayersInUse = func() []digest.Digest { return layers }
	img := makeImage(t, host, map[string]string{"a": "1"})
	archive := layoutOf(t, indexOf(named(img.descriptor(), "x:1")), img.blobs())
	r.load(archive)
	short := img.id().Encoded()[:12]
	users = []string{strings.Repeat("c", 64)}
	layers = r.byID[img.id()].diffIDs()
	want := func(err error, text string) {
		t.Helper()
		if !errors.Is(err, errdefs.ErrConflict) || err.Error() != text {
			t.Errorf("got %v", err)
		}
	}
	_, err := r.Remove(t.Context(), "x:1", RemoveOptions{})
	want(err, `conflict: unable to remove repository reference "x:1" (must force) - container cccccccccccc is using its referenced image `+short)
	_, err = r.Remove(t.Context(), short, RemoveOptions{})
	want(err, "conflict: unable to delete "+short+" (must be forced) - image is being used by stopped container cccccccccccc")
	running = users
	_, err = r.Remove(t.Context(), short, RemoveOptions{Force: true})
	want(err, "conflict: unable to delete "+short+" (cannot be forced) - image is being used by running container cccccccccccc")
	// By name and by force the name goes, and the image stays with its container.
	done, err := r.Remove(t.Context(), "x:1", RemoveOptions{Force: true})
	if err != nil || len(done) != 1 || done[0].Untagged != "x:1" {
		t.Errorf("%+v, %v", done, err)
	}
	running = nil
	if _, err = r.Remove(t.Context(), short, RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if blobs, trees, _ := r.left(); blobs != 0 || trees != 1 {
		t.Errorf("%d blobs and %d layers are left; the container needs one layer", blobs, trees)
	}
	// The tree without an image is used again, with its blob.
	r.load(archive)
	if got, err := r.Inspect(t.Context(), "x:1", InspectOptions{}); err != nil || got.Size != 1 {
		t.Errorf("loaded again: %+v, %v", got, err)
	}
	if _, err := r.Remove(t.Context(), "nope", RemoveOptions{}); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != "No such image: nope:latest" {
		t.Errorf("got %v", err)
	}
}

// Images that share a layer: it stays until the last of them goes.
func TestRemoveShared(t *testing.T) {
	r := newRig(t)
	base := map[string]string{"base": "12345"}
	a := makeImage(t, host, base, map[string]string{"a": "1"})
	b := makeImage(t, host, base, map[string]string{"b": "22"})
	r.load(layoutOf(t, indexOf(named(a.descriptor(), "a:1"), named(b.descriptor(), "b:1")), a.blobs(), b.blobs()))
	list, err := r.List(t.Context(), ListOptions{SharedSize: true})
	if err != nil || len(list) != 2 || list[0].SharedSize != 5 || list[0].Size+list[1].Size != 13 {
		t.Errorf("list %+v, %v", list, err)
	}
	done, err := r.Remove(t.Context(), "a:1", RemoveOptions{})
	if err != nil || len(done) != 3 {
		t.Errorf("removed %+v, %v", done, err)
	}
	if _, layers, _ := r.left(); layers != 2 {
		t.Errorf("%d layers are left", layers)
	}
	report, err := r.Prune(t.Context(), filter.Args{"dangling": {"false"}})
	if err != nil || report.SpaceReclaimed < 7 { // and the blocks around them
		t.Errorf("pruned %+v, %v", report, err)
	}
	r.wantNothing()
}

func TestResolveErrors(t *testing.T) {
	r := newRig(t)
	var ids []string
	for i := range 40 {
		img := makeImage(t, host, map[string]string{"a": fmt.Sprint(i)})
		r.load(layoutOf(t, indexOf(named(img.descriptor(), fmt.Sprintf("x:%d", i))), img.blobs()))
		ids = append(ids, img.id().Encoded())
	}
	slices.Sort(ids)
	prefix := ""
	for i := 1; i < len(ids); i++ {
		if ids[i][0] == ids[i-1][0] {
			prefix = ids[i][:1]
		}
	}
	for ref, text := range map[string]string{
		"nope":                  "No such image: nope:latest",
		"a:b:c":                 "invalid reference format",
		"Bad":                   "invalid reference format: repository name (library/Bad) must be lowercase",
		prefix:                  "is ambiguous",
		strings.Repeat("0", 64): "No such image: sha256:000000",
	} {
		if _, err := r.Resolve(t.Context(), ref, nil); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range []string{ids[0], "sha256:" + ids[0], ids[0][:12], "sha256:" + ids[0][:12], "docker.io/library/x:3", "x:3"} {
		if _, err := r.Resolve(t.Context(), ref, nil); err != nil {
			t.Errorf("%s: %v", ref, err)
		}
	}
}

func TestListFilters(t *testing.T) {
	r := newRig(t)
	a := makeImage(t, host, map[string]string{"a": "1"})
	r.load(layoutOf(t, indexOf(named(a.descriptor(), "team/a:1")), a.blobs()))
	if _, err := r.Import(t.Context(), bytes.NewReader(tarball(t, map[string]string{"b": "1"})), ImportOptions{Changes: []string{"LABEL color=blue"}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		filters filter.Args
		want    int
	}{
		{nil, 2},
		{filter.Args{"dangling": {"true"}}, 1},
		{filter.Args{"dangling": {"false"}}, 1},
		{filter.Args{"label": {"color"}}, 2},
		{filter.Args{"label": {"color=blue"}}, 1},
		{filter.Args{"reference": {"team/*"}}, 1},
		{filter.Args{"reference": {"team/a:2"}}, 0},
		{filter.Args{"since": {"team/a:1"}}, 1},
		{filter.Args{"before": {"team/a:1"}}, 0},
		{filter.Args{"until": {"2024-06-01"}}, 1},
		{filter.Args{"until": {"24h"}}, 1},
	} {
		list, err := r.List(t.Context(), ListOptions{Filters: c.filters})
		if err != nil || len(list) != c.want {
			t.Errorf("%v: %d images, %v", c.filters, len(list), err)
		}
	}
	if _, err := r.List(t.Context(), ListOptions{Filters: filter.Args{"nope": {"1"}}}); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("unknown filter: %v", err)
	}
}

// Loads, tags and removals at once: whatever wins, nothing that an image names
// is missing and nothing else is left.
func TestConcurrent(t *testing.T) {
	r := newRig(t)
	base := map[string]string{"base": "x"}
	var archives [][]byte
	for i := range 3 {
		img := makeImage(t, host, base, map[string]string{"n": fmt.Sprint(i)})
		archives = append(archives, layoutOf(t, indexOf(named(img.descriptor(), fmt.Sprintf("c:%d", i))), img.blobs()))
	}
	var wg sync.WaitGroup
	for i, archive := range archives {
		wg.Go(func() {
			for range 8 {
				if err := r.Load(t.Context(), bytes.NewReader(archive), LoadOptions{}); err != nil {
					t.Errorf("load: %v", err)
				}
			}
		})
		wg.Go(func() {
			for range 30 {
				_, err := r.Remove(t.Context(), fmt.Sprintf("c:%d", i), RemoveOptions{Force: true})
				if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
					t.Errorf("remove: %v", err)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	wg.Wait()
	for _, archive := range archives {
		r.load(archive)
	}
	for id, e := range r.byID {
		if !r.complete(id, &e.record) {
			t.Errorf("image %s is not whole", id)
		}
		for _, l := range e.Layers {
			if _, err := r.opts.Content.Stat(l.Blob.Digest); err != nil {
				t.Error(err)
			}
		}
	}
	r.restart()
	if _, err := r.Prune(t.Context(), filter.Args{"dangling": {"false"}}); err != nil {
		t.Fatal(err)
	}
	r.wantNothing()
}

// What a killed engine left is gone after the next start.
func TestCollect(t *testing.T) {
	r := newRig(t)
	img := makeImage(t, host, map[string]string{"a": "1"})
	r.load(layoutOf(t, indexOf(named(img.descriptor(), "x:1")), img.blobs()))
	stray := tarball(t, map[string]string{"stray": "1"})
	if _, _, err := r.opts.Content.Put(t.Context(), bytes.NewReader(stray), "", -1); err != nil {
		t.Fatal(err)
	}
	if _, err := r.opts.Snapshots.Unpack(t.Context(), digest.FromBytes(stray), bytes.NewReader(stray)); err != nil {
		t.Fatal(err)
	}
	if err := r.refs.Put("docker.io/library/gone:1", &refRecord{ID: digest.FromString("gone")}); err != nil {
		t.Fatal(err)
	}
	r.restart()
	if blobs, layers, _ := r.left(); blobs != 3 || layers != 1 {
		t.Errorf("%d blobs and %d layers", blobs, layers)
	}
	if refs, _ := r.refs.All(); len(refs) != 1 {
		t.Errorf("references: %v", refs)
	}
}
