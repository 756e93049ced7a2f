package image

import (
	"testing"

	"github.com/opencontainers/go-digest"
)

// What is kept of an image for other machines is counted where people see it,
// and once.
func TestUsageOfAnIndex(t *testing.T) {
	f := makeFamily(t)
	r := newRig(t)
	used := false
	r.opts.InUse = func(id digest.Digest) []string {
		if used && id == f.host.id() {
			return []string{"c1", "c2"}
		}
		return nil
	}
	r.restart()
	r.load(layoutOf(t, indexOf(named(f.index.descriptor(), "multi:1")), f.blobs()...))
	if err := r.Tag("multi:1", "again", "1"); err != nil {
		t.Fatal(err)
	}
	u, err := r.Usage(t.Context())
	if err != nil || len(u.Images) != 1 {
		t.Fatalf("%+v, %v", u, err)
	}
	d, err := r.measure(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := d.total - d.overhead()
	if i := u.Images[0]; i.Size != all || i.SharedSize != 0 || i.Containers != 0 || u.Reclaimable != all || u.Active != 0 || u.Total != d.total {
		t.Errorf("%+v of %d bytes, %d of them kept for images", u, d.total, all)
	}
	used = true
	if u, err = r.Usage(t.Context()); err != nil || u.Active != 1 || u.Images[0].Containers != 2 || u.Reclaimable != 0 {
		t.Errorf("in use: %+v, %v", u, err)
	}
}
