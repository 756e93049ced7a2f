package content

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

func TestResume(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	dgst := digest.FromBytes(data)
	start := func(want int) *Writer {
		t.Helper()
		w, err := s.Resume(t.Context(), dgst, int64(len(data)))
		must(t, err)
		if w.Kept() != int64(want) || w.Size() != int64(want) {
			t.Errorf("kept %d of %d bytes", w.Kept(), want)
		}
		return w
	}
	w := start(0)
	w.Write(data[:10])
	must(t, w.Close()) // too little to be kept
	w = start(0)
	w.Write(data[:100_000])
	other := start(0) // while the first is at work
	if _, err := other.Write(data); err != nil {
		t.Error(err)
	}
	must(t, other.Close())
	must(t, w.Close())
	if _, err := s.Stat(dgst); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a part became the blob: %v", err)
	}

	s = open(t, dir) // a restart
	w = start(100_000)
	w.Write(data[100_000:200_000]) // without reading what is there
	must(t, w.Close())
	w = start(200_000)
	if got, err := io.ReadAll(w.KeptReader()); err != nil || !bytes.Equal(got, data[:200_000]) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	w.Write(data[200_000:])
	must(t, w.Close()) // whole, but not committed
	w = start(len(data))
	if got, err := w.Commit(); err != nil || got != dgst {
		t.Errorf("committed %s, %v", got, err)
	}
	must(t, w.Close())
	if got, err := s.ReadAll(dgst, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("stored %d bytes, %v", len(got), err)
	}
	lie, err := s.Resume(t.Context(), dgst, int64(len(data))+7)
	must(t, err)
	lie.Write([]byte("must not get into the blob"))
	must(t, lie.Close())
	if _, err := s.ReadAll(dgst, 1<<20); err != nil {
		t.Error(err)
	}
	w = start(0)
	w.Write(data)
	if _, err := w.Commit(); err != nil {
		t.Error(err)
	}
	must(t, w.Close())
	must(t, s.Delete(dgst)) // what it was for failed
	w = start(len(data))
	if got, err := w.Commit(); err != nil || got != dgst {
		t.Errorf("committed again: %s, %v", got, err)
	}
	must(t, w.Close())
	s.Settle(dgst)
	if left := files(t, dir); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// A part that is not of the blob is not gone on with twice.
func TestResumeBad(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	data := bytes.Repeat([]byte("x"), 100_000)
	dgst, size := digest.FromBytes(data), int64(len(data))
	for _, c := range []struct {
		name string
		end  func(w *Writer)
	}{
		{"another digest", func(w *Writer) {
			w.Write(bytes.Repeat([]byte("y"), 100_000))
			if _, err := w.Commit(); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("commit: %v", err)
			}
		}},
		{"too long", func(w *Writer) { w.Write(append(data, "more"...)) }},
		{"discarded", func(w *Writer) { w.Write(data); w.Discard() }},
	} {
		w, err := s.Resume(t.Context(), dgst, size)
		must(t, err)
		if w.Kept() != 0 {
			t.Fatalf("%s: %d bytes are kept", c.name, w.Kept())
		}
		c.end(w)
		must(t, w.Close())
		if left := files(t, dir); len(left) != 0 {
			t.Errorf("%s: left %v", c.name, left)
		}
	}
	must(t, os.WriteFile(s.partial(dgst), append(data, 1), 0o600)) // longer than the blob
	w, err := s.Resume(t.Context(), dgst, size)
	must(t, err)
	w.Write(data)
	if _, err := w.Commit(); err != nil {
		t.Error(err)
	}
}

func TestDropPartials(t *testing.T) {
	s := open(t, t.TempDir())
	data := bytes.Repeat([]byte("x"), minPartial)
	leave := func(name string) digest.Digest {
		dgst := digest.FromString(name)
		w, err := s.Resume(t.Context(), dgst, 1<<20)
		must(t, err)
		w.Write(data)
		must(t, w.Close())
		return dgst
	}
	old, fresh := leave("old"), leave("new")
	past := time.Now().Add(-2 * PartialAge)
	must(t, os.Chtimes(s.partial(old), past, past))
	busy, err := s.Resume(t.Context(), leave("busy"), 1<<20)
	must(t, err)
	must(t, os.Chtimes(s.partial(busy.expected), past, past))
	if freed, err := s.DropPartials(time.Now().Add(-PartialAge)); err != nil || freed != minPartial {
		t.Errorf("freed %d bytes, %v", freed, err)
	}
	left := map[digest.Digest]int64{}
	must(t, s.WalkPartials(func(i Info) error { left[i.Digest] = i.Size; return nil }))
	if len(left) != 2 || left[fresh] != minPartial || left[busy.expected] != minPartial {
		t.Errorf("left: %v", left)
	}
	must(t, busy.Close())
	if freed, err := s.DropPartials(time.Now()); err != nil || freed != 2*minPartial {
		t.Errorf("freed %d bytes, %v", freed, err)
	}
}
