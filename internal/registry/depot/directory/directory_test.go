package directory

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/depot/depottest"
)

func open(t *testing.T, dir string) *Directory {
	t.Helper()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestContract(t *testing.T) {
	depottest.Run(t, func(t *testing.T) depottest.Opener {
		dir := t.TempDir()
		var last *Directory
		return func(t *testing.T) depot.Depot {
			if last != nil {
				last.Close()
			}
			last = open(t, dir)
			return last
		}
	})
}

// What a person would lose: two registries on one directory would each collect
// what the other was just told to keep.
func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := Open(dir); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("%v", err)
	}
}

// What a person would lose: bytes of a blob, to a client that goes on with an
// upload that a killed registry had made that blob a moment before.
func TestUploadSharesNoFileWithBlob(t *testing.T) {
	d := open(t, t.TempDir())
	ctx := context.Background()
	data := bytes.Repeat([]byte("0123456789"), 5000)
	dgst := digest.FromBytes(data)
	u, err := d.StartUpload(ctx, "r", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.ReadFrom(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	u.Close()
	// As far as a commit comes before the process is killed.
	if placed, err := d.settle(u.(*upload).path, dgst); err != nil || !placed {
		t.Fatal(placed, err)
	}
	if u, err = d.Upload(ctx, "r", u.ID()); err != nil || u.Size() != int64(len(data)) {
		t.Fatal(u, err)
	}
	if _, err := u.ReadFrom(strings.NewReader("more")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(d.path(dgst)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the blob has %d bytes, %v", len(got), err)
	}
	whole := append(data, "more"...)
	if _, err := u.Commit(ctx, digest.FromBytes(whole), nil); err != nil {
		t.Fatal(err)
	}
	// The leftover is no obstacle, and not believed.
	if err := os.WriteFile(d.path(dgst), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Put(ctx, "r", dgst, -1, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(d.path(dgst)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the blob has %d bytes, %v", len(got), err)
	}
	if left, err := os.ReadDir(filepath.Join(d.dir, "uploads")); err != nil || len(left) != 0 {
		t.Errorf("uploads has %v, %v", left, err)
	}
}
