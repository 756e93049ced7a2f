package content

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	must(t, err)
	return s
}

// files lists the regular files below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			found = append(found, p)
		}
		return err
	}))
	return found
}

func TestStore(t *testing.T) {
	ctx := context.Background()
	s := open(t, t.TempDir())
	for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		dgst := algorithm.FromString("hello")
		if _, err := s.Open(dgst); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("before: %v", err)
		}
		got, size, err := s.Put(ctx, strings.NewReader("hello"), dgst, 5)
		if err != nil || got != dgst || size != 5 {
			t.Fatalf("%s, %d, %v", got, size, err)
		}
		if info, err := s.Stat(dgst); err != nil || info.Size != 5 || info.Digest != dgst || info.ModTime.IsZero() {
			t.Errorf("%+v, %v", info, err)
		}
		f, err := s.Open(dgst)
		must(t, err)
		if data, err := io.ReadAll(f); err != nil || string(data) != "hello" {
			t.Errorf("%q, %v", data, err)
		}
		f.Close()
		if data, err := s.ReadAll(dgst, 5); err != nil || string(data) != "hello" {
			t.Errorf("%q, %v", data, err)
		}
		if _, err := s.ReadAll(dgst, 4); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("more than asked for: %v", err)
		}
	}
	got, _, err := s.Put(ctx, strings.NewReader("unnamed"), "", -1)
	if err != nil || got != digest.FromString("unnamed") {
		t.Errorf("%s, %v", got, err)
	}
	n := 0
	must(t, s.Walk(func(Info) error { n++; return nil }))
	if n != 3 {
		t.Errorf("%d blobs", n)
	}
	if err := s.Walk(func(Info) error { return io.ErrNoProgress }); err != io.ErrNoProgress {
		t.Errorf("the walk ends with %v", err)
	}
	must(t, s.Delete(got))
	for _, err := range []error{s.Delete(got), second(s.Stat(got)), second(s.ReadAll(got, 10))} {
		if !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("after: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	right := digest.FromString("hello")
	for name, test := range map[string]struct {
		expected digest.Digest
		size     int64
		content  io.Reader
		class    error
	}{
		"other content":   {right, 5, strings.NewReader("jello"), errdefs.ErrInvalidArgument},
		"too long":        {right, 5, strings.NewReader("hello!"), errdefs.ErrInvalidArgument},
		"too short":       {right, 5, strings.NewReader("hell"), errdefs.ErrInvalidArgument},
		"broken source":   {right, 5, iotest.ErrReader(io.ErrClosedPipe), io.ErrClosedPipe},
		"bad digest":      {"sha256:../../../../etc/passwd", 5, strings.NewReader("hello"), errdefs.ErrInvalidArgument},
		"weak algorithm":  {"md5:5d41402abc4b2a76b9719d911017c592", 5, strings.NewReader("hello"), errdefs.ErrInvalidArgument},
		"other algorithm": {digest.SHA384.FromString("hello"), 5, strings.NewReader("hello"), errdefs.ErrInvalidArgument},
	} {
		if _, _, err := s.Put(context.Background(), test.content, test.expected, test.size); !errors.Is(err, test.class) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
	// A writer that failed cannot be committed after all.
	w, err := s.NewWriter(context.Background(), right, 5)
	must(t, err)
	w.Write([]byte("hello!"))
	w.Write([]byte("hello"))
	if _, err := w.Commit(); err == nil {
		t.Error("committed")
	}
	must(t, w.Close())
	ctx, cancel := context.WithCancel(context.Background())
	w, err = s.NewWriter(ctx, right, 5)
	must(t, err)
	cancel()
	if _, err := w.Write([]byte("hello")); !errors.Is(err, context.Canceled) {
		t.Errorf("after the request ended: %v", err)
	}
	must(t, w.Close())
}

func TestDamagedOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	dgst, _, err := s.Put(context.Background(), strings.NewReader("hello"), "", -1)
	must(t, err)
	must(t, os.WriteFile(files(t, dir)[0], []byte("jello"), 0o600))
	if _, err := s.ReadAll(dgst, 10); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("%v", err)
	}
}

func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	content := bytes.Repeat([]byte("x"), 1<<20)
	dgst := digest.FromBytes(content)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, _, err := s.Put(context.Background(), bytes.NewReader(content), dgst, int64(len(content))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if left := files(t, dir); len(left) != 1 {
		t.Errorf("files: %q", left)
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a small tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	s := open(t, dir)
	_, _, err := s.Put(context.Background(), bytes.NewReader(bytes.Repeat([]byte("x"), 2<<20)), "", -1)
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
	if _, _, err := s.Put(context.Background(), bytes.NewReader(bytes.Repeat([]byte("x"), 1<<19)), "", -1); err != nil {
		t.Errorf("what fits: %v", err)
	}
}

const killedEnv = "GANTRY_CONTENT_TEST_KILLED"

// A process killed while it writes leaves nothing a later one sees.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killedEnv); dir != "" {
		w, err := open(t, dir).NewWriter(context.Background(), "", -1)
		must(t, err)
		_, err = w.Write(make([]byte, 1<<20))
		must(t, err)
		fmt.Println("half")
		select {}
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), killedEnv+"="+dir)
	stdout, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	cmd.Process.Kill()
	cmd.Wait()
	if line != "half\n" {
		t.Fatalf("it said %q, %v", line, err)
	}
	if left := files(t, dir); len(left) != 1 {
		t.Fatalf("it was not in the middle of anything: %q", left)
	}
	open(t, dir)
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}
