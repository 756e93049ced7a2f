package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// seeds adds the documents of the corpus directory.
func seeds(f *testing.F, dir string) {
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no corpus in testdata/%s: %v", dir, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
}

// FuzzDocuments feeds every parser of what registries and archives send. What
// passes must be safe to build on.
func FuzzDocuments(f *testing.F) {
	seeds(f, "documents")
	f.Fuzz(func(t *testing.T, data []byte) {
		if kind, err := kindOf("", data); err == nil && !isManifest(kind) && !isIndex(kind) && !isSchema1(kind) {
			t.Errorf("kind %q", kind)
		}
		if m, err := parseManifest(data); err == nil {
			for _, d := range append(m.Layers, m.Config) {
				if d.Digest.Validate() != nil || d.Size < 0 {
					t.Errorf("passed %+v", d)
				}
			}
		} else if !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Error(err)
		}
		if c, err := parseConfig(data); err == nil {
			for _, id := range c.RootFS.DiffIDs {
				if id.Validate() != nil {
					t.Errorf("passed %q", id)
				}
			}
			platformOf(c)
		}
		if i, err := parseIndex(data); err == nil {
			choose(i, host)
			describePlatforms(i)
			for _, d := range i.Manifests {
				nameOf(d.Annotations)
			}
		}
		calls := 0
		desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
		descend(t.Context(), desc, data, forPlatform(host), func(context.Context, ocispec.Descriptor) ([]byte, error) {
			if calls++; calls > maxDepth {
				t.Fatal("goes on for ever")
			}
			return data, nil
		})
		var entries []dockerEntry
		json.Unmarshal(data, &entries)
	})
}

// FuzzLoad feeds whole archives. An archive that fails leaves nothing behind.
func FuzzLoad(f *testing.F) {
	img := makeImage(f, host, map[string]string{"a": "1"})
	f.Add(layoutOf(f, indexOf(named(img.descriptor(), "x:1")), img.blobs()))
	f.Add(gzipped(f, layoutOf(f, indexOf(img.descriptor()), img.blobs())))
	f.Add(tarball(f, map[string]string{"manifest.json": `[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l.tar"]}]`,
		"c.json": string(img.config), "l.tar": string(img.layers[0])}))
	f.Add(tarball(f, map[string]string{"manifest.json": `[{"Config":"../c.json"}]`}))
	f.Add([]byte("not an archive"))
	r := newRig(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		r.t = t
		err := r.Load(context.Background(), bytes.NewReader(data), LoadOptions{})
		if err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrNotFound) {
			t.Error(err)
		}
		list, err := r.List(context.Background(), ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if _, err := r.Remove(context.Background(), s.ID, RemoveOptions{Force: true}); err != nil {
				t.Error(err)
			}
		}
		if blobs, layers, ingest := r.left(); blobs+layers+ingest != 0 {
			t.Errorf("left behind: %d blobs, %d layers, %d unfinished files", blobs, layers, ingest)
		}
	})
}

func TestLoadBad(t *testing.T) {
	img := makeImage(t, host, map[string]string{"a": "1"})
	config, layer := string(img.config), string(img.layers[0])
	wrong := img.blobs()
	wrong[blobName(digest.FromBytes(img.layers[0]))] = "something else"
	short := img.blobs()
	delete(short, blobName(img.id()))
	cycle := mustJSON(t, indexOf(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("x"), Size: 3}))
	for _, c := range []struct {
		name string
		data []byte
		text string
	}{
		{"empty", nil, "neither manifest.json nor an OCI index.json"},
		{"text", []byte(strings.Repeat("hello ", 200)), "cannot read the archive"},
		{"a root filesystem", tarball(t, map[string]string{"etc/passwd": "root"}), "the archive is no image"},
		{"a path out of it", tarball(t, map[string]string{"../../x": "1"}), "has a path out of it"},
		{"an absolute path", tarball(t, map[string]string{"/etc/x": "1"}), "has a path out of it"},
		{"cut", layoutOf(t, indexOf(img.descriptor()), img.blobs())[:600], "ends in the middle"},
		{"cut gzip", gzipped(t, layoutOf(t, indexOf(img.descriptor()), img.blobs()))[:300], "ends in the middle"},
		{"blob with another content", layoutOf(t, indexOf(img.descriptor()), wrong), "has digest"},
		{"missing configuration", layoutOf(t, indexOf(img.descriptor()), short), "is not in the store"},
		{"missing index", layoutOf(t, json.RawMessage(cycle), nil), "which it refers to"},
		{"bad JSON", tarball(t, map[string]string{"manifest.json": "["}), "is not what it should be"},
		{"no image in it", tarball(t, map[string]string{"manifest.json": "[]"}), "lists no image"},
		{"missing layer", tarball(t, map[string]string{"manifest.json": `[{"Config":"c","Layers":["l"]}]`, "c": config}), "has no l, which it refers to"},
		{"bad name", tarball(t, map[string]string{"manifest.json": `[{"Config":"c","RepoTags":["A B"],"Layers":["l"]}]`, "c": config, "l": layer}), "invalid reference format"},
		{"a layer of another image", tarball(t, map[string]string{"manifest.json": `[{"Config":"c","Layers":["l"]}]`, "c": config,
			"l": string(tarball(t, map[string]string{"b": "1"}))}), "cannot unpack layer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			err := r.Load(t.Context(), bytes.NewReader(c.data), LoadOptions{})
			if err == nil || !strings.Contains(err.Error(), c.text) ||
				!errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("got %v", err)
			}
			r.wantNothing()
		})
	}
}

// The layout Docker wrote before version 25: a directory for each layer, and
// links where two images share one.
func TestLoadLegacy(t *testing.T) {
	img := makeImage(t, host, map[string]string{"a": "1"}, map[string]string{"b": "2"})
	data := tarball(t, map[string]string{
		"manifest.json":  `[{"Config":"c.json","RepoTags":["old:1"],"Layers":["l1/layer.tar","l2/layer.tar"]}]`,
		"c.json":         string(img.config),
		"l0/layer.tar":   string(tarball(t, map[string]string{"a": "1"})),
		"l2/layer.tar":   string(img.layers[1]),
		"l2/VERSION":     "1.0",
		"repositories":   `{"old":{"1":"l2"}}`,
		"l1/layer.tar->": "../l0/layer.tar",
	})
	r := newRig(t)
	r.load(data)
	if got, err := r.Resolve(t.Context(), "old:1", nil); err != nil || got.ID != img.id() {
		t.Errorf("%+v, %v", got, err)
	}
	loop := tarball(t, map[string]string{"manifest.json": `[{"Config":"c.json"}]`, "c.json->": "d.json", "d.json->": "c.json"})
	if err := r.Load(t.Context(), bytes.NewReader(loop), LoadOptions{}); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Errorf("links in a circle: %v", err)
	}
	out := tarball(t, map[string]string{"manifest.json": `[]`, "x->": "../../etc/passwd"})
	if err := r.Load(t.Context(), bytes.NewReader(out), LoadOptions{}); err == nil || !strings.Contains(err.Error(), "link out of it") {
		t.Errorf("a link out of it: %v", err)
	}
}
