package image

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/filter"
)

var host = HostPlatform()

func TestLoadLayout(t *testing.T) {
	r := newRig(t)
	img := makeImage(t, host, map[string]string{"etc/": "", "etc/a": "1"}, map[string]string{"etc/b": "22"})
	out := r.load(layoutOf(t, indexOf(named(img.descriptor(), "web:1")), img.blobs()))
	if !strings.Contains(out, "Loaded image: web:1") {
		t.Errorf("load said:\n%s", out)
	}
	got, err := r.Resolve(context.Background(), "web:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != img.id() || got.Manifest != img.digest() || len(got.Layers) != 2 || got.Config.Config.Cmd[0] != "/bin/sh" {
		t.Errorf("resolved %+v", got)
	}
	info, err := r.Inspect(context.Background(), "web:1", InspectOptions{})
	if err != nil || info.Size != 3 || !slices.Equal(info.RepoTags, []string{"web:1"}) || info.Metadata.LastTagTime.IsZero() {
		t.Errorf("inspect: %+v, %v", info, err)
	}
	if info.Descriptor == nil || info.Descriptor.Digest != img.digest() || info.GraphDriver.Name != "vfs" || info.GraphDriver.Data == nil {
		t.Errorf("inspect: descriptor %+v, driver %+v", info.Descriptor, info.GraphDriver)
	}
	r.restart()
	if _, err := r.Resolve(context.Background(), "web:1", nil); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	done, err := r.Remove(context.Background(), "web:1", RemoveOptions{})
	if err != nil || len(done) != 4 || done[0].Untagged != "web:1" || done[1].Deleted != img.id().String() {
		t.Errorf("remove: %+v, %v", done, err)
	}
	r.wantNothing()
}

func TestLoadPlatforms(t *testing.T) {
	arm := ocispec.Platform{OS: "linux", Architecture: "riscv64"}
	a := makeImage(t, host, map[string]string{"a": "host"})
	b := makeImage(t, arm, map[string]string{"a": "arm"})
	da, db := a.descriptor(), b.descriptor()
	da.Platform, db.Platform = &host, &arm
	inner := mustJSON(t, indexOf(db, da))
	idx := &testImage{manifest: inner, mediaTyp: ocispec.MediaTypeImageIndex}
	archive := layoutOf(t, indexOf(named(idx.descriptor(), "multi:1")), a.blobs(), b.blobs(), map[string]string{blobName(idx.digest()): string(inner)})
	for _, c := range []struct {
		name string
		opts LoadOptions
		want *testImage
	}{
		{"the host's when nothing is asked", LoadOptions{}, a},
		{"the one asked for", LoadOptions{Platforms: []ocispec.Platform{arm}}, b},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			if err := r.Load(t.Context(), bytes.NewReader(archive), c.opts); err != nil {
				t.Fatal(err)
			}
			got, err := r.Resolve(t.Context(), "multi:1", nil)
			if err != nil || got.ID != c.want.id() {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	t.Run("one that is not there", func(t *testing.T) {
		r := newRig(t)
		err := r.Load(t.Context(), bytes.NewReader(archive), LoadOptions{Platforms: []ocispec.Platform{{OS: "linux", Architecture: "s390x"}}})
		if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "no matching manifest for linux/s390x") {
			t.Errorf("got %v", err)
		}
		r.wantNothing()
	})
	t.Run("another one when there is no other", func(t *testing.T) {
		r := newRig(t)
		r.load(layoutOf(t, indexOf(named(b.descriptor(), "other:1")), b.blobs()))
		if _, err := r.Resolve(t.Context(), "other:1", &host); !errors.Is(err, errdefs.ErrNotFound) ||
			!strings.Contains(err.Error(), "does not match the specified platform") {
			t.Errorf("resolved for the host: %v", err)
		}
	})
}

// Archives as docker save, skopeo and umoci make them.
func TestLoadPeers(t *testing.T) {
	need(t, "skopeo")
	dir := t.TempDir()
	img := makeImage(t, host, map[string]string{"bin/": "", "bin/x": "x"}, map[string]string{"bin/y": "y"})
	layout := filepath.Join(dir, "in.tar")
	if err := os.WriteFile(layout, layoutOf(t, indexOf(named(img.descriptor(), "peer:1")), img.blobs()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ kind, want string }{
		{"docker-archive", "peer:1"},
		{"oci-archive", "peer:1"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			file := filepath.Join(dir, c.kind)
			run(t, "skopeo", "copy", "--insecure-policy", "oci-archive:"+layout+":peer:1", c.kind+":"+file+":"+c.want)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, compress := range []bool{false, true} {
				r := newRig(t)
				if compress {
					data = gzipped(t, data)
				}
				out := r.load(data)
				if !strings.Contains(out, "Loaded image: "+c.want) {
					t.Errorf("load said:\n%s", out)
				}
				got, err := r.Resolve(t.Context(), c.want, nil)
				if err != nil || len(got.Layers) != 2 {
					t.Fatalf("got %v, %v", got, err)
				}
			}
		})
	}
}

// What we save must be read by skopeo both as a Docker archive and as an OCI
// one, and give the same image back.
func TestSavePeers(t *testing.T) {
	need(t, "skopeo")
	r := newRig(t)
	img := makeImage(t, host, map[string]string{"a": "1"}, map[string]string{"b": "2"})
	r.load(layoutOf(t, indexOf(named(img.descriptor(), "save/me:1")), img.blobs()))
	if err := r.Tag("save/me:1", "save/me", "2"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "out.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Save(t.Context(), []string{"save/me"}, f, nil); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, src := range []string{"docker-archive:" + file + ":save/me:2", "oci-archive:" + file + ":1"} {
		dst := t.TempDir()
		run(t, "skopeo", "copy", "--insecure-policy", src, "dir:"+dst)
		if _, err := os.Stat(filepath.Join(dst, img.id().Encoded())); err != nil {
			t.Errorf("%s has another configuration: %v", src, err)
		}
	}
	r2 := newRig(t)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r2.load(data)
	got, err := r2.Resolve(t.Context(), "save/me:2", nil)
	if err != nil || got.ID != img.id() || got.Manifest != img.digest() || len(r2.tags("save/me:2")) != 2 {
		t.Errorf("loaded again: %+v, %v", got, err)
	}
	need(t, "umoci")
	layout := t.TempDir()
	run(t, "tar", "-xf", file, "-C", layout)
	if out := run(t, "umoci", "stat", "--image", layout+":1"); !strings.Contains(out, "layer a") {
		t.Errorf("umoci sees:\n%s", out)
	}
}

func TestLoadMovesTag(t *testing.T) {
	r := newRig(t)
	a := makeImage(t, host, map[string]string{"a": "1"})
	b := makeImage(t, host, map[string]string{"a": "2"})
	r.load(layoutOf(t, indexOf(named(a.descriptor(), "x:1")), a.blobs()))
	out := r.load(layoutOf(t, indexOf(named(b.descriptor(), "x:1")), b.blobs()))
	if !strings.Contains(out, "The image x:1 already exists, renaming the old one with ID "+a.id().String()+" to empty string") {
		t.Errorf("load said:\n%s", out)
	}
	list, err := r.List(t.Context(), ListOptions{Filters: filter.Args{"dangling": {"true"}}})
	if err != nil || len(list) != 1 || list[0].ID != a.id().String() {
		t.Errorf("dangling: %+v, %v", list, err)
	}
	report, err := r.Prune(t.Context(), nil)
	if err != nil || report.SpaceReclaimed == 0 || len(report.ImagesDeleted) != 2 {
		t.Errorf("pruned %+v, %v", report, err)
	}
	if _, err := r.Resolve(t.Context(), "x:1", nil); err != nil {
		t.Error(err)
	}
	if got := r.past(); !slices.Equal(got, []string{"load", "load", "delete", "prune"}) {
		t.Errorf("events: %v", got)
	}
}
