package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/mount"
	api "github.com/moby/moby/api/types/volume"

	"github.com/gantry-containers/gantry/internal/du"
	"github.com/gantry-containers/gantry/internal/filter"
	"github.com/gantry-containers/gantry/internal/state"
)

type fixture struct {
	*Manager
	t    *testing.T
	root string
	db   *state.DB
}

func open(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, root: t.TempDir()}
	f.reopen()
	t.Cleanup(func() {
		for name := range f.all {
			unmount(f.path(name))
		}
		f.db.Close()
	})
	return f
}

func (f *fixture) reopen() {
	f.t.Helper()
	if f.db != nil {
		f.db.Close()
	}
	var err error
	if f.db, err = state.Open(f.root, f.t.TempDir()); err == nil {
		f.Manager, err = New(f.root, f.db, &state.Events{})
	}
	f.ok(err)
}

func (f *fixture) ok(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) names(args filter.Args) string {
	f.t.Helper()
	list, err := f.List(context.Background(), args)
	f.ok(err)
	var names []string
	for _, v := range list.Volumes {
		names = append(names, v.Name)
	}
	return strings.Join(names, " ")
}

// A volume is what a person keeps when everything else goes.
func TestVolumesOutliveTheDaemon(t *testing.T) {
	f, ctx := open(t), context.Background()
	v, err := f.Create(ctx, &api.CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	f.ok(err)
	f.ok(os.WriteFile(filepath.Join(v.Mountpoint, "file"), []byte("kept"), 0o600))
	f.reopen()
	again, err := f.Inspect(ctx, "data")
	f.ok(err)
	if b, err := os.ReadFile(filepath.Join(again.Mountpoint, "file")); err != nil || string(b) != "kept" || again.Labels["a"] != "b" {
		t.Fatalf("%q %v %v", b, err, again.Labels)
	}
	if _, err := f.Create(ctx, &api.CreateRequest{Name: "data"}); err != nil {
		t.Errorf("creating what is there: %v", err)
	}
	f.ok(f.Remove(ctx, "data", false))
	if _, err := os.Stat(filepath.Dir(v.Mountpoint)); !os.IsNotExist(err) {
		t.Errorf("the data of a removed volume: %v", err)
	}
	if err := f.Remove(ctx, "data", false); !errdefs.IsNotFound(err) {
		t.Errorf("removed twice: %v", err)
	}
	f.ok(f.Remove(ctx, "data", true))
}

func TestUsedVolumesStay(t *testing.T) {
	f, ctx := open(t), context.Background()
	named, err := f.Use(ctx, mount.Mount{Source: "named"}, "c1")
	f.ok(err)
	anonymous, err := f.Use(ctx, mount.Mount{}, "c1")
	f.ok(err)
	if !named.Empty || len(anonymous.Name) != 64 {
		t.Errorf("named %+v anonymous %+v", named, anonymous)
	}
	if err := f.Remove(ctx, "named", true); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "c1") {
		t.Errorf("a volume in use was removed: %v", err)
	}
	report, err := f.Prune(ctx, filter.Args{"all": {"true"}})
	f.ok(err)
	if len(report.VolumesDeleted) != 0 {
		t.Errorf("pruned %v", report.VolumesDeleted)
	}
	f.ok(f.Release(ctx, "named", "c1", true))
	f.ok(f.Release(ctx, anonymous.Name, "c1", true))
	if got := f.names(nil); got != "named" {
		t.Errorf("left: %q; with -v the anonymous volume goes and the named one stays", got)
	}
	if got := f.names(filter.Args{"dangling": {"true"}}); got != "named" {
		t.Errorf("dangling: %q", got)
	}
}

func TestPruneLeavesNamedVolumesUnlessAsked(t *testing.T) {
	f, ctx := open(t), context.Background()
	_, err := f.Create(ctx, &api.CreateRequest{Name: "named"})
	f.ok(err)
	v, err := f.Create(ctx, &api.CreateRequest{})
	f.ok(err)
	f.ok(os.WriteFile(filepath.Join(v.Mountpoint, "x"), make([]byte, 1000), 0o600))
	takes, err := du.Tree(ctx, filepath.Dir(v.Mountpoint))
	f.ok(err)
	report, err := f.Prune(ctx, nil)
	f.ok(err)
	if len(report.VolumesDeleted) != 1 || takes < 1000 || report.SpaceReclaimed != uint64(takes) || f.names(nil) != "named" {
		t.Errorf("%+v, left %q", report, f.names(nil))
	}
}

func TestBadVolumesAreRefused(t *testing.T) {
	f, ctx := open(t), context.Background()
	for _, r := range []*api.CreateRequest{
		{Name: "../x"}, {Name: "a"}, {Name: "a/b"}, {Name: strings.Repeat("a", 256)}, {Driver: "nonsense"},
		{DriverOpts: map[string]string{"nonsense": "1"}}, {DriverOpts: map[string]string{"type": "tmpfs"}},
	} {
		if v, err := f.Create(ctx, r); err == nil {
			t.Errorf("%+v became %+v", r, v)
		}
	}
	if got := f.names(nil); got != "" {
		t.Errorf("left behind: %q", got)
	}
}

// The options of the local driver mount a file system while it is used.
func TestVolumeWithAFileSystemOfItsOwn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	f, ctx := open(t), context.Background()
	_, err := f.Create(ctx, &api.CreateRequest{Name: "mem", DriverOpts: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m,noexec"}})
	f.ok(err)
	if isMountpoint(f.path("mem")) {
		t.Error("mounted before it is used")
	}
	_, err = f.Use(ctx, mount.Mount{Source: "mem"}, "c1")
	f.ok(err)
	dir, err := f.Open(ctx, "mem")
	f.ok(err)
	if !isMountpoint(dir) {
		t.Fatal("not mounted while it is used")
	}
	source := t.TempDir()
	_, err = f.Create(ctx, &api.CreateRequest{Name: "bound", DriverOpts: map[string]string{"type": "none", "device": source, "o": "bind,ro"}})
	f.ok(err)
	bound, err := f.Open(ctx, "bound")
	f.ok(err)
	if err := os.WriteFile(filepath.Join(bound, "x"), nil, 0o600); err == nil {
		t.Error("a read-only bind could be written")
	}
	f.ok(f.Remove(ctx, "bound", false))
	f.ok(f.Release(ctx, "mem", "c1", false))
	if isMountpoint(dir) {
		t.Error("mounted after its last user has gone")
	}
	var wrong error
	_, wrong = f.Create(ctx, &api.CreateRequest{Name: "bad", DriverOpts: map[string]string{"type": "nonsense", "device": "x"}})
	f.ok(wrong)
	if _, err := f.Open(ctx, "bad"); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file system that does not exist was mounted: %v", err)
	}
}
