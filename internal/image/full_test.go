package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that is full in the middle of an unpack: the sentence says so, and
// what was written is gone.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	big := makeImage(t, host, map[string]string{"a": "1"}, map[string]string{"b": strings.Repeat("x", 8<<20)})
	for _, dir := range []string{"snapshots", "content"} {
		t.Run(dir, func(t *testing.T) {
			r := &rig{t: t, dir: t.TempDir()}
			small := filepath.Join(r.dir, dir)
			if err := os.Mkdir(small, 0o700); err != nil {
				t.Fatal(err)
			}
			size := "size=4m"
			if dir == "content" {
				size = "size=16k"
			}
			if err := unix.Mount("tmpfs", small, "tmpfs", 0, size); err != nil {
				t.Skipf("cannot mount a tmpfs: %v", err)
			}
			t.Cleanup(func() {
				r.db.Close()
				if err := unix.Unmount(small, 0); err != nil {
					t.Error(err)
				}
			})
			r.open()
			h := newHub(t)
			h.add("1", big)
			before := freeOf(t, small)
			err := r.Pull(t.Context(), h.host()+"/big:1", PullOptions{})
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("pull: %v", err)
			}
			r.wantNothing()
			err = r.Load(t.Context(), bytes.NewReader(layoutOf(t, indexOf(named(big.descriptor(), "big:1")), big.blobs())), LoadOptions{})
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("load: %v", err)
			}
			r.wantNothing()
			if after := freeOf(t, small); after+64<<10 < before {
				t.Errorf("%d bytes were free, %d are", before, after)
			}
		})
	}
}

func freeOf(t *testing.T, dir string) uint64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Bfree * uint64(st.Bsize)
}
