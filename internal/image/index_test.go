package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/state"
)

var riscv = ocispec.Platform{OS: "linux", Architecture: "riscv64"}

// family is an image for several platforms as BuildKit makes them: an index
// with attestations, annotations, and something nobody knows.
type family struct {
	index       *testImage
	host, riscv *testImage
	attest      *testImage // of host
	strange     *testImage
}

func (f *family) all() []*testImage {
	return []*testImage{f.index, f.host, f.riscv, f.attest, f.strange}
}

// blobs are the files of an OCI layout with everything.
func (f *family) blobs() []map[string]string {
	list := []map[string]string{{blobName(f.index.digest()): string(f.index.manifest)}}
	for _, img := range f.all()[1:] {
		list = append(list, img.blobs())
	}
	return list
}

func (h *hub) addFamily(tag string, f *family) {
	for _, img := range f.all()[1:] {
		h.add("none", img)
	}
	h.add(tag, f.index)
}

// artifact is a manifest that is no image's.
func artifact(t testing.TB, configType, config, layerType, layer string) *testImage {
	img := &testImage{mediaTyp: ocispec.MediaTypeImageManifest, config: []byte(config), layers: [][]byte{[]byte(layer)}}
	desc := func(mediaType, data string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(data), Size: int64(len(data))}
	}
	img.manifest = mustJSON(t, ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: img.mediaTyp,
		Config: desc(configType, config), Layers: []ocispec.Descriptor{desc(layerType, layer)}})
	return img
}

func makeFamily(t testing.TB) *family {
	t.Helper()
	f := &family{
		host:  makeImage(t, host, map[string]string{"a": "host"}, map[string]string{"shared": "1"}),
		riscv: makeImage(t, riscv, map[string]string{"a": "riscv"}, map[string]string{"shared": "1"}),
		attest: artifact(t, ocispec.MediaTypeImageConfig, `{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}`,
			"application/vnd.in-toto+json", `{"predicateType":"https://slsa.dev/provenance/v0.2"}`),
		strange: artifact(t, "application/x-thing.config", "{}", "application/x-thing", "anything"),
	}
	dh, dr, da, ds := f.host.descriptor(), f.riscv.descriptor(), f.attest.descriptor(), f.strange.descriptor()
	dh.Platform, dr.Platform = &host, &riscv
	dh.Annotations = map[string]string{"org.example.note": "kept"}
	da.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	da.Annotations = map[string]string{annotationReferenceType: "attestation-manifest", annotationReferenceDigest: dh.Digest.String()}
	index := indexOf(dr, dh, da, ds)
	index.Annotations = map[string]string{"org.example.index": "kept too"}
	f.index = &testImage{mediaTyp: ocispec.MediaTypeImageIndex, manifest: mustJSON(t, index)}
	return f
}

func (r *rig) pullWith(ref string, opts PullOptions) {
	r.t.Helper()
	if err := r.Pull(context.Background(), ref, opts); err != nil {
		r.t.Fatal(err)
	}
}

// wantServed checks that everything of the images can be had again, byte for
// byte.
func (r *rig) wantServed(repository string, images ...*testImage) {
	r.t.Helper()
	for _, img := range images {
		_, data, err := r.Lookup(r.t.(*testing.T).Context(), repository, img.digest().String())
		if err != nil || !bytes.Equal(data, img.manifest) {
			r.t.Errorf("manifest %s: %v", img.digest(), err)
		}
		for _, blob := range append([][]byte{img.config}, img.layers...) {
			if blob == nil {
				continue
			}
			f, size, err := r.Open(r.t.(*testing.T).Context(), digest.FromBytes(blob))
			if err != nil {
				r.t.Errorf("blob %s: %v", digest.FromBytes(blob), err)
				continue
			}
			got, err := io.ReadAll(f)
			f.Close()
			if err != nil || !bytes.Equal(got, blob) || size != int64(len(blob)) {
				r.t.Errorf("blob %s: %d bytes, %v", digest.FromBytes(blob), size, err)
			}
		}
	}
}

// An index that was pulled or loaded whole is saved, and served, as it came.
func TestIndexWhole(t *testing.T) {
	f := makeFamily(t)
	h := newHub(t)
	h.addFamily("1", f)
	pulled := newRig(t)
	ref := h.host() + "/team/multi:1"
	pulled.pullWith(ref, PullOptions{AllPlatforms: true})
	pulled.restart()
	pulled.wantServed(h.host()+"/team/multi", f.all()...)
	if got, err := pulled.Resolve(t.Context(), ref, nil); err != nil || got.ID != f.host.id() ||
		!slices.Equal(pulled.digests(ref), []string{h.host() + "/team/multi@" + f.index.digest().String()}) {
		t.Errorf("resolved %+v, %v", got, err)
	}

	var first bytes.Buffer
	if err := pulled.Save(t.Context(), []string{ref}, &first, nil); err != nil {
		t.Fatal(err)
	}
	loaded := newRig(t)
	if out := loaded.load(first.Bytes()); out != "Loaded image: "+ref+"\n" && !strings.HasSuffix(out, "\nLoaded image: "+ref+"\n") {
		t.Errorf("load said %q", out)
	}
	loaded.restart()
	loaded.wantServed(h.host()+"/team/multi", f.all()...)
	var second bytes.Buffer
	if err := loaded.Save(t.Context(), []string{ref}, &second, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("what was saved, loaded and saved again is another archive")
	}
	direct := newRig(t)
	direct.load(layoutOf(t, indexOf(named(f.index.descriptor(), "multi:1")), f.blobs()...))
	direct.wantServed("multi", f.all()...)

	for _, r := range []*rig{pulled, loaded} {
		if _, err := r.Remove(t.Context(), ref, RemoveOptions{}); err != nil {
			t.Error(err)
		}
		r.wantNothing()
	}
}

// A platform is added to what is here, and its layers are unpacked when they
// are needed.
func TestIndexByPlatform(t *testing.T) {
	f := makeFamily(t)
	h := newHub(t)
	h.addFamily("1", f)
	r := newRig(t)
	ref := h.host() + "/multi:1"
	r.pull(ref)
	if _, _, err := r.Lookup(t.Context(), h.host()+"/multi", f.riscv.digest().String()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("what was not asked for: %v", err)
	}
	if _, err := r.Resolve(t.Context(), ref, &riscv); !errors.Is(err, errdefs.ErrNotFound) ||
		!strings.Contains(err.Error(), "does not match the specified platform (linux/riscv64)") {
		t.Errorf("resolved for riscv64: %v", err)
	}
	r.pullWith(ref, PullOptions{Platform: &riscv})
	if got, err := r.Resolve(t.Context(), ref, nil); err != nil || got.ID != f.host.id() {
		t.Errorf("the name means %v, %v", got, err)
	}
	if e, _, _ := r.resolve(ref, &riscv); e == nil || e.id != f.riscv.id() || !e.packed() {
		t.Errorf("the other one is %+v", e)
	}
	if list, err := r.List(t.Context(), ListOptions{Manifests: true}); err != nil || len(list) != 1 || list[0].ID != f.host.id().String() {
		t.Errorf("listed %+v, %v", list, err)
	} else if list[0].Size != totalOf(list[0].Manifests) {
		t.Errorf("the manifests of an image of %d bytes: %+v", list[0].Size, list[0].Manifests)
	}
	r.restart()
	if _, layers, _ := r.left(); layers != 2 {
		t.Errorf("%d layers are unpacked", layers)
	}
	if got, err := r.Resolve(t.Context(), ref, &riscv); err != nil || got.ID != f.riscv.id() {
		t.Fatalf("for riscv64: %v, %v", got, err)
	}
	if _, layers, _ := r.left(); layers != 3 {
		t.Errorf("%d layers are unpacked after they were needed", layers)
	}
	if info, err := r.Inspect(t.Context(), ref, InspectOptions{Platform: &riscv}); err != nil || info.Size != 6 || !slices.Equal(info.RepoTags, []string{ref}) {
		t.Errorf("inspect: %+v, %v", info, err)
	}
	wantManifests(t, r, ref, map[digest.Digest]string{
		f.host.digest(): "image available", f.riscv.digest(): "image available",
		f.attest.digest(): "attestation", f.strange.digest(): "unknown"})
	r.restart()
	for d, n := range h.fetched {
		if n != 1 {
			t.Errorf("blob %s was fetched %d times", d, n)
		}
	}

	if _, err := r.Remove(t.Context(), ref, RemoveOptions{Platform: &riscv}); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Resolve(t.Context(), ref, nil); err != nil || got.ID != f.host.id() {
		t.Errorf("after the other was removed: %v, %v", got, err)
	}
	if _, err := r.Resolve(t.Context(), f.riscv.id().String(), nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("what was removed: %v", err)
	}
	if _, err := r.Remove(t.Context(), ref, RemoveOptions{}); err != nil {
		t.Error(err)
	}
	r.wantNothing()
}

func wantManifests(t *testing.T, r *rig, ref string, want map[digest.Digest]string) {
	t.Helper()
	info, err := r.Inspect(t.Context(), ref, InspectOptions{Manifests: true})
	if err != nil || len(info.Manifests) != len(want) {
		t.Fatalf("manifests: %+v, %v", info, err)
	}
	for _, m := range info.Manifests {
		got := string(m.Kind)
		if m.Available {
			got += " available"
		}
		if got != want[digest.Digest(m.ID)] {
			t.Errorf("%s is %s", m.ID, got)
		}
		if m.Kind == image.ManifestKindImage && m.Descriptor.Digest == digest.Digest(m.ID) && m.Available &&
			(m.Size.Content == 0 || m.Size.Total != m.Size.Content+m.ImageData.Size.Unpacked) {
			t.Errorf("sizes: %+v", m)
		}
	}
}

// A part of an index is saved as an index of that part.
func TestIndexSavePart(t *testing.T) {
	f := makeFamily(t)
	r := newRig(t)
	r.load(layoutOf(t, indexOf(named(f.index.descriptor(), "multi:1")), f.host.blobs(), f.riscv.blobs(),
		map[string]string{blobName(f.index.digest()): string(f.index.manifest)}))
	wantManifests(t, r, "multi:1", map[digest.Digest]string{
		f.host.digest(): "image available", f.riscv.digest(): "image available", f.attest.digest(): "attestation", f.strange.digest(): "unknown"})
	for _, c := range []struct {
		platforms []ocispec.Platform
		want      []*testImage
	}{
		{nil, []*testImage{f.host, f.riscv}},
		{[]ocispec.Platform{riscv}, []*testImage{f.riscv}},
		{[]ocispec.Platform{riscv, host}, []*testImage{f.host, f.riscv}},
	} {
		var out bytes.Buffer
		if err := r.Save(t.Context(), []string{"multi:1"}, &out, c.platforms); err != nil {
			t.Fatal(err)
		}
		again := newRig(t)
		again.load(out.Bytes())
		again.wantServed("multi", c.want...)
		if n := again.Count(); n != len(c.want) {
			t.Errorf("%v: %d images were saved", c.platforms, n)
		}
	}
	s390 := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	if err := r.Save(t.Context(), []string{"multi:1"}, io.Discard, []ocispec.Platform{s390}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a platform that is not there: %v", err)
	}
}

// Records from before indexes were kept are read, and completed by a pull.
func TestOldRecords(t *testing.T) {
	f := makeFamily(t)
	h := newHub(t)
	h.addFamily("1", f)
	r := newRig(t)
	ref := h.host() + "/multi:1"
	r.pull(ref)
	type oldRef struct {
		ID digest.Digest `json:"id"`
	}
	for key, old := range r.byRef {
		if err := state.NewTable[oldRef](r.db, "image-refs").Put(key, &oldRef{old.ID}); err != nil {
			t.Fatal(err)
		}
	}
	r.restart()
	if len(r.byIndex) != 0 {
		t.Fatal("the index is known without a name that stands for it")
	}
	if got, err := r.Resolve(t.Context(), ref, nil); err != nil || got.ID != f.host.id() || len(r.digests(ref)) != 1 {
		t.Fatalf("resolved %+v, %v", got, err)
	}
	r.wantServed(h.host()+"/multi", f.host)
	r.pull(ref)
	r.wantServed(h.host()+"/multi", f.index, f.host)
}

// Tags share the index; a container that uses one of its images keeps that.
func TestIndexNames(t *testing.T) {
	f := makeFamily(t)
	r := newRig(t)
	used := false
	r.opts.InUse = func(id digest.Digest) []string {
		if used && id == f.riscv.id() {
			return []string{"0123456789abcdef"}
		}
		return nil
	}
	r.opts.Running = r.opts.InUse
	r.restart()
	r.load(layoutOf(t, indexOf(named(f.index.descriptor(), "multi:1")), f.blobs()...))
	if err := r.Tag("multi:1", "other", "2"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Remove(t.Context(), "multi:1", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.wantServed("other", f.all()...)
	used = true
	if _, err := r.Remove(t.Context(), "other:2", RemoveOptions{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("removed under a container: %v", err)
	}
	if _, err := r.Remove(t.Context(), "other:2", RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if list, err := r.List(t.Context(), ListOptions{}); err != nil || len(list) != 1 || list[0].ID != f.riscv.id().String() {
		t.Errorf("left: %+v, %v", list, err)
	}
	used = false
	if _, err := r.Remove(t.Context(), f.riscv.id().String(), RemoveOptions{}); err != nil {
		t.Error(err)
	}
	r.wantNothing()
}

// An index that leads back to itself, or to no end, is refused.
func TestIndexBad(t *testing.T) {
	r := newRig(t)
	docs := map[digest.Digest][]byte{}
	point := func(name string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString(name), Size: 1}
	}
	take := func(data []byte) error {
		// The digests of the documents lie, or there could be no circle.
		tk := &indexTaker{m: r.Manager, in: r.begin(), path: map[digest.Digest]bool{}, seen: map[digest.Digest]bool{}, rec: &indexRecord{},
			bytes: func(_ context.Context, d ocispec.Descriptor) ([]byte, error) { return docs[d.Digest], nil }}
		defer tk.in.end()
		return tk.all(t.Context(), point("top"), data)
	}
	docs[digest.FromString("a")] = mustJSON(t, indexOf(point("b")))
	docs[digest.FromString("b")] = mustJSON(t, indexOf(point("top")))
	if err := take(mustJSON(t, indexOf(point("a")))); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "refers to itself") {
		t.Errorf("a circle: %v", err)
	}
	var many []ocispec.Descriptor
	for i := range maxManifests + 1 {
		d := point(string(rune('A' + i)))
		docs[d.Digest] = mustJSON(t, indexOf())
		many = append(many, d)
	}
	if err := take(mustJSON(t, indexOf(many...))); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "leads to more than") {
		t.Errorf("without end: %v", err)
	}
	for i := range maxDepth + 1 {
		docs[point(strings.Repeat("n", i)).Digest] = mustJSON(t, indexOf(point(strings.Repeat("n", i+1))))
	}
	if err := take(mustJSON(t, indexOf(point("n")))); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "nested more than") {
		t.Errorf("too deep: %v", err)
	}
	r.wantNothing()
}
