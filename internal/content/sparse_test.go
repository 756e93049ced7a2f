package content

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/du"
)

// pieces makes content of runs of zeros and of other bytes.
func pieces(r *rand.Rand, runs ...int) []byte {
	var b bytes.Buffer
	for i, n := range runs {
		piece := make([]byte, n)
		if i%2 == 1 {
			for i := range piece {
				piece[i] = byte(r.Uint32() | 1)
			}
		}
		b.Write(piece)
	}
	return b.Bytes()
}

// Whatever the content and the sizes it comes in, it is read as it was written.
func TestSparseContent(t *testing.T) {
	s := open(t, t.TempDir())
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		runs := make([]int, 1+r.IntN(9))
		for i := range runs {
			runs[i] = r.IntN(1 << (4 + r.IntN(15)))
		}
		data := pieces(r, runs...)
		w, err := s.NewWriter(t.Context(), digest.FromBytes(data), int64(len(data)))
		must(t, err)
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(1<<(3+r.IntN(16))))
			if m, err := w.Write(rest[:n]); m != n || err != nil {
				t.Fatalf("%d of %d bytes written: %v", m, n, err)
			}
			rest = rest[n:]
		}
		dgst, err := w.Commit()
		must(t, err)
		must(t, w.Close())
		got, err := s.ReadAll(dgst, 16<<20)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("content %d, of runs of %v: read %d bytes, %v", i, runs, len(got), err)
		}
		must(t, s.Delete(dgst))
	}
}

// The blob of a layer that has a sparse file takes what the file does. Zeros
// are not looked for in small pieces: a hole has its price, too.
func TestSparseTakesNoSpace(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	r := rand.New(rand.NewPCG(3, 4))
	const mib = 1 << 20
	for _, test := range []struct {
		name  string
		runs  []int
		chunk int
		most  int64
	}{
		{"a hole between data, as tar comes", []int{0, 512, 64 * mib, 512, 10240}, 256 << 10, 64 << 10},
		{"pieces smaller than a hole", []int{0, 512, 16 * mib, 512}, 32 << 10, 64 << 10},
		{"zeros and nothing else", []int{16 * mib}, 32 << 10, 0},
		{"zeros at the end", []int{0, 5000, 16 * mib}, 1 << 20, 64 << 10},
		{"small holes are no holes", []int{0, 4096, 16 << 10, 4096, 16 << 10, 4096}, 1 << 20, 64 << 10},
	} {
		data := pieces(r, test.runs...)
		w, err := s.NewWriter(t.Context(), "", -1)
		must(t, err)
		_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{bytes.NewReader(data)}, make([]byte, test.chunk))
		must(t, err)
		dgst, err := w.Commit()
		must(t, err)
		must(t, w.Close())
		path, err := s.path(dgst)
		must(t, err)
		blocks, err := du.Blocks(path)
		must(t, err)
		if info, err := s.Stat(dgst); err != nil || info.Size != int64(len(data)) || blocks > test.most {
			t.Errorf("%s: %+v, %v, on %d bytes of blocks, want %d", test.name, info, err, blocks, test.most)
		}
		if got, err := s.ReadAll(dgst, 1<<30); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: read %d bytes, %v", test.name, len(got), err)
		}
	}
}

// A part that ends in zeros is gone on with behind them.
func TestSparsePart(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	data := pieces(rand.New(rand.NewPCG(5, 6)), 0, 100_000, 1<<20, 7, 300_000, 9)
	dgst := digest.FromBytes(data)
	kept := int64(0)
	for _, end := range []int{100_000, 100_100, 500_000, 1 << 20, 1<<20 + 250_000, len(data)} {
		w, err := s.Resume(t.Context(), dgst, int64(len(data)))
		must(t, err)
		if w.Kept() != kept {
			t.Fatalf("%d bytes are kept of %d", w.Kept(), kept)
		}
		_, err = w.Write(data[kept:end])
		must(t, err)
		kept = int64(end)
		if end == len(data) {
			_, err = w.Commit()
			must(t, err)
		}
		must(t, w.Close())
	}
	if got, err := s.ReadAll(dgst, 16<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// What finding zeros costs those who write none; beside it a plain file.
func BenchmarkWrite(b *testing.B) {
	s, err := Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "file")
	data := pieces(rand.New(rand.NewPCG(7, 8)), 0, 64<<20)
	for _, chunk := range []int{4 << 10, 32 << 10, 256 << 10} {
		for name, open := range map[string]func() (io.WriteCloser, error){
			"plain": func() (io.WriteCloser, error) { return os.Create(file) },
			"sparse": func() (io.WriteCloser, error) {
				f, err := os.Create(file)
				return &sparseFile{File: f}, err
			},
			"blob": func() (io.WriteCloser, error) { return s.NewWriter(b.Context(), "", -1) },
		} {
			b.Run(fmt.Sprintf("%s/%dk", name, chunk>>10), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				for range b.N {
					w, err := open()
					if err != nil {
						b.Fatal(err)
					}
					for rest := data; len(rest) > 0; rest = rest[chunk:] {
						if _, err := w.Write(rest[:chunk]); err != nil {
							b.Fatal(err)
						}
					}
					w.Close()
				}
			})
		}
	}
}
