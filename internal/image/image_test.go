package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/content"
	"github.com/gantry-containers/gantry/internal/registry"
	"github.com/gantry-containers/gantry/internal/snapshot"
	"github.com/gantry-containers/gantry/internal/state"
)

// rig is a manager with all it stands on, in a directory of its own.
type rig struct {
	*Manager
	t      testing.TB
	dir    string
	db     *state.DB
	events *state.Events
	opts   Options
}

// tags and digests are what an image is called.
func (r *rig) tags(ref string) []string {
	r.t.Helper()
	info, err := r.Inspect(r.t.Context(), ref, InspectOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return info.RepoTags
}

func (r *rig) digests(ref string) []string {
	r.t.Helper()
	info, err := r.Inspect(r.t.Context(), ref, InspectOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return info.RepoDigests
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.open()
	t.Cleanup(func() { r.db.Close() })
	return r
}

func (r *rig) open() {
	r.t.Helper()
	var err error
	if r.db, err = state.Open(filepath.Join(r.dir, "data"), filepath.Join(r.dir, "run")); err != nil {
		r.t.Fatal(err)
	}
	store, err := content.Open(filepath.Join(r.dir, "content"))
	if err != nil {
		r.t.Fatal(err)
	}
	snapshots, err := snapshot.New("vfs", filepath.Join(r.dir, "snapshots"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.events = &state.Events{}
	r.opts.DB, r.opts.Content, r.opts.Snapshots, r.opts.Events = r.db, store, snapshots, r.events
	if r.opts.Registry == nil {
		r.opts.Registry = registry.New(registry.Options{Attempts: 3, Backoff: time.Millisecond, IdleTimeout: 2 * time.Second})
	}
	if r.Manager, err = New(r.opts); err != nil {
		r.t.Fatal(err)
	}
}

// restart is what happens when the engine is killed and started again.
func (r *rig) restart() {
	r.t.Helper()
	if err := r.db.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
	if err := r.Collect(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

// left counts what is stored: blobs, layers, files being written.
func (r *rig) left() (blobs, layers, ingest int) {
	r.t.Helper()
	r.opts.Content.Walk(func(content.Info) error { blobs++; return nil })
	found, err := r.opts.Snapshots.Layers(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	files, err := os.ReadDir(filepath.Join(r.dir, "content", "ingest"))
	if err != nil {
		r.t.Fatal(err)
	}
	ingest = len(files)
	r.opts.Content.WalkPartials(func(content.Info) error { ingest++; return nil })
	return blobs, len(found), ingest
}

func (r *rig) wantNothing() {
	r.t.Helper()
	if blobs, layers, ingest := r.left(); blobs+layers+ingest != 0 {
		r.t.Errorf("left behind: %d blobs, %d layers, %d unfinished files", blobs, layers, ingest)
	}
}

// messages collects what an operation says.
type messages struct {
	mu   sync.Mutex
	list []jsonstream.Message
}

func (m *messages) add(msg jsonstream.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.list = append(m.list, msg)
}

func (m *messages) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, msg := range m.list {
		if msg.ID != "" {
			b.WriteString(msg.ID + ": ")
		}
		b.WriteString(msg.Status + strings.TrimSuffix(msg.Stream, "\n") + "\n")
	}
	return b.String()
}

// tarball makes an archive: names that end in a slash are directories, those
// that end in an arrow symbolic links.
func tarball(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		switch {
		case strings.HasSuffix(name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case strings.HasSuffix(name, "->"):
			h.Typeflag, h.Size, h.Linkname = tar.TypeSymlink, 0, files[name]
			h.Name = strings.TrimSuffix(name, "->")
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			tw.Write([]byte(files[name]))
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// testImage is an image in parts, for archives and registries of all kinds.
type testImage struct {
	layers   [][]byte // as in the registry
	config   []byte
	manifest []byte
	mediaTyp string
}

func (i *testImage) id() digest.Digest     { return digest.FromBytes(i.config) }
func (i *testImage) digest() digest.Digest { return digest.FromBytes(i.manifest) }
func (i *testImage) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: i.mediaTyp, Digest: i.digest(), Size: int64(len(i.manifest))}
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// makeImage makes an image of gzip layers for a platform.
func makeImage(t testing.TB, platform ocispec.Platform, layers ...map[string]string) *testImage {
	t.Helper()
	img := &testImage{mediaTyp: ocispec.MediaTypeImageManifest}
	created := time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)
	config := dockerspec.DockerOCIImage{}
	config.Created, config.Platform = &created, platform
	config.Config.Cmd, config.Config.Labels = []string{"/bin/sh"}, map[string]string{"color": "red"}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: img.mediaTyp, Layers: []ocispec.Descriptor{}}
	for i, files := range layers {
		plain := tarball(t, files)
		blob := gzipped(t, plain)
		img.layers = append(img.layers, blob)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(plain))
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: "layer " + string(rune('a'+i))})
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{
			MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(blob), Size: int64(len(blob))})
	}
	img.config = mustJSON(t, config)
	manifest.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: img.id(), Size: int64(len(img.config))}
	img.manifest = mustJSON(t, manifest)
	return img
}

// blobs are all the blobs of an image, as an OCI layout has them.
func (i *testImage) blobs() map[string]string {
	files := map[string]string{blobName(i.id()): string(i.config), blobName(i.digest()): string(i.manifest)}
	for _, l := range i.layers {
		files[blobName(digest.FromBytes(l))] = string(l)
	}
	return files
}

// layoutOf is an OCI layout with the given index.
func layoutOf(t testing.TB, index any, blobs ...map[string]string) []byte {
	files := map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"index.json": string(mustJSON(t, index)),
	}
	for _, m := range blobs {
		for name, data := range m {
			files[name] = data
		}
	}
	return tarball(t, files)
}

func indexOf(manifests ...ocispec.Descriptor) ocispec.Index {
	return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests}
}

func named(d ocispec.Descriptor, name string) ocispec.Descriptor {
	d.Annotations = map[string]string{ocispec.AnnotationRefName: name}
	return d
}

// load loads an archive that must be good.
func (r *rig) load(data []byte) string {
	r.t.Helper()
	var out messages
	if err := r.Load(context.Background(), bytes.NewReader(data), LoadOptions{Progress: out.add}); err != nil {
		r.t.Fatal(err)
	}
	return out.text()
}

// need skips a test for a program that is not installed.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// past lists the actions since the rig was made, as "action id".
func (r *rig) past() (list []string) {
	s := r.events.Subscribe(time.Unix(1, 0), nil)
	defer s.Close()
	for _, m := range s.Past {
		if m.Type == events.ImageEventType {
			list = append(list, string(m.Action))
		}
	}
	return list
}
