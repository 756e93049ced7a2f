package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/snapshot"
)

// newLoopRig is a rig on an ext4 of so many bytes.
func newLoopRig(t *testing.T, size int64) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a small disk needs root")
	}
	r := &rig{t: t, dir: t.TempDir()}
	disk := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(disk, nil, 0o600), os.Truncate(disk, size)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", disk}, {"mount", "-o", "loop", disk, r.dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("cannot make a small disk: %s: %v: %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		r.db.Close()
		if err := unix.Unmount(r.dir, 0); err != nil {
			t.Error(err)
		}
	})
	r.open()
	return r
}

// streamed is a layer of files of the same byte, which are never in memory.
func streamed(t *testing.T, files int, size int64, fill byte, compress func(io.Writer) io.WriteCloser) blobLayer {
	t.Helper()
	var blob bytes.Buffer
	z, diffID := compress(&blob), digest.Canonical.Digester()
	tw := tar.NewWriter(io.MultiWriter(z, diffID.Hash()))
	chunk := bytes.Repeat([]byte{fill}, 1<<20)
	for i := range files {
		err := tw.WriteHeader(&tar.Header{Name: fmt.Sprint("f", i), Mode: 0o644, Size: size})
		for left := size; err == nil && left > 0; left -= int64(len(chunk)) {
			_, err = tw.Write(chunk[:min(left, int64(len(chunk)))])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return blobLayer{diffID.Digest(), blob.Bytes(), ocispec.MediaTypeImageLayer}
}

func gzips(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }

func zstds(w io.Writer) io.WriteCloser {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	return z
}

// leastFree watches how many bytes and files the disk has left until it is
// stopped.
func leastFree(t *testing.T, dir string) (stop func() (bytes, files int64)) {
	var end atomic.Bool
	var watching sync.WaitGroup
	least, leastFiles := int64(1<<62), int64(1<<62)
	watching.Go(func() {
		for !end.Load() {
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil {
				t.Error(err)
				return
			}
			least, leastFiles = min(least, int64(st.Bavail)*st.Bsize), min(leastFiles, int64(st.Ffree))
		}
	})
	return func() (int64, int64) {
		end.Store(true)
		watching.Wait()
		return least, leastFiles
	}
}

// What a person would lose: the disk their containers write to. A layer that
// unpacks to more than there is stops before the last of it, says so, and goes.
func TestBombLeavesRoom(t *testing.T) {
	r := newLoopRig(t, 96<<20)
	for name, c := range map[string]struct {
		files    int
		size     int64
		compress func(io.Writer) io.WriteCloser
	}{
		"one file, gzip":   {1, 200 << 20, gzips},
		"one file, zstd":   {1, 200 << 20, zstds},
		"many files":       {200, 1 << 20, zstds},
		"many empty files": {60_000, 0, gzips},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			h := newHub(t)
			bomb := streamed(t, c.files, c.size, 'x', c.compress)
			h.add("1", imageOf(t, bomb))
			before := freeOf(t, r.dir)
			stop := leastFree(t, r.dir)
			err := r.Pull(t.Context(), h.host()+"/bomb:1", PullOptions{})
			least, leastFiles := stop()
			if !errors.Is(err, snapshot.ErrNoRoom) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "kept for what runs there: no space left on device") {
				t.Errorf("the pull: %v", err)
			}
			if t.Logf("%d bytes and %d files were left: %v", least, leastFiles, err); least < 1<<20 || leastFiles < 300 {
				t.Errorf("only %d bytes and %d files were left for containers", least, leastFiles)
			}
			r.opts.Content.Settle(digest.FromBytes(bomb.blob)) // what was kept to go on with
			r.wantNothing()
			if after := freeOf(t, r.dir); after+512<<10 < before {
				t.Errorf("%d bytes were free, %d are", before, after)
			}
		})
	}
}

// What only looks large is no bomb: a sparse file far larger than the disk, and
// a layer that nearly fills it.
func TestRoomForWhatFits(t *testing.T) {
	r := newLoopRig(t, 96<<20)
	for name, c := range map[string]struct {
		size int64
		fill byte
	}{"a file of zeros of 1 GB": {1 << 30, 0}, "a file of half the disk": {40 << 20, 'x'}} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			h := newHub(t)
			h.add("1", imageOf(t, streamed(t, 1, c.size, c.fill, zstds)))
			r.pull(h.host() + "/large:1")
			if _, err := r.Remove(t.Context(), h.host()+"/large:1", RemoveOptions{}); err != nil {
				t.Error(err)
			}
			r.wantNothing()
		})
	}
}
