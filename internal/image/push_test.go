package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (r *rig) push(ref string, opts PushOptions) string {
	r.t.Helper()
	var out messages
	opts.Progress = func(m jsonstream.Message) {
		if m.ID != "" && m.Progress == nil {
			r.t.Errorf("%s: %s is no step of a layer: a terminal would keep its bar beside it", m.ID, m.Status)
		}
		out.add(m)
	}
	if err := r.Push(context.Background(), ref, opts); err != nil {
		r.t.Fatalf("push %s: %v", ref, err)
	}
	return out.text()
}

// at asks a registry for the bytes of a manifest.
func at(t *testing.T, addr, repository, ref string) (data []byte, mediaType string) {
	t.Helper()
	req, err := http.NewRequest("GET", "http://"+addr+"/v2/"+repository+"/manifests/"+ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", strings.Join([]string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex,
		"application/vnd.docker.distribution.manifest.v2+json"}, ","))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, _ = io.ReadAll(resp.Body)
	if resp.StatusCode != 200 {
		return nil, ""
	}
	return data, resp.Header.Get("Content-Type")
}

func (r *rig) tag(from, repo, tag string) {
	r.t.Helper()
	if err := r.Tag(from, repo, tag); err != nil {
		r.t.Fatal(err)
	}
}

// What was pulled or loaded arrives as the very same manifest, and is not sent
// twice: also not to another repository, and not after a restart.
func TestPushIsByteExact(t *testing.T) {
	addr := startRegistry(t)
	r := newRig(t)
	img := makeImage(t, host, map[string]string{"a": "1"}, map[string]string{"b": "2"})
	r.load(layoutOf(t, indexOf(named(img.descriptor(), "x:1")), img.blobs()))
	r.tag("x:1", addr+"/a/web", "1")
	out := r.push(addr+"/a/web:1", PushOptions{})
	info, err := r.Resolve(t.Context(), "x:1", nil)
	if err != nil {
		t.Fatal(err)
	}
	id := short(info.Layers[0])
	for _, want := range []string{"The push refers to repository [" + addr + "/a/web]\n", id + ": Preparing\n", id + ": Pushed\n",
		"1: digest: " + img.digest().String() + " size: "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if data, kind := at(t, addr, "a/web", "1"); !bytes.Equal(data, img.manifest) || kind != img.mediaTyp {
		t.Errorf("the registry has %s %s", kind, data)
	}
	if got := r.digests(addr + "/a/web:1"); !slices.Equal(got, []string{addr + "/a/web@" + img.digest().String()}) {
		t.Errorf("digests: %v", got)
	}
	if out := r.push(addr+"/a/web:1", PushOptions{}); strings.Count(out, ": Layer already exists\n") != 2 {
		t.Errorf("the second push said:\n%s", out)
	}
	r.restart()
	r.tag("x:1", addr+"/b/web", "2")
	r.tag("x:1", addr+"/b/web", "3")
	if out := r.push(addr+"/b/web", PushOptions{AllTags: true}); strings.Count(out, ": Mounted from a/web\n") != 2 ||
		!strings.Contains(out, "2: digest: ") || !strings.Contains(out, "3: digest: ") {
		t.Errorf("the push to another repository said:\n%s", out)
	}
	if data, _ := at(t, addr, "b/web", "3"); !bytes.Equal(data, img.manifest) {
		t.Error("the other repository has another manifest")
	}
	pulled := newRig(t)
	pulled.pull(addr + "/a/web:1")
	pulled.tag(addr+"/a/web:1", addr+"/c/web", "1")
	if out := pulled.push(addr+"/c/web:1", PushOptions{}); strings.Count(out, ": Mounted from a/web\n") != 2 {
		t.Errorf("the push of what was pulled said:\n%s", out)
	}
	if got := strings.TrimSpace(run(t, "skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+addr+"/c/web:1")); got != img.digest().String() {
		t.Errorf("skopeo finds %s", got)
	}
}

// What was made here is compressed when it goes out for the first time, stays
// the same image, and does not stay here twice.
func TestPushOfWhatWasMadeHere(t *testing.T) {
	addr := startRegistry(t)
	r := newRig(t)
	base, err := r.Import(t.Context(), bytes.NewReader(tarball(t, map[string]string{"big": strings.Repeat("long ", 50000)})), ImportOptions{Repo: "base"})
	if err != nil {
		t.Fatal(err)
	}
	id, _, err := r.Commit(t.Context(), CommitOptions{Parent: base, Diff: oneFile("more", "x"), Repo: addr + "/made", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	before, _ := r.Resolve(t.Context(), id.String(), nil)
	r.push(addr+"/made:1", PushOptions{})
	data, _ := at(t, addr, "made", "1")
	var manifest ocispec.Manifest
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.Config.Digest != id || len(manifest.Layers) != 2 || manifest.Layers[0].MediaType != ocispec.MediaTypeImageLayerGzip || manifest.Layers[0].Size > 10000 {
		t.Errorf("pushed %s", data)
	}
	after, err := r.Resolve(t.Context(), addr+"/made:1", nil)
	if err != nil || after.ID != id || !slices.Equal(before.Layers, after.Layers) || after.Manifest != digest.FromBytes(data) {
		t.Errorf("the image is now %+v, %v", after, err)
	}
	if _, err := r.opts.Content.Stat(before.Layers[1]); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error("the layer is kept uncompressed as well")
	}
	blobs, _, _ := r.left()
	if out := r.push(addr+"/made:1", PushOptions{}); strings.Contains(out, "Compressing") || strings.Count(out, "already exists") != 2 {
		t.Errorf("the second push said:\n%s", out)
	}
	r.restart()
	if n, _, _ := r.left(); n != blobs {
		t.Errorf("%d blobs after a restart, %d before", n, blobs)
	}
	// The layer below is still as it was for its own image, and goes as the
	// same bytes.
	r.tag("base", addr+"/base", "1")
	if out := r.push(addr+"/base:1", PushOptions{}); !strings.Contains(out, "Mounted from made") {
		t.Errorf("the push of the base said:\n%s", out)
	}
	other := newRig(t)
	other.pull(addr + "/made:1")
	if got, err := other.Resolve(t.Context(), addr+"/made:1", nil); err != nil || got.ID != id {
		t.Errorf("pulled %+v, %v", got, err)
	}
	for _, ref := range []string{addr + "/made:1", addr + "/base:1", "base"} {
		if _, err := r.Remove(t.Context(), ref, RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
	r.wantNothing()
}

func TestPushIndex(t *testing.T) {
	addr := startRegistry(t)
	f := makeFamily(t)
	r := newRig(t)
	r.load(layoutOf(t, indexOf(named(f.index.descriptor(), "multi:1")), f.blobs()...))
	r.tag("multi:1", addr+"/multi", "1")
	r.push(addr+"/multi:1", PushOptions{})
	if data, _ := at(t, addr, "multi", "1"); !bytes.Equal(data, f.index.manifest) {
		t.Errorf("the index is now %s", data)
	}
	whole := newRig(t)
	whole.pullWith(addr+"/multi:1", PullOptions{AllPlatforms: true})
	whole.wantServed(addr+"/multi", f.all()...)

	r.tag("multi:1", addr+"/one", "1")
	r.push(addr+"/one:1", PushOptions{Platform: &riscv})
	if data, _ := at(t, addr, "one", "1"); !bytes.Equal(data, f.riscv.manifest) {
		t.Errorf("of riscv64 alone was pushed %s", data)
	}
	s390 := ocispec.Platform{OS: "linux", Architecture: "s390x"}
	if err := r.Push(t.Context(), addr+"/one:1", PushOptions{Platform: &s390}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a platform that is not here: %v", err)
	}

	// A part of an index goes as the image it is, unless the rest is there.
	part := newRig(t)
	part.pull(addr + "/multi:1")
	part.tag(addr+"/multi:1", addr+"/multi", "again")
	part.push(addr+"/multi:again", PushOptions{})
	if data, _ := at(t, addr, "multi", "again"); !bytes.Equal(data, f.index.manifest) {
		t.Errorf("to where the rest is, was pushed %s", data)
	}
	part.tag(addr+"/multi:1", addr+"/part", "1")
	var out messages
	if err := part.Push(t.Context(), addr+"/part:1", PushOptions{Progress: out.add}); err != nil {
		t.Fatal(err)
	}
	if data, _ := at(t, addr, "part", "1"); !bytes.Equal(data, f.host.manifest) {
		t.Errorf("of a part was pushed %s", data)
	}
	told := slices.ContainsFunc(out.list, func(m jsonstream.Message) bool {
		var note auxprogress.ManifestPushedInsteadOfIndex
		return m.Aux != nil && json.Unmarshal(*m.Aux, &note) == nil && note.ManifestPushedInsteadOfIndex &&
			note.SelectedManifest.Digest == f.host.digest() && note.OriginalIndex.Digest == f.index.digest()
	})
	if !told {
		t.Error("nobody was told that the index did not go")
	}
}

// A layer that is here in another compression than the manifest says goes as
// the manifest says where the registry has that, and as it is elsewhere.
func TestPushOfAnotherCompression(t *testing.T) {
	from, to := startRegistry(t), startRegistry(t)
	files := map[string]string{"a": "the same"}
	img := makeImage(t, host, files)
	seed := newRig(t)
	seed.load(layoutOf(t, indexOf(named(img.descriptor(), from+"/web:1")), img.blobs()))
	seed.push(from+"/web:1", PushOptions{})

	r := newRig(t)
	if _, err := r.Import(t.Context(), bytes.NewReader(tarball(t, files)), ImportOptions{Repo: "plain"}); err != nil {
		t.Fatal(err)
	}
	r.pull(from + "/web:1") // has the layer already
	if _, err := r.opts.Content.Stat(digest.FromBytes(img.layers[0])); !errors.Is(err, errdefs.ErrNotFound) {
		t.Skip("the blob was fetched though the layer was here: there is nothing to see")
	}
	r.tag(from+"/web:1", from+"/other", "1")
	r.push(from+"/other:1", PushOptions{})
	if data, _ := at(t, from, "other", "1"); !bytes.Equal(data, img.manifest) {
		t.Errorf("in the same registry: %s", data)
	}
	r.tag(from+"/web:1", to+"/web", "1")
	r.push(to+"/web:1", PushOptions{})
	pulled := newRig(t)
	pulled.pull(to + "/web:1")
	if got, err := pulled.Resolve(t.Context(), to+"/web:1", nil); err != nil || got.ID != img.id() {
		t.Errorf("in another one: %+v, %v", got, err)
	}
	r.restart()
	if _, err := r.Resolve(t.Context(), to+"/web:1", nil); err != nil {
		t.Error(err)
	}
}

// An image that is removed while it is pushed arrives whole, and stays removed.
func TestRemoveDuringPush(t *testing.T) {
	addr := startRegistry(t)
	r := newRig(t)
	img := makeImage(t, host, map[string]string{"a": "1"}, map[string]string{"b": "2"})
	r.load(layoutOf(t, indexOf(named(img.descriptor(), "x:1")), img.blobs()))
	behind, err := url.Parse("http://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	proxy := httputil.NewSingleHostReverseProxy(behind)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPost {
			once.Do(func() {
				for _, ref := range []string{"x:1", req.Host + "/gone:1"} {
					if _, err := r.Remove(context.Background(), ref, RemoveOptions{}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		proxy.ServeHTTP(w, req)
	}))
	defer front.Close()
	here := strings.TrimPrefix(front.URL, "http://")
	r.tag("x:1", here+"/gone", "1")
	r.push(here+"/gone:1", PushOptions{})
	if data, _ := at(t, addr, "gone", "1"); !bytes.Equal(data, img.manifest) {
		t.Errorf("the registry has %q", data)
	}
	if n := r.Count(); n != 0 {
		t.Errorf("%d images came back", n)
	}
	r.wantNothing()
}

func TestPushErrors(t *testing.T) {
	r := newRig(t)
	h := newHub(t) // takes nothing
	img := makeImage(t, host, map[string]string{"a": "1"})
	r.load(layoutOf(t, indexOf(named(img.descriptor(), h.host()+"/x:1")), img.blobs()))
	for _, tt := range []struct {
		ref   string
		opts  PushOptions
		class error
		text  string
	}{
		{h.host() + "/x:2", PushOptions{}, errdefs.ErrNotFound, "An image does not exist locally with the tag: " + h.host() + "/x"},
		{h.host() + "/y", PushOptions{AllTags: true}, errdefs.ErrNotFound, "does not exist locally"},
		{"x@" + digest.FromString("x").String(), PushOptions{}, errdefs.ErrInvalidArgument, "cannot push a digest reference"},
		{"UPPER", PushOptions{}, errdefs.ErrInvalidArgument, "lowercase"},
		{h.host() + "/x:1", PushOptions{}, errdefs.ErrNotFound, "cannot push " + h.host() + "/x:1: "},
	} {
		if err := r.Push(t.Context(), tt.ref, tt.opts); !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v", tt.ref, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Push(ctx, h.host()+"/x:1", PushOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its client went: %v", err)
	}
	if pins := len(r.pins.blobs) + len(r.pins.layers); pins != 0 {
		t.Errorf("%d things stay pinned", pins)
	}
}

// A push gives an image that was made here another manifest, of compressed
// layers. When the engine ends between the records of that, the tag stands for
// the image as it is now.
func TestKilledBetweenManifests(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	id, err := r.Import(ctx, bytes.NewReader(tarball(t, map[string]string{"file": "text"})), ImportOptions{Repo: "made", Tag: "1"})
	if err != nil {
		t.Fatal(err)
	}
	const key = "docker.io/library/made:1"
	before, ok := r.byRef[key]
	if !ok {
		t.Fatalf("there is no %s in %v", key, r.byRef)
	}
	old, err := r.opts.Content.ReadAll(before.Target.Digest, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	p := &pusher{m: r.Manager, in: r.begin(), out: newPrinter(nil)}
	did, err := p.compress(ctx, id)
	p.in.end()
	if err != nil || !did {
		t.Fatal(did, err)
	}
	blobs, _, _ := r.left()
	// The last write had not come.
	if _, _, err := r.opts.Content.Put(ctx, bytes.NewReader(old), before.Target.Digest, -1); err != nil {
		t.Fatal(err)
	}
	if err := r.refs.Put(key, &before); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what was found at the first start is not lost at the second
		r.restart()
		e, target, err := r.findTarget("made:1")
		if err != nil || e.id != id || target.Digest != e.Manifest.Digest || target.Digest == before.Target.Digest {
			t.Fatalf("the tag stands for %v of %v, %v", target.Digest, e, err)
		}
		if now, _, _ := r.left(); now != blobs {
			t.Errorf("there are %d blobs, want %d", now, blobs)
		}
	}
}
