// Package depottest is the conformance suite of depot.Depot: what every
// implementation must do, as tests.
package depottest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// Opener opens the same depot each time it is called, which is a restart after
// the first time; the depot of before is closed by it
type Opener func(t *testing.T) depot.Depot

// Run runs the suite. start gives a new, empty place for a depot.
func Run(t *testing.T, start func(t *testing.T) Opener) {
	for _, c := range []struct {
		name string
		f    func(t *testing.T, open Opener)
	}{
		{"Blobs", blobs},
		{"Lies", lies},
		{"Uploads", uploads},
		{"UploadsSurviveRestart", uploadsSurvive},
		{"UploadsExpire", uploadsExpire},
		{"Mounts", mounts},
		{"Manifests", manifests},
		{"Tags", tags},
		{"Referrers", referrers},
		{"Lists", lists},
		{"Deletes", deletes},
		{"Drops", drops},
		{"Names", names},
		{"Records", records},
		{"EverythingSurvivesRestart", survives},
		{"Concurrent", concurrent},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.f(t, start(t))
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isNotFound(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("not a not-found error: %v", err)
	}
}

var ctx = context.Background()

// noise is n bytes that do not compress and are the same for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	r.Read(b)
	return b
}

// put stores data as a blob.
func put(t *testing.T, d depot.Depot, repository string, data []byte) digest.Digest {
	t.Helper()
	dgst := digest.FromBytes(data)
	info, err := d.Put(ctx, repository, dgst, int64(len(data)), bytes.NewReader(data))
	must(t, err)
	if info.Digest != dgst || info.Size != int64(len(data)) || time.Since(info.Time).Abs() > time.Hour {
		t.Errorf("put: %+v", info)
	}
	return dgst
}

// get reads a blob whole.
func get(t *testing.T, d depot.Depot, repository string, dgst digest.Digest) []byte {
	t.Helper()
	r, info, err := d.Open(ctx, repository, dgst)
	must(t, err)
	defer r.Close()
	data, err := io.ReadAll(r)
	must(t, err)
	if info.Size != int64(len(data)) {
		t.Errorf("%s: %d bytes, said to be %d", dgst, len(data), info.Size)
	}
	return data
}

// manifest puts a manifest that names the blobs.
func manifest(t *testing.T, d depot.Depot, repository string, m depot.Manifest, text string, tags ...string) depot.Manifest {
	t.Helper()
	m.Digest, m.Size = digest.FromString(text), int64(len(text))
	if m.MediaType == "" {
		m.MediaType = "application/vnd.oci.image.manifest.v1+json"
	}
	m.Pushed = time.Now().UTC()
	must(t, d.PutManifest(ctx, repository, m, []byte(text), depot.PutOptions{Tags: tags}))
	return m
}

// sizes are around every border an implementation may have: nothing, what is
// small, what is in a file, what is in parts.
var sizes = []int{0, 1, 100, 16<<10 - 1, 16 << 10, 16<<10 + 1, 300_000, 6 << 20}

func blobs(t *testing.T, open Opener) {
	d := open(t)
	for i, n := range sizes {
		data := noise(uint64(i), n)
		dgst := digest.FromBytes(data)
		_, err := d.Stat(ctx, "team/app", dgst)
		isNotFound(t, err)
		_, _, err = d.Open(ctx, "team/app", dgst)
		isNotFound(t, err)
		put(t, d, "team/app", data)
		put(t, d, "team/app", data) // again is no error
		info, err := d.Stat(ctx, "team/app", dgst)
		must(t, err)
		if info.Size != int64(n) || info.Digest != dgst {
			t.Errorf("%d bytes: %+v", n, info)
		}
		if !bytes.Equal(get(t, d, "team/app", dgst), data) {
			t.Errorf("%d bytes came back as others", n)
		}
		seek(t, d, dgst, data)
		_, err = d.Stat(ctx, "team/other", dgst)
		isNotFound(t, err) // it is not theirs
		_, _, err = d.Open(ctx, "team/other", dgst)
		isNotFound(t, err)
	}
	data := noise(99, 50_000)
	long := digest.SHA512.FromBytes(data)
	_, err := d.Put(ctx, "team/app", long, -1, bytes.NewReader(data))
	must(t, err)
	if !bytes.Equal(get(t, d, "team/app", long), data) {
		t.Error("a sha512 blob came back as another")
	}
}

// seek reads from the middle, as Range requests do.
func seek(t *testing.T, d depot.Depot, dgst digest.Digest, data []byte) {
	t.Helper()
	r, _, err := d.Open(ctx, "team/app", dgst)
	must(t, err)
	defer r.Close()
	end, err := r.Seek(0, io.SeekEnd)
	if err != nil || end != int64(len(data)) {
		t.Fatalf("the end is at %d of %d: %v", end, len(data), err)
	}
	half := int64(len(data) / 2)
	_, err = r.Seek(half, io.SeekStart)
	must(t, err)
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(rest, data[half:]) {
		t.Fatalf("from %d: %d bytes, %v", half, len(rest), err)
	}
}

func lies(t *testing.T, open Opener) {
	d := open(t)
	for i, n := range []int{10, 100_000} {
		data := noise(uint64(i), n)
		right, wrong := digest.FromBytes(data), digest.FromString("something else")
		var mismatch *depot.Mismatch
		_, err := d.Put(ctx, "r", wrong, int64(n), bytes.NewReader(data))
		if !errors.As(err, &mismatch) || mismatch.Got != right || mismatch.Want != wrong || !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("another digest: %v", err)
		}
		for _, size := range []int{n - 1, n + 1} {
			if _, err := d.Put(ctx, "r", right, int64(size), bytes.NewReader(data)); !errors.As(err, &mismatch) {
				t.Errorf("another size: %v", err)
			}
		}
		cut := errors.New("cut")
		_, err = d.Put(ctx, "r", right, int64(n), io.MultiReader(bytes.NewReader(data[:n/2]), iotest.ErrReader(cut)))
		if !errors.Is(err, cut) {
			t.Errorf("cut off: %v", err)
		}
		for _, dgst := range []digest.Digest{right, wrong} {
			_, err := d.Stat(ctx, "r", dgst)
			isNotFound(t, err)
		}
	}
	if exists, err := d.Exists(ctx, "r"); err != nil || exists {
		t.Errorf("a repository came of nothing: %v, %v", exists, err)
	}
}

func mounts(t *testing.T, open Opener) {
	d := open(t)
	small, large := put(t, d, "a", noise(1, 100)), put(t, d, "a", noise(2, 100_000))
	for _, dgst := range []digest.Digest{small, large} {
		_, err := d.Mount(ctx, "nobody", "b", dgst)
		isNotFound(t, err)
		info, err := d.Mount(ctx, "a", "b", dgst)
		must(t, err)
		if info.Digest != dgst || info.Size == 0 {
			t.Errorf("%+v", info)
		}
		_, err = d.Mount(ctx, "a", "b", dgst) // again is no error
		must(t, err)
		get(t, d, "b", dgst)
		holders, err := d.Holders(ctx, dgst, "", -1)
		if err != nil || !slices.Equal(holders, []string{"a", "b"}) {
			t.Errorf("held by %v, %v", holders, err)
		}
		if holders, _ := d.Holders(ctx, dgst, "a", 1); !slices.Equal(holders, []string{"b"}) {
			t.Errorf("after a: %v", holders)
		}
		must(t, d.DeleteBlob(ctx, "a", dgst))
		_, err = d.Stat(ctx, "a", dgst)
		isNotFound(t, err)
		get(t, d, "b", dgst) // is theirs still
		must(t, d.DeleteBlob(ctx, "b", dgst))
		_, err = d.Mount(ctx, "b", "c", dgst)
		isNotFound(t, err)
	}
}

func manifests(t *testing.T, open Opener) {
	d := open(t)
	for i, n := range []int{50, 100_000, 4 << 20} {
		config, layer := put(t, d, "r", noise(uint64(i), 10)), put(t, d, "r", noise(uint64(i)+100, 1000))
		absent := digest.FromString("nowhere")
		body := string(noise(uint64(i)+200, n))
		m := depot.Manifest{
			MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digest.FromString(body), Size: int64(n),
			ArtifactType: "application/x-thing", Annotations: map[string]string{"a": "ä"},
			Blobs: []digest.Digest{config, layer}, Config: config, By: "ann",
		}
		_, _, err := d.Manifest(ctx, "r", m.Digest.String())
		isNotFound(t, err)
		bad := m
		bad.Blobs = []digest.Digest{config, absent}
		bad.Manifests = []digest.Digest{digest.FromString("also nowhere")}
		var missing *depot.Missing
		err = d.PutManifest(ctx, "r", bad, []byte(body), depot.PutOptions{Tags: []string{"t"}})
		if !errors.As(err, &missing) || !slices.Equal(missing.Digests, []digest.Digest{absent, bad.Manifests[0]}) {
			t.Fatalf("what is missing: %v", err)
		}
		_, err = d.Tag(ctx, "r", "t")
		isNotFound(t, err)
		must(t, d.PutManifest(ctx, "r", bad, []byte(body), depot.PutOptions{Sparse: true}))
		must(t, d.DeleteManifest(ctx, "r", m.Digest))
		m.Optional = []digest.Digest{absent}
		m.Pushed = time.Now().UTC()
		must(t, d.PutManifest(ctx, "r", m, []byte(body), depot.PutOptions{Tags: []string{"t", "u"}}))
		for _, reference := range []string{"t", "u", m.Digest.String()} {
			got, text, err := d.Manifest(ctx, "r", reference)
			must(t, err)
			if string(text) != body || !reflect.DeepEqual(got, m) {
				t.Errorf("%s: %d bytes, %+v\nnot %+v", reference, len(text), got, m)
			}
			got, err = d.StatManifest(ctx, "r", reference)
			if err != nil || !reflect.DeepEqual(got, m) {
				t.Errorf("%s: %+v, %v", reference, got, err)
			}
		}
		if _, err := d.Stat(ctx, "r", m.Digest); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("a manifest is a blob: %v", err)
		}
		_, _, err = d.Manifest(ctx, "other", m.Digest.String())
		isNotFound(t, err)
		must(t, d.DeleteTag(ctx, "r", "t"))
		must(t, d.DeleteTag(ctx, "r", "u"))
	}
}

func tags(t *testing.T, open Opener) {
	d := open(t)
	one, two := manifest(t, d, "r", depot.Manifest{By: "ann"}, "one", "latest", "v1"), manifest(t, d, "r", depot.Manifest{By: "bob"}, "two", "latest")
	tag, err := d.Tag(ctx, "r", "latest")
	must(t, err)
	if tag.Digest != two.Digest || tag.By != "bob" || !tag.Time.Equal(two.Pushed) || tag.Name != "latest" {
		t.Errorf("%+v", tag)
	}
	if m, _ := d.StatManifest(ctx, "r", "v1"); m.Digest != one.Digest {
		t.Errorf("v1 is %s", m.Digest)
	}
	get, err := d.StatManifest(ctx, "r", one.Digest.String())
	if err != nil || get.Digest != one.Digest {
		t.Errorf("what lost a tag is gone: %v", err)
	}
	must(t, d.DeleteTag(ctx, "r", "latest"))
	isNotFound(t, d.DeleteTag(ctx, "r", "latest"))
	_, err = d.StatManifest(ctx, "r", "latest")
	isNotFound(t, err)
	// A deleted manifest takes its tags along, and no others.
	manifest(t, d, "r", depot.Manifest{}, "two", "x", "y")
	must(t, d.DeleteManifest(ctx, "r", two.Digest))
	if left, err := d.Tags(ctx, "r", "", -1); err != nil || !slices.Equal(left, []string{"v1"}) {
		t.Errorf("%v, %v", left, err)
	}
}

func referrers(t *testing.T, open Opener) {
	d := open(t)
	subject := digest.FromString("subject") // is not there, and need not be
	var want []depot.Manifest
	for i := range 7 {
		want = append(want, manifest(t, d, "r", depot.Manifest{
			Subject: subject, ArtifactType: fmt.Sprintf("application/t%d", i%2), Annotations: map[string]string{"i": fmt.Sprint(i)},
		}, fmt.Sprint("referrer ", i)))
	}
	manifest(t, d, "r", depot.Manifest{Subject: digest.FromString("another")}, "of another")
	manifest(t, d, "other", depot.Manifest{Subject: subject}, "elsewhere")
	slices.SortFunc(want, func(a, b depot.Manifest) int { return bytes.Compare([]byte(a.Digest), []byte(b.Digest)) })
	var got []depot.Manifest
	for after := ""; ; {
		page, err := d.Referrers(ctx, "r", subject, after, 3)
		must(t, err)
		got = append(got, page...)
		if len(page) < 3 {
			break
		}
		after = page[len(page)-1].Digest.String()
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nnot %+v", got, want)
	}
	must(t, d.DeleteManifest(ctx, "r", want[2].Digest))
	if left, err := d.Referrers(ctx, "r", subject, "", -1); err != nil || len(left) != 6 {
		t.Errorf("%d left, %v", len(left), err)
	}
}

func lists(t *testing.T, open Opener) {
	d := open(t)
	// Names of which one begins with another, and what sorts around "/".
	repositories := []string{"a", "a-b", "a.b", "a/b", "a/b/c", "a0", "ab", "b"}
	for _, name := range repositories {
		manifest(t, d, name, depot.Manifest{}, "m of "+name, "only")
	}
	tags := []string{"1", "10", "2", "A", "Z", "_", "a", "a-b", "a.b", "latest"}
	for _, tag := range tags {
		manifest(t, d, "a", depot.Manifest{}, "m", tag)
	}
	must(t, d.DeleteTag(ctx, "a", "only"))
	pages := func(want []string, list func(after string, n int) ([]string, error)) {
		t.Helper()
		for _, n := range []int{-1, 1, 3, 100} {
			var got []string
			for after := ""; ; after = got[len(got)-1] {
				page, err := list(after, n)
				must(t, err)
				if n > 0 && len(page) > n {
					t.Fatalf("%d of at most %d", len(page), n)
				}
				got = append(got, page...)
				if n < 0 || len(page) < n {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("in pages of %d: %q, not %q", n, got, want)
			}
		}
	}
	pages(repositories, func(after string, n int) ([]string, error) { return d.Repositories(ctx, after, n) })
	pages(tags, func(after string, n int) ([]string, error) { return d.Tags(ctx, "a", after, n) })
	if got, err := d.Tags(ctx, "a", "ZZZ", 1); err != nil || !slices.Equal(got, []string{"_"}) {
		t.Errorf("after what is not there: %q, %v", got, err)
	}
	if got, err := d.Tags(ctx, "nobody", "", -1); err != nil || len(got) != 0 {
		t.Errorf("of no repository: %q, %v", got, err)
	}
	if got, err := d.Manifests(ctx, "a/b", "", -1); err != nil || !slices.Equal(got, []digest.Digest{digest.FromString("m of a/b")}) {
		t.Errorf("manifests: %q, %v", got, err)
	}
	for _, name := range []string{"a", "a/b/c"} {
		if exists, err := d.Exists(ctx, name); err != nil || !exists {
			t.Errorf("%s: %v, %v", name, exists, err)
		}
	}
	if exists, err := d.Exists(ctx, "a/b/c/d"); err != nil || exists {
		t.Errorf("%v, %v", exists, err)
	}
}
