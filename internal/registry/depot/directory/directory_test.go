package directory

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"

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
