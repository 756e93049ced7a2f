package image

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/content"
	"github.com/gantry-containers/gantry/internal/du"
	"github.com/gantry-containers/gantry/internal/filter"
)

// cutAfter has the hub send the first n bytes of a blob once, and be gone for it
// then until the returned function is called.
func (h *hub) cutAfter(blob []byte, n int) (mend func()) {
	cut := false
	h.before = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, digest.FromBytes(blob).String()) {
			return false
		}
		conn, buf, _ := w.(http.Hijacker).Hijack()
		defer conn.Close()
		if !cut {
			cut = true
			fmt.Fprintf(buf, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(blob))
			buf.Write(blob[:n])
			buf.Flush()
		}
		return true
	}
	return func() { h.before = nil }
}

// part is what is kept of a blob, in bytes.
func (r *rig) part(blob []byte) (size int64) {
	r.opts.Content.WalkPartials(func(i content.Info) error {
		if i.Digest == digest.FromBytes(blob) {
			size = i.Size
		}
		return nil
	})
	return size
}

func (r *rig) partFile(blob []byte) string {
	return filepath.Join(r.dir, "content", "partial", "sha256-"+digest.FromBytes(blob).Encoded())
}

// A pull that was interrupted goes on where it stopped, over a restart too, and
// says so; whatever became of the part meanwhile, the image is right.
func TestPullGoesOn(t *testing.T) {
	for _, c := range []struct {
		name   string
		mangle func(r *rig, h *hub, blob []byte)
		ranges int // requests for a part
		says   bool
	}{
		{"where it stopped", func(*rig, *hub, []byte) {}, 1, true},
		{"without asking when nothing is missing", func(r *rig, h *hub, blob []byte) {
			os.WriteFile(r.partFile(blob), blob, 0o600)
		}, 0, true},
		{"at a registry that knows no ranges", func(r *rig, h *hub, blob []byte) {
			h.before = func(w http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false }
		}, 0, true},
		{"at a registry that refuses ranges", func(r *rig, h *hub, blob []byte) {
			h.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Range") != "" {
					w.WriteHeader(416)
					return true
				}
				return false
			}
		}, 0, true},
		{"at the beginning when the part is damaged", func(r *rig, h *hub, blob []byte) {
			f, err := os.OpenFile(r.partFile(blob), os.O_WRONLY, 0)
			if err != nil {
				r.t.Fatal(err)
			}
			f.WriteAt(make([]byte, 100), 70_000)
			f.Close()
		}, 1, true},
		{"at the beginning when the part is too long", func(r *rig, h *hub, blob []byte) {
			os.WriteFile(r.partFile(blob), make([]byte, len(blob)+1), 0o600)
		}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, h := newRig(t), newHub(t)
			img := makeImage(t, host, map[string]string{"big": randomText(600_000)}, map[string]string{"b": "2"})
			h.add("1", img)
			blob, ref := img.layers[0], h.host()+"/web:1"
			mend := h.cutAfter(blob, 150_000)
			if err := r.Pull(t.Context(), ref, PullOptions{}); !errors.Is(err, errdefs.ErrUnavailable) {
				t.Fatalf("the cut pull: %v", err)
			}
			if kept := r.part(blob); kept != 150_000 {
				t.Fatalf("%d bytes are kept", kept)
			}
			mend()
			r.restart()
			c.mangle(r, h, blob)
			h.ranges = nil
			out := r.pull(ref)
			if strings.Contains(out, "Resuming at") != c.says {
				t.Errorf("the pull said:\n%s", out)
			}
			if c.name == "where it stopped" && !strings.Contains(out, short(digest.FromBytes(blob))+": Resuming at 150kB\n") {
				t.Errorf("the pull said:\n%s", out)
			}
			if len(h.ranges) != c.ranges || c.ranges > 0 && h.ranges[0] != "bytes=150000-" {
				t.Errorf("asked for %v", h.ranges)
			}
			if _, err := r.Resolve(t.Context(), ref, nil); err != nil {
				t.Error(err)
			}
			if _, err := r.Remove(t.Context(), ref, RemoveOptions{}); err != nil {
				t.Error(err)
			}
			r.wantNothing()
		})
	}
}

// What nobody goes on with is counted, and goes with the rest.
func TestPrunePart(t *testing.T) {
	r, h := newRig(t), newHub(t)
	img := makeImage(t, host, map[string]string{"big": randomText(600_000)})
	h.add("1", img)
	h.cutAfter(img.layers[0], 150_000)
	if err := r.Pull(t.Context(), h.host()+"/web:1", PullOptions{}); err == nil {
		t.Fatal("the cut pull succeeded")
	}
	if usage, err := r.Usage(t.Context()); err != nil || usage.Total < 150_000 {
		t.Errorf("usage: %+v, %v", usage, err)
	}
	if _, err := r.Prune(t.Context(), filter.Args{}); err != nil || r.part(img.layers[0]) == 0 {
		t.Errorf("what may be gone on with was removed, %v", err)
	}
	taken, err := du.Blocks(r.partFile(img.layers[0]))
	if err != nil {
		t.Fatal(err)
	}
	report, err := r.Prune(t.Context(), filter.Args{"dangling": {"false"}})
	if err != nil || report.SpaceReclaimed != uint64(taken) || taken < 150_000 {
		t.Errorf("prune: %+v, %v; the part took %d bytes on disk", report, err, taken)
	}
	r.wantNothing()
}

// Of several layers, and several images, those that came whole before the
// interruption are not fetched again.
func TestPullGoesOnWithLayers(t *testing.T) {
	for _, kill := range []bool{false, true} {
		f := makeFamily(t)
		f.riscv = makeImage(t, riscv, map[string]string{"first": randomText(300_000)}, map[string]string{"big": randomText(600_000)})
		f.host = makeImage(t, host, map[string]string{"other": randomText(400_000)})
		dh, dr := f.host.descriptor(), f.riscv.descriptor()
		dh.Platform, dr.Platform = &host, &riscv
		f.index.manifest = mustJSON(t, indexOf(dh, dr))
		r, h := newRig(t), newHub(t)
		r.opts.Parallel = 1
		r.restart()
		h.addFamily("1", f)
		ref := h.host() + "/web:1"
		mend := h.cutAfter(f.riscv.layers[1], 150_000)
		if kill { // what a pin keeps nobody tidies up but the next start
			r.pins.add(r.pins.blobs, digest.FromBytes(f.host.layers[0]))
		}
		if err := r.Pull(t.Context(), ref, PullOptions{AllPlatforms: true}); err == nil {
			t.Fatal("the cut pull succeeded")
		}
		if list, err := r.List(t.Context(), ListOptions{All: true}); err != nil || len(list) != 0 {
			t.Errorf("the cut pull left %+v, %v", list, err)
		}
		r.restart()
		mend()
		r.pullWith(ref, PullOptions{AllPlatforms: true})
		for _, blob := range [][]byte{f.host.layers[0], f.riscv.layers[0]} {
			if n := h.fetched[digest.FromBytes(blob).String()]; n != 1 {
				t.Errorf("a layer was fetched %d times", n)
			}
		}
		if !slices.Equal(h.ranges, []string{"bytes=150000-"}) {
			t.Errorf("asked for %v", h.ranges)
		}
		r.wantServed(h.host()+"/web", f.index, f.host, f.riscv)
		if _, err := r.Remove(t.Context(), ref, RemoveOptions{}); err != nil {
			t.Error(err)
		}
		r.wantNothing()
	}
}

// What is only kept as a blob goes on as well.
func TestPullPackedGoesOn(t *testing.T) {
	r, h := newRig(t), newHub(t)
	img := makeImage(t, riscv, map[string]string{"big": randomText(600_000)})
	h.add("1", img)
	mend := h.cutAfter(img.layers[0], 150_000)
	if err := r.Pull(t.Context(), h.host()+"/web:1", PullOptions{}); err == nil {
		t.Fatal("the cut pull succeeded")
	}
	mend()
	r.pull(h.host() + "/web:1")
	if !slices.Equal(h.ranges, []string{"bytes=150000-"}) {
		t.Errorf("asked for %v", h.ranges)
	}
	if got, err := r.Resolve(t.Context(), h.host()+"/web:1", nil); err != nil || len(got.Layers) != 1 {
		t.Errorf("resolved %+v, %v", got, err)
	}
}

// A full disk is an interruption like any other: once there is room, the pull
// goes on.
func TestPullGoesOnAfterDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	r := &rig{t: t, dir: t.TempDir()}
	small := filepath.Join(r.dir, "content")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=200k"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		r.db.Close()
		if err := unix.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	})
	r.open()
	h := newHub(t)
	img := makeImage(t, host, map[string]string{"big": randomText(600_000)})
	h.add("1", img)
	if err := r.Pull(t.Context(), h.host()+"/big:1", PullOptions{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("pull: %v", err)
	}
	kept := r.part(img.layers[0])
	if kept == 0 {
		t.Fatal("nothing is kept")
	}
	if err := unix.Mount("tmpfs", small, "tmpfs", unix.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	r.pull(h.host() + "/big:1")
	if !slices.Equal(h.ranges, []string{fmt.Sprintf("bytes=%d-", kept)}) {
		t.Errorf("asked for %v where %d bytes were kept", h.ranges, kept)
	}
}
