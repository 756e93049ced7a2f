package depot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
)

var ctx = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) depot.Depot {
	t.Helper()
	d, err := directory.Open(t.TempDir())
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return d
}

func blob(t *testing.T, d depot.Depot, repository string, data []byte) digest.Digest {
	t.Helper()
	dgst := digest.FromBytes(data)
	_, err := d.Put(ctx, repository, dgst, -1, bytes.NewReader(data))
	must(t, err)
	return dgst
}

func manifest(t *testing.T, d depot.Depot, repository, text string, m depot.Manifest, tags ...string) digest.Digest {
	t.Helper()
	m.Digest, m.Size, m.MediaType, m.Pushed = digest.FromString(text), int64(len(text)), "application/x", time.Now()
	must(t, d.PutManifest(ctx, repository, m, []byte(text), depot.PutOptions{Tags: tags}))
	return m.Digest
}

func manifests(t *testing.T, d depot.Depot, repository string) []digest.Digest {
	t.Helper()
	list, err := d.Manifests(ctx, repository, "", -1)
	must(t, err)
	slices.Sort(list)
	return list
}

// What a person would lose: an image that a tag leads to over an index, or a
// signature that leads to it, and disk space for what nothing leads to.
func TestCollect(t *testing.T) {
	d := open(t)
	layer := func(i int) digest.Digest { return blob(t, d, "r", bytes.Repeat([]byte{byte(i)}, 20_000)) }
	named, orphan, ofUntagged, ofChild, ofReferrer, ofLost := layer(1), layer(2), layer(3), layer(4), layer(5), layer(6)
	_, err := d.Mount(ctx, "r", "shared", orphan)
	must(t, err)
	list := func(d ...digest.Digest) []digest.Digest { return d }
	tagged := manifest(t, d, "r", "tagged", depot.Manifest{Blobs: list(named)}, "t")
	untagged := manifest(t, d, "r", "untagged", depot.Manifest{Blobs: list(ofUntagged, named)})
	child := manifest(t, d, "r", "child", depot.Manifest{Blobs: list(ofChild)})
	index := manifest(t, d, "r", "index", depot.Manifest{Manifests: list(child)}, "i")
	signature := manifest(t, d, "r", "signature", depot.Manifest{Blobs: list(ofReferrer), Subject: child})
	ofSignature := manifest(t, d, "r", "signature of the signature", depot.Manifest{Subject: signature})
	lostChild := manifest(t, d, "r", "lost child", depot.Manifest{Blobs: list(ofLost)})
	lostIndex := manifest(t, d, "r", "lost index", depot.Manifest{Manifests: list(lostChild, child)})
	lostSignature := manifest(t, d, "r", "lost signature", depot.Manifest{Subject: lostIndex})
	manifest(t, d, "gone", "in a repository of its own", depot.Manifest{})
	upload, err := d.StartUpload(ctx, "r", "")
	must(t, err)

	report, err := depot.Collect(ctx, d, depot.Collection{Grace: time.Hour, Untagged: true, Uploads: time.Hour})
	if err != nil || report != (depot.Collected{}) {
		t.Fatalf("within the grace: %+v, %v", report, err)
	}
	var dry, wet []depot.Removal
	c := depot.Collection{Grace: -time.Second, Untagged: true, Uploads: time.Nanosecond, DryRun: true, Removed: func(r depot.Removal) { dry = append(dry, r) }}
	_, err = depot.Collect(ctx, d, c)
	must(t, err)
	if len(manifests(t, d, "r")) != 9 {
		t.Fatal("a dry run removed something")
	}
	c.DryRun, c.Removed = false, func(r depot.Removal) { wet = append(wet, r) }
	report, err = depot.Collect(ctx, d, c)
	must(t, err)
	keys := func(list []depot.Removal) (keys []string) {
		for _, r := range list {
			keys = append(keys, fmt.Sprint(r.Repository, r.Digest, r.Manifest))
		}
		slices.Sort(keys)
		return keys
	}
	if !slices.Equal(keys(dry), keys(wet)) {
		t.Errorf("the dry run said\n%v\nwhat went is\n%v", keys(dry), keys(wet))
	}
	if report.Manifests != 5 || report.Blobs != 4 || report.Repositories != 2 || report.Uploads != 1 || report.Bytes != 60_000 {
		t.Errorf("%+v", report)
	}
	stay := list(tagged, child, index, signature, ofSignature)
	slices.Sort(stay)
	if got := manifests(t, d, "r"); !slices.Equal(got, stay) {
		t.Errorf("manifests: %v, not %v; untagged is %s, lost are %s %s %s", got, stay, untagged, lostIndex, lostChild, lostSignature)
	}
	for _, dgst := range list(named, ofChild, ofReferrer) {
		if _, err := d.Stat(ctx, "r", dgst); err != nil {
			t.Error(err)
		}
	}
	for _, dgst := range list(orphan, ofUntagged, ofLost) {
		if _, err := d.Stat(ctx, "r", dgst); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s is there: %v", dgst, err)
		}
	}
	if _, err := d.Upload(ctx, "r", upload.ID()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("an abandoned upload is there: %v", err)
	}
	if names, err := d.Repositories(ctx, "", -1); err != nil || !slices.Equal(names, []string{"r"}) {
		t.Errorf("%v, %v", names, err)
	}
}

// What a person would lose: an image whose push succeeded, because a collection
// took a layer between the client's question for it and its manifest.
func TestCollectWhilePushing(t *testing.T) {
	d := open(t)
	const pushers, rounds, grace = 6, 150, 30 * time.Millisecond
	var layers [][]byte
	for i := range 300 { // so many that each is left alone for longer than the grace, now and then
		layers = append(layers, bytes.Repeat([]byte{byte(i)}, 15_000+i*10)) // some in the database, some in files
	}
	pushing, stop := context.WithCancel(ctx)
	var collected atomic.Int64
	var collector sync.WaitGroup
	collector.Go(func() {
		for pushing.Err() == nil {
			report, err := depot.Collect(ctx, d, depot.Collection{Grace: grace, Untagged: true})
			if err != nil {
				t.Error(err)
				return
			}
			collected.Add(int64(report.Blobs))
		}
	})
	var all sync.WaitGroup
	for i := range pushers {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for round := range rounds {
				push(t, d, r, fmt.Sprint("r", i%2), fmt.Sprint(i, " ", round), layers, grace)
			}
		})
	}
	all.Wait()
	stop()
	collector.Wait()
	if collected.Load() == 0 {
		t.Error("nothing was collected meanwhile: the test shows nothing")
	}
	report, err := depot.Collect(ctx, d, depot.Collection{Grace: -time.Second, Untagged: true})
	must(t, err)
	if left, err := d.Repositories(ctx, "", -1); err != nil || len(left) != 0 {
		t.Errorf("something stays: %v, %v", left, err)
	}
	t.Logf("%d blobs were collected meanwhile, %d at the end", collected.Load(), report.Blobs)
}

// push does as clients do, and deletes the image again.
func push(t *testing.T, d depot.Depot, r *rand.Rand, repository, text string, layers [][]byte, grace time.Duration) {
	begun := time.Now()
	m := depot.Manifest{Digest: digest.FromString(text), Size: int64(len(text)), MediaType: "application/x"}
	want := map[digest.Digest][]byte{}
	for range 3 {
		data := layers[r.IntN(len(layers))]
		dgst := digest.FromBytes(data)
		if _, err := d.Stat(ctx, repository, dgst); errors.Is(err, errdefs.ErrNotFound) {
			if _, err := d.Put(ctx, repository, dgst, -1, bytes.NewReader(data)); err != nil {
				t.Error(err)
				return
			}
		} else if err != nil {
			t.Error(err)
			return
		}
		m.Blobs = append(m.Blobs, dgst)
		want[dgst] = data
	}
	if err := d.PutManifest(ctx, repository, m, []byte(text), depot.PutOptions{Tags: []string{text[:1]}}); err != nil {
		if time.Since(begun) < grace {
			t.Errorf("a push failed: %v", err)
		}
		return
	}
	for dgst, data := range want {
		f, _, err := d.Open(ctx, repository, dgst)
		if err != nil {
			t.Errorf("an image that was pushed: %v", err)
			return
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s has other bytes: %v", dgst, err)
		}
	}
	if err := d.DeleteManifest(ctx, repository, m.Digest); err != nil {
		t.Error(err)
	}
}
