package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/du"
	"github.com/gantry-containers/gantry/internal/registry"
)

// blobLayer is a layer as a test makes it: the archive, and what it is in the
// registry.
type blobLayer struct {
	diffID    digest.Digest
	blob      []byte
	mediaType string
}

func plainLayer(data []byte) blobLayer {
	return blobLayer{digest.FromBytes(data), data, ocispec.MediaTypeImageLayer}
}

// imageOf makes an image for this host of layers as they are.
func imageOf(t testing.TB, layers ...blobLayer) *testImage {
	t.Helper()
	img := &testImage{mediaTyp: ocispec.MediaTypeImageManifest}
	config := dockerspec.DockerOCIImage{}
	config.Platform, config.RootFS = host, ocispec.RootFS{Type: "layers"}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: img.mediaTyp, Layers: []ocispec.Descriptor{}}
	for _, l := range layers {
		img.layers = append(img.layers, l.blob)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{MediaType: l.mediaType, Digest: digest.FromBytes(l.blob), Size: int64(len(l.blob))})
	}
	img.config = mustJSON(t, config)
	manifest.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: img.id(), Size: int64(len(img.config))}
	img.manifest = mustJSON(t, manifest)
	return img
}

// headers is an archive of the given headers, without content.
func headers(t testing.TB, list ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, h := range list {
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// inside lists the root file system of an image.
func (r *rig) inside(ref string) map[string]os.FileInfo {
	r.t.Helper()
	img, err := r.Resolve(context.Background(), ref, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	mounts, err := r.opts.Snapshots.View(context.Background(), img.Layers)
	if err != nil {
		r.t.Fatal(err)
	}
	files := map[string]os.FileInfo{}
	root := mounts[0].Source // of vfs
	err = filepath.Walk(root, func(p string, info os.FileInfo, err error) error {
		if err == nil && p != root {
			files[strings.TrimPrefix(p, root+"/")] = info
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return files
}

// Layers in every compression there is, under any media type, and images of as
// many layers as Docker makes.
func TestPullLayers(t *testing.T) {
	archive := tarball(t, map[string]string{"a": "1"})
	var packed bytes.Buffer
	zw, err := zstd.NewWriter(&packed)
	if err != nil {
		t.Fatal(err)
	}
	zw.Write(archive)
	zw.Close()
	skippable := append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0}, "none"...)
	many := []blobLayer{}
	for i := range 127 {
		many = append(many, plainLayer(tarball(t, map[string]string{fmt.Sprint("f", i): "x", "last": fmt.Sprint(i)})))
	}
	diffID := digest.FromBytes(archive)
	for name, c := range map[string]struct {
		layers []blobLayer
		files  int
	}{
		"uncompressed":             {[]blobLayer{plainLayer(archive)}, 1},
		"zstd":                     {[]blobLayer{{diffID, packed.Bytes(), ocispec.MediaTypeImageLayerZstd}}, 1},
		"zstd with skipped frames": {[]blobLayer{{diffID, slices.Concat(skippable, packed.Bytes(), skippable), ocispec.MediaTypeImageLayerZstd}}, 1},
		"gzip called zstd":         {[]blobLayer{{diffID, gzipped(t, archive), ocispec.MediaTypeImageLayerZstd}}, 1},
		"zstd called nothing":      {[]blobLayer{{diffID, packed.Bytes(), mediaDockerLayer}}, 1},
		"the same layer twice":     {[]blobLayer{plainLayer(archive), plainLayer(archive)}, 1},
		"127 layers":               {many, 128},
		"no layers":                {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r, h := newRig(t), newHub(t)
			h.add("1", imageOf(t, c.layers...))
			r.pull(h.host() + "/x:1")
			if files := r.inside(h.host() + "/x:1"); len(files) != c.files {
				t.Errorf("the image has %v", slices.Sorted(maps.Keys(files)))
			}
		})
	}
}

// Real layers with a table of contents behind the archive, as Podman pushes
// them.
func TestPullZstdChunked(t *testing.T) {
	addr := startRegistry(t)
	img := makeImage(t, host, map[string]string{"a": randomText(100_000), "b": "2"})
	file := filepath.Join(t.TempDir(), "in.tar")
	if err := os.WriteFile(file, layoutOf(t, indexOf(named(img.descriptor(), "x:1")), img.blobs()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"zstd:chunked", "zstd"} {
		ref := addr + "/chunked:" + strings.ReplaceAll(format, ":", "-")
		run(t, "skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--dest-compress-format", format,
			"oci-archive:"+file+":x:1", "docker://"+ref)
		r := newRig(t)
		r.pull(ref)
		if files := r.inside(ref); len(files) != 2 || files["a"].Size() < 100_000 {
			t.Errorf("%s: %v", format, files)
		}
		_, data, err := r.Lookup(t.Context(), addr+"/chunked", strings.ReplaceAll(format, ":", "-"))
		if err != nil || strings.Contains(string(data), "zstd-chunked") != (format == "zstd:chunked") {
			t.Errorf("%s: the manifest is %s, %v", format, data, err)
		}
	}
}

// Names that differ in case only, or in how Unicode writes them, are different
// names; hard links hold across directories, and a directory that hides what
// was below does.
func TestPullNames(t *testing.T) {
	r, h := newRig(t), newHub(t)
	names := []string{"Makefile", "makefile", "caf\u00e9", "cafe\u0301", "\u212b", "\u00c5", "\xff\xfe", "a\nb", " ", "-rf", strings.Repeat("n", 255)}
	var list []tar.Header
	for _, name := range names {
		list = append(list, tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644})
	}
	list = append(list,
		tar.Header{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "e/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "d/linked", Typeflag: tar.TypeReg, Mode: 0o644}, tar.Header{Name: "e/link", Typeflag: tar.TypeLink, Linkname: "d/linked"},
		tar.Header{Name: "o/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "o/below", Typeflag: tar.TypeReg, Mode: 0o644})
	above := headers(t, tar.Header{Name: "o/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "o/above", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "o/.wh..wh..opq", Typeflag: tar.TypeReg, Mode: 0o644}, tar.Header{Name: ".wh.-rf", Typeflag: tar.TypeReg, Mode: 0o644})
	h.add("1", imageOf(t, plainLayer(headers(t, list...)), plainLayer(above)))
	r.pull(h.host() + "/x:1")
	files := r.inside(h.host() + "/x:1")
	want := slices.Concat(names, []string{"d", "d/linked", "e", "e/link", "o", "o/above"})
	want = slices.DeleteFunc(want, func(s string) bool { return s == "-rf" })
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
		t.Errorf("the image has %q", got)
	}
	if !os.SameFile(files["d/linked"], files["e/link"]) {
		t.Error("the hard link is another file")
	}
}

// A layer of many small files; 100,000 of them with GANTRY_SOAK.
func TestPullManyFiles(t *testing.T) {
	n := 3000
	if os.Getenv("GANTRY_SOAK") != "" {
		n = 100_000
	}
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for i := range n {
		tw.WriteHeader(&tar.Header{Name: fmt.Sprintf("d%d/f%d", i/100, i), Typeflag: tar.TypeReg, Mode: 0o644, Size: 9})
		fmt.Fprintf(tw, "%9d", i)
	}
	tw.Close()
	r, h := newRig(t), newHub(t)
	h.add("1", imageOf(t, blobLayer{digest.FromBytes(buf.Bytes()), gzipped(t, buf.Bytes()), ocispec.MediaTypeImageLayerGzip}))
	r.pull(h.host() + "/x:1")
	if info, err := r.Inspect(t.Context(), h.host()+"/x:1", InspectOptions{}); err != nil || info.Size != int64(9*n) {
		t.Errorf("%+v, %v", info, err)
	}
}

// sparse is an archive of one file of zeros but for its last byte, and its
// digest.
func sparse(size int64, w io.Writer) digest.Digest {
	d := digest.Canonical.Digester()
	tw := tar.NewWriter(io.MultiWriter(w, d.Hash()))
	tw.WriteHeader(&tar.Header{Name: "sparse", Typeflag: tar.TypeReg, Mode: 0o644, Size: size, Format: tar.FormatPAX})
	zeros := make([]byte, 1<<20)
	for left := size - 1; left > 0; left -= int64(len(zeros)) {
		tw.Write(zeros[:min(left, int64(len(zeros)))])
	}
	tw.Write([]byte{1})
	tw.Close()
	return d.Digest()
}

// A file that is large and empty takes no room, though the archive does not say
// that it is sparse: 200 MB, or 5 GB with GANTRY_SOAK, on a disk of 16 MB.
func TestPullSparse(t *testing.T) {
	size := int64(200 << 20)
	if os.Getenv("GANTRY_SOAK") != "" {
		size = 5 << 30
	}
	var packed bytes.Buffer
	zw, err := zstd.NewWriter(&packed, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		t.Fatal(err)
	}
	diffID := sparse(size, zw)
	zw.Close()
	r := smallDisk(t, "size=16m")
	h := newHub(t)
	h.add("1", imageOf(t, blobLayer{diffID, packed.Bytes(), ocispec.MediaTypeImageLayerZstd}))
	r.pull(h.host() + "/x:1")
	if info, err := r.Inspect(t.Context(), h.host()+"/x:1", InspectOptions{}); err != nil || info.Size != size {
		t.Errorf("%+v, %v", info, err)
	}
}

// Nor does the blob of a layer that is not compressed take room for zeros: of a
// commit, an import, a load, and on its way from one to the other.
func TestUncompressedSparse(t *testing.T) {
	const size, most = 64 << 20, 1 << 20
	var saved bytes.Buffer
	r := newRig(t)
	little := func(r *rig, what string) {
		t.Helper()
		if got, err := du.Tree(t.Context(), r.dir); err != nil || got > most {
			t.Errorf("%s of a file of %d zeros takes %d bytes, %v", what, size, got, err)
		}
	}
	id, _, err := r.Commit(t.Context(), CommitOptions{Parent: r.parentImage(), Repo: "sparse", Diff: func(_ context.Context, w io.Writer) error {
		sparse(size, w)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	little(r, "a commit")
	if err := r.Save(t.Context(), []string{"sparse"}, &saved, nil); err != nil || saved.Len() < size {
		t.Fatalf("saved %d bytes, %v", saved.Len(), err)
	}
	loaded := newRig(t)
	if err := loaded.Load(t.Context(), &saved, LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	little(loaded, "a load")
	if info, err := loaded.Inspect(t.Context(), "sparse", InspectOptions{}); err != nil || info.ID != id.String() {
		t.Errorf("loaded %+v, %v", info, err)
	}
	imported := newRig(t)
	var archive bytes.Buffer
	sparse(size, &archive)
	if _, err := imported.Import(t.Context(), &archive, ImportOptions{}); err != nil {
		t.Fatal(err)
	}
	little(imported, "an import")
}

// smallDisk is a rig whose layers are on a disk of their own.
func smallDisk(t *testing.T, size string) *rig {
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	r := &rig{t: t, dir: t.TempDir()}
	dir := filepath.Join(r.dir, "snapshots")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, size); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		r.db.Close()
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	r.open()
	return r
}

// A few bytes that become very many: the disk is the limit, and what was
// written is gone again; where it is only the processor's time, the end of the
// request ends it.
func TestPullBombs(t *testing.T) {
	full := bytes.Repeat([]byte("bomb"), 16<<20)
	archive := tarball(t, map[string]string{"bomb": string(full)})
	r := smallDisk(t, "size=4m")
	h := newHub(t)
	h.add("1", imageOf(t, blobLayer{digest.FromBytes(archive), gzipped(t, archive), ocispec.MediaTypeImageLayerGzip}))
	err := r.Pull(t.Context(), h.host()+"/x:1", PullOptions{})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("a bomb: %v", err)
	}
	if _, err := r.Prune(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if blobs, layers, _ := r.left(); blobs+layers != 0 {
		t.Errorf("left behind: %d blobs, %d layers", blobs, layers)
	}

	// An endless run of zeros behind the archive: 40 GB in a frame of 1 MB.
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58} // no checksum, window of 2 MB
	for range 320_000 {
		frame = append(frame, 0x02, 0x00, 0x10, 0) // a run of 128 KB
	}
	frame = append(frame, 0x03, 0x00, 0x00, 0)
	var small bytes.Buffer
	zw, _ := zstd.NewWriter(&small)
	zw.Write(tarball(t, map[string]string{"a": "1"}))
	zw.Close()
	h.add("2", imageOf(t, blobLayer{digest.FromString("x"), append(small.Bytes(), frame...), ocispec.MediaTypeImageLayerZstd}))
	ctx, cancel := context.WithCancel(t.Context())
	err = r.Pull(ctx, h.host()+"/x:2", PullOptions{Progress: func(m jsonstream.Message) {
		if m.Status == stepDownloading && m.Progress.Current > 0 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("after it was given up: %v", err)
	}
}

// A manifest without end is not read to its end.
func TestPullEndlessManifest(t *testing.T) {
	r, h := newRig(t), newHub(t)
	var sent atomic.Int64
	for name, length := range map[string]string{"that says its size": fmt.Sprint(1 << 30), "that does not": ""} {
		h.before = func(w http.ResponseWriter, req *http.Request) bool {
			if !strings.Contains(req.URL.Path, "/manifests/") {
				return false
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			chunk := bytes.Repeat([]byte(" "), 1<<20)
			for range 1 << 10 {
				n, err := w.Write(chunk)
				sent.Add(int64(n))
				if err != nil {
					return true
				}
			}
			return true
		}
		err := r.Pull(t.Context(), h.host()+"/x:1", PullOptions{})
		if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "larger than 4 MiB") {
			t.Errorf("a manifest %s: %v", name, err)
		}
	}
	if sent.Load() > 100<<20 {
		t.Errorf("%d bytes of manifests were taken", sent.Load())
	}
	r.wantNothing()
}

// A registry that stops in the middle of a blob, or answers with a web page, is
// given up with a sentence.
func TestPullStuck(t *testing.T) {
	img := makeImage(t, host, map[string]string{"a": "1"})
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		class  error
		idle   time.Duration // 0: as always
	}{
		"hangs": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(img.layers[0])))
			w.Write(img.layers[0][:20])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, errdefs.ErrUnavailable, 100 * time.Millisecond},
		"answers with a page": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>")
		}, errdefs.ErrInvalidArgument, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := &rig{t: t, dir: t.TempDir()}
			r.opts.Registry = registry.New(registry.Options{Attempts: 2, Backoff: 1, IdleTimeout: c.idle})
			r.open()
			t.Cleanup(func() { r.db.Close() })
			h := newHub(t)
			h.add("1", img)
			h.before = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, digest.FromBytes(img.layers[0]).String()) {
					return false
				}
				c.answer(w, r)
				return true
			}
			if err := r.Pull(t.Context(), h.host()+"/x:1", PullOptions{}); !errors.Is(err, c.class) {
				t.Errorf("got %v", err)
			}
			r.wantNothing()
		})
	}
}

// Pulls of parts and of all of an index, and removals of them, at once: what is
// named is whole at any time, and nothing else stays.
func TestPullAndRemove(t *testing.T) {
	f, h, r := makeFamily(t), newHub(t), newRig(t)
	h.addFamily("1", f)
	ref := h.host() + "/multi:1"
	var wg sync.WaitGroup
	for _, opts := range []PullOptions{{}, {Platform: &riscv}, {AllPlatforms: true}} {
		wg.Go(func() {
			for range 8 {
				if err := r.Pull(t.Context(), ref, opts); err != nil {
					t.Errorf("pull %+v: %v", opts, err)
				}
			}
		})
	}
	for _, opts := range []RemoveOptions{{Force: true}, {Platform: &riscv}} {
		wg.Go(func() {
			for range 40 {
				_, err := r.Remove(t.Context(), ref, opts)
				if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
					t.Errorf("remove %+v: %v", opts, err)
				}
				if _, err := r.Resolve(t.Context(), ref, nil); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
					t.Errorf("resolve: %v", err)
				}
			}
		})
	}
	wg.Wait()
	r.pullWith(ref, PullOptions{AllPlatforms: true})
	r.wantServed(h.host()+"/multi", f.all()...)
	r.restart()
	r.wantServed(h.host()+"/multi", f.all()...)
	if _, err := r.Remove(t.Context(), ref, RemoveOptions{}); err != nil {
		t.Error(err)
	}
	for id := range r.byID { // what lost its name while another pull had it
		if _, err := r.Remove(t.Context(), id.String(), RemoveOptions{Force: true}); err != nil {
			t.Error(err)
		}
	}
	r.wantNothing()
}
