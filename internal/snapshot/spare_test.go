package snapshot_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/snapshot"
	"github.com/gantry-containers/gantry/internal/snapshot/snapshottest"
)

// spares waits until there are n made ahead, and returns their inodes.
func spares(t *testing.T, dir string, n int) map[uint64]bool {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		found, _ := filepath.Glob(filepath.Join(dir, "overlayfs", "ahead", "*", "lower"))
		if len(found) == n {
			inodes := map[uint64]bool{}
			for _, path := range found {
				inodes[stat(t, filepath.Dir(path)).Ino] = true
			}
			return inodes
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d snapshots are made ahead, not %d", len(found), n)
		}
	}
}

func stat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(path, err)
	}
	return st
}

func openOverlay(t *testing.T, dir string) snapshot.Snapshotter {
	t.Helper()
	s, err := snapshot.New(snapshot.OverlayFS, dir)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// After one container there are snapshots for the next ones, of which nobody can
// see that they were there before; a process that is killed leaves none for good.
func TestSpares(t *testing.T) {
	dir := t.TempDir()
	s := openOverlay(t, dir)
	var images []digest.Digest
	for _, content := range []string{"1", "2"} {
		images = append(images, snapshottest.Unpack(t, s, snapshottest.File{Name: "a", Content: content}))
	}
	prepare := func(id string, image digest.Digest) string {
		t.Helper()
		if err := s.Prepare(t.Context(), id, []digest.Digest{image}, snapshot.PrepareOptions{}); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, "overlayfs", "snapshots", id)
	}
	other := func() int64 {
		t.Helper()
		disk, err := s.Disk(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return disk.Other
	}
	before := other()
	prepare("first", images[0])
	for i, image := range images {
		made := spares(t, dir, 4)
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			t.Fatal(err)
		}
		path := prepare([]string{"one", "two"}[i], image)
		if !made[stat(t, path).Ino] {
			t.Errorf("%s was made though there were spares", path)
		}
		if got, want := stat(t, filepath.Join(path, "fs")).Mtim, now; got.Nano() < want.Nano() {
			t.Errorf("the root directory of %s is older than the container", path)
		}
	}
	for _, info := range []string{"first", "one", "two"} {
		if list, err := s.Changes(t.Context(), info); err != nil || len(list) != 0 {
			t.Errorf("%s has changes: %v, %v", info, list, err)
		}
	}
	if ids, err := s.Snapshots(t.Context()); err != nil || len(ids) != 3 {
		t.Errorf("the snapshots are %q, %v", ids, err)
	}
	spares(t, dir, 4)
	if now := other(); now != before {
		t.Errorf("what was made ahead counts as %d bytes of images", now-before)
	}
	// A name that is taken costs a spare, and leaves nothing of it.
	if err := s.Prepare(t.Context(), "one", images[:1], snapshot.PrepareOptions{}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a name that is taken: %v", err)
	}
	spares(t, dir, 4)

	// The next process. The first is not closed: it was killed.
	next := openOverlay(t, dir)
	spares(t, dir, 0)
	s = next
	prepare("of the next", images[1])
	spares(t, dir, 4)
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "overlayfs", "ahead")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left of what was made ahead: %v", err)
	}
	prepare("after all", images[1]) // still possible
}

// A disk without another inode: what was made ahead is used up, then containers are
// refused, and nothing is left of those that were.
func TestSparesOfAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,nr_inodes=100"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s := openOverlay(t, dir)
	defer s.Close()
	image := snapshottest.Unpack(t, s, snapshottest.File{Name: "a", Content: "1"})
	prepare := func(id string) error {
		return s.Prepare(t.Context(), id, []digest.Digest{image}, snapshot.PrepareOptions{})
	}
	if err := prepare("first"); err != nil {
		t.Fatal(err)
	}
	spares(t, dir, 4)
	var files []string
	for {
		f, err := os.CreateTemp(dir, "full-")
		if err != nil {
			break
		}
		f.Close()
		files = append(files, f.Name())
	}
	for _, id := range []string{"1", "2", "3", "4"} {
		if err := prepare(id); err != nil {
			t.Errorf("with a spare: %v", err)
		}
	}
	if err := prepare("5"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("without a spare: %v", err)
	}
	if ids, err := s.Snapshots(t.Context()); err != nil || len(ids) != 5 {
		t.Errorf("the snapshots are %q, %v", ids, err)
	}
	for _, name := range files {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := prepare("5"); err != nil {
		t.Error(err)
	}
	spares(t, dir, 4)
}

// What a person would lose: a container whose /etc is that of another image, or in
// which an empty file hides one of the image.
func TestEntriesOfSpares(t *testing.T) {
	dir := t.TempDir()
	s := openOverlay(t, dir)
	type file = snapshottest.File
	unpack := func(files ...file) digest.Digest { return snapshottest.Unpack(t, s, files...) }
	old := unpack(file{Name: "etc/", Mode: 0o700}, file{Name: "etc/hosts", Content: "1"}, file{Name: "etc/old"})
	images := map[string]struct {
		layers []digest.Digest
		made   string // of the entries
	}{
		"plain":       {[]digest.Digest{old}, "env etc/mtab etc/name"},
		"changed":     {[]digest.Digest{old, unpack(file{Name: "etc/", Mode: 0o1711, UID: 7, GID: 8}, file{Name: "etc/name", Content: "2"})}, "env etc/mtab"},
		"below":       {[]digest.Digest{old, unpack(file{Name: "env", Content: "1"})}, "etc/mtab etc/name"},
		"without":     {[]digest.Digest{old, unpack(file{Name: "etc/.wh.hosts"})}, "env etc/hosts etc/mtab etc/name"},
		"hidden":      {[]digest.Digest{old, unpack(file{Name: ".wh.etc"})}, "env"},
		"a link":      {[]digest.Digest{old, unpack(file{Name: "etc", Symlink: "a"})}, "env"},
		"over a link": {[]digest.Digest{unpack(file{Name: "etc", Symlink: "/etc"}), unpack(file{Name: "etc/", Mode: 0o711})}, "env etc/hosts etc/mtab etc/name"},
		"anew":        {[]digest.Digest{old, unpack(file{Name: "etc/"}, file{Name: "etc/.wh..wh..opq"}, file{Name: "etc/new", Content: "2"})}, "env"},
		"hidden below": {[]digest.Digest{old, unpack(file{Name: "etc/"}, file{Name: "etc/.wh..wh..opq"}, file{Name: "etc/new", Content: "2"}),
			unpack(file{Name: "etc/", Mode: 0o711})}, "env etc/hosts etc/mtab etc/name"},
		"attributes":  {[]digest.Digest{unpack(file{Name: "etc/", Xattrs: map[string]string{"user.x": "y"}})}, "env"},
		"none at all": {nil, "env"},
	}
	entries := []snapshot.Entry{{Dir: ".", Name: "env"}, {Dir: "etc", Name: "mtab", Target: "/proc/mounts"}, {Dir: "etc", Name: "hosts"}, {Dir: "etc", Name: "name"}}
	ids := 0
	prepare := func(image string, entries []snapshot.Entry) (id string) {
		t.Helper()
		ids++
		id = fmt.Sprint(ids)
		if err := s.Prepare(t.Context(), id, images[image].layers, snapshot.PrepareOptions{Entries: entries}); err != nil {
			t.Fatal(err)
		}
		spares(t, dir, 4)
		return id
	}
	// etc is what is seen of the directory itself.
	etc := func(id string) string {
		t.Helper()
		mounts, err := s.Mounts(id)
		if err != nil {
			t.Fatal(err)
		}
		root, err := mount.Detached(mounts)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		var st unix.Stat_t
		err = unix.Fstatat(int(root.Fd()), "etc", &st, unix.AT_SYMLINK_NOFOLLOW)
		return fmt.Sprint(err, st.Mode, st.Uid, st.Gid)
	}
	var now unix.Timespec
	check := func(id, image, want string) {
		t.Helper()
		list, err := s.Changes(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var made []string
		for _, c := range list {
			if c.Kind == snapshot.Added {
				made = append(made, c.Path[1:])
			} else if c.Path != "/etc" || !c.Entries {
				t.Errorf("of %s there is a change of %s", image, c.Path)
			}
		}
		if got := strings.Join(made, " "); got != want {
			t.Errorf("of %s there are %q, not %q", image, got, want)
		}
		if strings.Contains(want, "etc") {
			if st := stat(t, filepath.Join(dir, "overlayfs/snapshots", id, "fs/etc")); st.Mtim.Nano() < now.Nano() {
				t.Errorf("the /etc of %s is older than the container", image)
			}
		}
	}
	prepare("none at all", entries)
	for image, of := range images {
		for range 4 { // spares like another
			check(prepare(image, nil), image, "")
		}
		bare := prepare(image, nil)
		check(bare, image, "")
		prepare(image, entries)
		if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
			t.Fatal(err)
		}
		id := prepare(image, entries)
		check(id, image, of.made)
		if got, want := etc(id), etc(bare); got != want {
			t.Errorf("/etc of %s is %s, not %s", image, got, want)
		}
		check(prepare(image, nil), image, "")
		prepare(image, entries)
		if image != "none at all" {
			check(prepare("none at all", entries), "another than "+image, "")
		}
	}
}

// What a person would lose: an image that is removed in the moment after its container
// and comes back, and whose file of /etc is hidden from then on.
func TestEntriesOfRemovedLayer(t *testing.T) {
	dir := t.TempDir()
	s := openOverlay(t, dir)
	base := snapshottest.Unpack(t, s, snapshottest.File{Name: "etc/"})
	hosts := snapshottest.File{Name: "etc/hosts", Content: "1"}
	layers := []digest.Digest{base, snapshottest.Unpack(t, s, hosts)}
	options := snapshot.PrepareOptions{Entries: []snapshot.Entry{{Dir: "etc", Name: "hosts"}}}
	if err := s.Prepare(t.Context(), "first", layers, options); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveLayer(t.Context(), layers[1]); err != nil {
		t.Fatal(err)
	}
	spares(t, dir, 4)
	snapshottest.Unpack(t, s, hosts)
	for i := range 6 {
		id := fmt.Sprint(i)
		if err := s.Prepare(t.Context(), id, layers, options); err != nil {
			t.Fatal(err)
		}
		if list, err := s.Changes(t.Context(), id); err != nil || len(list) != 0 {
			t.Errorf("the image is hidden: %v, %v", list, err)
		}
		spares(t, dir, 4)
	}
}
