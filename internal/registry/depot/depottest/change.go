package depottest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

func start(t *testing.T, d depot.Depot, repository string) depot.Upload {
	t.Helper()
	u, err := d.StartUpload(ctx, repository, "")
	must(t, err)
	if len(u.ID()) != 36 || u.Size() != 0 {
		t.Errorf("upload %q of %d bytes", u.ID(), u.Size())
	}
	return u
}

func uploads(t *testing.T, open Opener) {
	d := open(t)
	for i, n := range sizes {
		for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
			data := noise(uint64(i), n)
			dgst := algorithm.FromBytes(data)
			u := start(t, d, "r")
			for part := range slices.Chunk(data[:n/2], n/6+1) { // in requests of their own
				must(t, u.Close())
				again, err := d.Upload(ctx, "r", u.ID())
				must(t, err)
				got, err := again.ReadFrom(bytes.NewReader(part))
				if err != nil || got != int64(len(part)) {
					t.Fatalf("%d of %d bytes, %v", got, len(part), err)
				}
				if again.Size() != u.Size()+got {
					t.Fatalf("%d bytes after %d and %d", again.Size(), u.Size(), got)
				}
				u = again
			}
			info, err := u.Commit(ctx, dgst, bytes.NewReader(data[n/2:]))
			must(t, err)
			if info.Size != int64(n) || info.Digest != dgst {
				t.Errorf("%+v", info)
			}
			if !bytes.Equal(get(t, d, "r", dgst), data) {
				t.Error("other bytes came back")
			}
			_, err = d.Upload(ctx, "r", u.ID())
			isNotFound(t, err)
		}
	}
	cancelled(t, d)
	wrong(t, d)
	cut(t, d)
}

func cancelled(t *testing.T, d depot.Depot) {
	u := start(t, d, "r")
	_, err := u.ReadFrom(strings.NewReader("never mind"))
	must(t, err)
	_, err = d.Upload(ctx, "other", u.ID())
	isNotFound(t, err) // it is not theirs
	must(t, u.Cancel(ctx))
	_, err = d.Upload(ctx, "r", u.ID())
	isNotFound(t, err)
	for _, id := range []string{"", ".", "..", "../../depot.db", strings.Repeat("a", 36), strings.Repeat("x", 3000)} {
		_, err := d.Upload(ctx, "r", id)
		isNotFound(t, err)
	}
}

func wrong(t *testing.T, d depot.Depot) {
	for _, n := range []int{3, 70_000} {
		u := start(t, d, "r")
		_, err := u.ReadFrom(bytes.NewReader(noise(50, n)))
		must(t, err)
		var mismatch *depot.Mismatch
		if _, err := u.Commit(ctx, digest.FromString("not this"), nil); !errors.As(err, &mismatch) {
			t.Errorf("wrong digest: %v", err)
		}
		_, err = d.Upload(ctx, "r", u.ID())
		isNotFound(t, err)
	}
}

// cut loses the connection in the middle of bytes, and goes on.
func cut(t *testing.T, d depot.Depot) {
	for _, n := range []int{1000, 400_000} {
		data := noise(60, n)
		u := start(t, d, "r")
		gone := errors.New("gone")
		if _, err := u.ReadFrom(io.MultiReader(bytes.NewReader(data[:n/3]), iotest.ErrReader(gone))); !errors.Is(err, gone) {
			t.Errorf("cut in ReadFrom: %v", err)
		}
		must(t, u.Close())
		u, err := d.Upload(ctx, "r", u.ID())
		must(t, err)
		if u.Size() != int64(n/3) {
			t.Fatalf("%d bytes are kept of %d", u.Size(), n/3)
		}
		rest := io.MultiReader(bytes.NewReader(data[n/3:n/2]), iotest.ErrReader(gone))
		if _, err := u.Commit(ctx, digest.FromBytes(data), rest); !errors.Is(err, gone) {
			t.Errorf("cut in Commit: %v", err)
		}
		must(t, u.Close())
		u, err = d.Upload(ctx, "r", u.ID())
		must(t, err)
		if u.Size() != int64(n/2) {
			t.Fatalf("%d bytes are kept of %d", u.Size(), n/2)
		}
		_, err = u.Commit(ctx, digest.FromBytes(data), bytes.NewReader(data[n/2:]))
		must(t, err)
		if !bytes.Equal(get(t, d, "r", digest.FromBytes(data)), data) {
			t.Error("other bytes came back")
		}
	}
}

func uploadsSurvive(t *testing.T, open Opener) {
	for _, n := range []int{100, 100_000, 11 << 20} {
		d := open(t)
		data := noise(uint64(n), n)
		u := start(t, d, "r")
		_, err := u.ReadFrom(bytes.NewReader(data[:n/2]))
		must(t, err)
		must(t, u.Close())
		d = open(t)
		u, err = d.Upload(ctx, "r", u.ID())
		must(t, err)
		if u.Size() != int64(n/2) {
			t.Fatalf("%d bytes after a restart, not %d", u.Size(), n/2)
		}
		_, err = u.ReadFrom(bytes.NewReader(data[n/2 : n/2+10]))
		must(t, err)
		_, err = u.Commit(ctx, digest.FromBytes(data), bytes.NewReader(data[n/2+10:]))
		must(t, err)
		if !bytes.Equal(get(t, d, "r", digest.FromBytes(data)), data) {
			t.Error("other bytes came back")
		}
	}
}

func uploadsExpire(t *testing.T, open Opener) {
	d := open(t)
	u := start(t, d, "r")
	_, err := u.ReadFrom(strings.NewReader("abandoned"))
	must(t, err)
	must(t, u.Close())
	if n, err := d.ExpireUploads(ctx, time.Now().Add(-time.Hour)); err != nil || n != 0 {
		t.Errorf("a young one: %d, %v", n, err)
	}
	if n, err := d.ExpireUploads(ctx, time.Now().Add(time.Hour)); err != nil || n != 1 {
		t.Errorf("an old one: %d, %v", n, err)
	}
	_, err = d.Upload(ctx, "r", u.ID())
	isNotFound(t, err)
}

func deletes(t *testing.T, open Opener) {
	d := open(t)
	nowhere := digest.FromString("nowhere")
	isNotFound(t, d.DeleteBlob(ctx, "r", nowhere))
	isNotFound(t, d.DeleteManifest(ctx, "r", nowhere))
	for _, n := range []int{100, 100_000} {
		dgst := put(t, d, "r", noise(1, n))
		open, _, err := d.Open(ctx, "r", dgst)
		must(t, err)
		m := manifest(t, d, "r", depot.Manifest{Blobs: []digest.Digest{dgst}}, string(noise(9, n)), "t")
		if err := d.DeleteBlob(ctx, "r", dgst); !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), m.Digest.String()) {
			t.Errorf("a blob that is named: %v", err)
		}
		must(t, d.DeleteManifest(ctx, "r", m.Digest))
		must(t, d.DeleteBlob(ctx, "r", dgst))
		_, err = d.Stat(ctx, "r", dgst)
		isNotFound(t, err)
		if data, err := io.ReadAll(open); err != nil || len(data) != n {
			t.Errorf("an open blob: %d bytes, %v", len(data), err)
		}
		open.Close()
		put(t, d, "r", noise(1, n)) // and back
		get(t, d, "r", dgst)
		must(t, d.DeleteBlob(ctx, "r", dgst))
	}
}

// drops holds what a collection may take against what it may not.
func drops(t *testing.T, open Opener) {
	d := open(t)
	now := func() time.Time { return time.Now().Add(time.Millisecond) } // later than every hold so far
	early := time.Now().Add(-time.Hour)
	for _, n := range []int{100, 100_000} {
		dgst := put(t, d, "r", noise(3, n))
		drop := func(before time.Time, want bool, why string) {
			t.Helper()
			got, freed, err := d.Drop(ctx, "r", dgst, before)
			must(t, err)
			if got != want || got && freed != int64(n) {
				t.Errorf("%s: dropped %v, freed %d", why, got, freed)
			}
		}
		drop(early, false, "put after the time")
		m := manifest(t, d, "r", depot.Manifest{Blobs: []digest.Digest{dgst}}, fmt.Sprint("m", n), "t")
		drop(now(), false, "named by a manifest")
		dropped, err := d.DropManifest(ctx, "r", m.Digest, now())
		if err != nil || dropped {
			t.Errorf("a manifest with a tag was dropped: %v, %v", dropped, err)
		}
		must(t, d.DeleteTag(ctx, "r", "t"))
		if dropped, err := d.DropManifest(ctx, "r", m.Digest, early); err != nil || dropped {
			t.Errorf("a young manifest was dropped: %v, %v", dropped, err)
		}
		index := manifest(t, d, "r", depot.Manifest{Manifests: []digest.Digest{m.Digest}}, fmt.Sprint("index", n), "i")
		if dropped, err := d.DropManifest(ctx, "r", m.Digest, now()); err != nil || dropped {
			t.Errorf("a manifest of an index was dropped: %v, %v", dropped, err)
		}
		must(t, d.DeleteManifest(ctx, "r", index.Digest))
		if dropped, err := d.DropManifest(ctx, "r", m.Digest, now()); err != nil || !dropped {
			t.Errorf("a manifest nobody names stayed: %v, %v", dropped, err)
		}
		drop(early, false, "held by the deleted manifest")
		_, err = d.Stat(ctx, "r", dgst)
		must(t, err)
		drop(early, false, "held by Stat")
		drop(now(), true, "held by nobody")
		drop(now(), false, "not there")
		_, err = d.Stat(ctx, "r", dgst)
		isNotFound(t, err)
	}
	dropTags(t, d)
	if dropped, err := d.DropRepository(ctx, "r", early); err != nil || dropped {
		t.Errorf("a young repository: %v, %v", dropped, err)
	}
	if dropped, err := d.DropRepository(ctx, "r", now()); err != nil || !dropped {
		t.Errorf("an empty repository: %v, %v", dropped, err)
	}
	if exists, err := d.Exists(ctx, "r"); err != nil || exists {
		t.Errorf("%v, %v", exists, err)
	}
	put(t, d, "full", []byte("x"))
	if dropped, err := d.DropRepository(ctx, "full", now()); err != nil || dropped {
		t.Errorf("a full repository: %v, %v", dropped, err)
	}
	_, err := d.Sweep(ctx, now())
	must(t, err)
}

func dropTags(t *testing.T, d depot.Depot) {
	m := manifest(t, d, "r", depot.Manifest{}, "first", "t")
	old, err := d.Tag(ctx, "r", "t")
	must(t, err)
	m2 := manifest(t, d, "r", depot.Manifest{}, "second", "t")
	if dropped, err := d.DropTag(ctx, "r", old); err != nil || dropped {
		t.Errorf("a tag that has moved was dropped: %v, %v", dropped, err)
	}
	current, err := d.Tag(ctx, "r", "t")
	must(t, err)
	if dropped, err := d.DropTag(ctx, "r", current); err != nil || !dropped {
		t.Errorf("a tag stayed: %v, %v", dropped, err)
	}
	must(t, d.DeleteManifest(ctx, "r", m.Digest))
	must(t, d.DeleteManifest(ctx, "r", m2.Digest))
}

// names are those that must never become paths or keys.
func names(t *testing.T, open Opener) {
	d := open(t)
	dgst := digest.FromString("x")
	for _, name := range []string{"", "..", "../x", "a/../b", "/a", "a/", "A", "a b", "a\x00b", "a//b", "-a", "a_", "a..b", "a___b", strings.Repeat("a", 256)} {
		_, err := d.Put(ctx, name, dgst, 1, strings.NewReader("x"))
		if !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("repository %q: %v", name, err)
		}
		if _, err := d.StartUpload(ctx, name, ""); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("repository %q: %v", name, err)
		}
	}
	for _, bad := range []digest.Digest{"", "x", "sha256:", "sha256:../../../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:" + digest.Digest(strings.Repeat("A", 64))} {
		if _, err := d.Put(ctx, "r", bad, 1, strings.NewReader("x")); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("digest %q: %v", bad, err)
		}
		if _, err := d.Stat(ctx, "r", bad); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("digest %q: %v", bad, err)
		}
	}
	for _, tag := range []string{"", ".", "-a", "a/b", "a b", "a\x00", strings.Repeat("a", 129)} {
		m := depot.Manifest{Digest: dgst, Size: 1}
		if err := d.PutManifest(ctx, "r", m, []byte("x"), depot.PutOptions{Tags: []string{tag}}); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("tag %q: %v", tag, err)
		}
	}
}

func records(t *testing.T, open Opener) {
	d := open(t)
	_, err := d.Record(ctx, "stars/ann")
	isNotFound(t, err)
	must(t, d.DeleteRecord(ctx, "stars/ann"))
	keys := []string{"stars/ann", "stars/ann/1", "stars/bob", "starsx", "webhooks/1"}
	for _, k := range keys {
		must(t, d.PutRecord(ctx, k, []byte("old")))
		must(t, d.PutRecord(ctx, k, []byte("value of "+k)))
	}
	if v, err := d.Record(ctx, "stars/ann"); err != nil || string(v) != "value of stars/ann" {
		t.Errorf("%q, %v", v, err)
	}
	for _, c := range []struct {
		prefix, after string
		n             int
		want          []string
	}{
		{"", "", -1, keys},
		{"stars/", "", -1, keys[:3]},
		{"stars/", "stars/ann", 1, keys[1:2]},
		{"stars/", "stars/ann/1", -1, keys[2:3]},
		{"nothing", "", -1, nil},
	} {
		got, err := d.RecordKeys(ctx, c.prefix, c.after, c.n)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q after %q: %q, %v", c.prefix, c.after, got, err)
		}
	}
	must(t, d.DeleteRecord(ctx, "stars/ann"))
	_, err = d.Record(ctx, "stars/ann")
	isNotFound(t, err)
	for _, k := range []string{"", "/", "a//b", "a/../b", "a\x00", "a b"} {
		if err := d.PutRecord(ctx, k, nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("key %q: %v", k, err)
		}
	}
	if err := d.PutRecord(ctx, "big", make([]byte, 64<<10+1)); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a large record: %v", err)
	}
}

func survives(t *testing.T, open Opener) {
	d := open(t)
	small, large := put(t, d, "r", noise(1, 10)), put(t, d, "r", noise(2, 1<<20))
	m := manifest(t, d, "r", depot.Manifest{Blobs: []digest.Digest{small, large}, Subject: digest.FromString("s")}, "m", "t")
	must(t, d.PutRecord(ctx, "k", []byte("v")))
	d = open(t)
	get(t, d, "r", small)
	get(t, d, "r", large)
	if got, body, err := d.Manifest(ctx, "r", "t"); err != nil || got.Digest != m.Digest || string(body) != "m" {
		t.Errorf("%+v, %q, %v", got, body, err)
	}
	if list, err := d.Referrers(ctx, "r", m.Subject, "", -1); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	if v, err := d.Record(ctx, "k"); err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
}

// concurrent has many clients put, name, read and delete the same few things:
// whatever a manifest that is there names must be readable.
func concurrent(t *testing.T, open Opener) {
	d := open(t)
	const clients, rounds = 8, 12
	data := [][]byte{noise(1, 100), noise(2, 40_000)}
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() {
			repository := fmt.Sprint("r", i%3)
			for round := range rounds {
				var blobs []digest.Digest
				for _, b := range data {
					blobs = append(blobs, put(t, d, repository, b))
				}
				text := fmt.Sprintf("%d %d", i, round)
				m := depot.Manifest{Digest: digest.FromString(text), Size: int64(len(text)), MediaType: "application/x", Blobs: blobs}
				var missing *depot.Missing
				err := d.PutManifest(ctx, repository, m, []byte(text), depot.PutOptions{Tags: []string{fmt.Sprint("t", i)}})
				if errors.As(err, &missing) {
					continue // a neighbour deleted them just now
				}
				if err != nil {
					t.Error(err)
					return
				}
				for k, b := range blobs {
					r, _, err := d.Open(ctx, repository, b)
					if err != nil {
						t.Errorf("a blob that manifest %q names: %v", text, err)
						return
					}
					got, err := io.ReadAll(r)
					r.Close()
					if err != nil || !bytes.Equal(got, data[k]) {
						t.Errorf("%d bytes, %v", len(got), err)
					}
				}
				if err := d.DeleteManifest(ctx, repository, m.Digest); err != nil {
					t.Error(err)
				}
				for _, b := range blobs {
					err := d.DeleteBlob(ctx, repository, b)
					if err != nil && !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrConflict) {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
}
