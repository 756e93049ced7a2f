package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"testing/iotest"

	kgzip "github.com/klauspost/compress/gzip"
)

// inputs are data of every kind a compressor treats in its own way.
func inputs() map[string][]byte {
	random := make([]byte, 300_000)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(random)
	few := bytes.Clone(random)
	for i := range few {
		few[i] = "abcdefgh"[few[i]&7]
	}
	program, _ := os.ReadFile("/proc/self/exe")
	far := append(bytes.Clone(random[:window]), random[:window]...)
	skewed := make([]byte, 200_000) // codes of very different lengths
	for i := range skewed {
		for skewed[i] < 40 && random[(i*7+int(skewed[i])*13)%len(random)]&1 == 0 {
			skewed[i]++
		}
	}
	return map[string][]byte{
		"nothing": {}, "a byte": {'x'}, "zeros": make([]byte, 400_000), "random": random, "few": few, "far": far, "skewed": skewed,
		"program": program[:min(len(program), 1<<20)], "text": bytes.Repeat([]byte("all the king's horses and all the king's men\n"), 5000),
	}
}

func decompress(r io.Reader) ([]byte, error) {
	z, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func TestReader(t *testing.T) {
	for name, data := range inputs() {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			var packed bytes.Buffer
			w, err := gzip.NewWriterLevel(&packed, level)
			if err != nil {
				t.Fatal(err)
			}
			w.Name, w.Comment, w.Extra = "name", "comment", []byte("extra")
			for i := 0; i < len(data); i += 70_000 {
				w.Write(data[i:min(i+70_000, len(data))])
				w.Flush()
			}
			w.Close()
			got, err := decompress(&packed)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, level %d: %d bytes of %d, %v", name, level, len(got), len(data), err)
			}
		}
	}
}

// Other programs compress in other ways, and write what they write in parts.
func TestReaderPeers(t *testing.T) {
	for name, data := range inputs() {
		for _, args := range [][]string{{"gzip", "-1"}, {"gzip", "-9"}, {"pigz"}, {"zopfli", "-c"}} {
			if _, err := exec.LookPath(args[0]); err != nil {
				continue
			}
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stdin = bytes.NewReader(data)
			packed, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			for kind, r := range map[string]io.Reader{
				"whole": bytes.NewReader(packed), "halves": iotest.HalfReader(bytes.NewReader(packed)),
				"with its end": iotest.DataErrReader(bytes.NewReader(packed)),
				"twice":        io.MultiReader(bytes.NewReader(packed), bytes.NewReader(packed)),
			} {
				want := data
				if kind == "twice" {
					want = append(bytes.Clone(data), data...)
				}
				if got, err := decompress(r); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s by %q, %s: %d bytes of %d, %v", name, args, kind, len(got), len(want), err)
				}
			}
		}
	}
	small := pack(t, []byte("byte by byte"))
	if got, err := decompress(iotest.OneByteReader(bytes.NewReader(small))); err != nil || string(got) != "byte by byte" {
		t.Errorf("%q, %v", got, err)
	}
}

func pack(t testing.TB, data []byte) []byte {
	var packed bytes.Buffer
	w := kgzip.NewWriter(&packed)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

// What is cut off or damaged anywhere is an error, and the same as for others.
func TestReaderDamaged(t *testing.T) {
	packed := pack(t, inputs()["program"][:5000])
	for i := range packed {
		if _, err := decompress(bytes.NewReader(packed[:i])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d of %d: %v", i, len(packed), err)
		}
		damaged := bytes.Clone(packed)
		damaged[i] ^= 1 << (i % 8)
		compare(t, damaged)
	}
	failure := errors.New("the link broke")
	if _, err := decompress(io.MultiReader(bytes.NewReader(packed[:1000]), iotest.ErrReader(failure))); err != failure {
		t.Errorf("a failed read: %v", err)
	}
}

// compare holds the reader against that of the standard library.
func compare(t testing.TB, data []byte) {
	t.Helper()
	var want []byte
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err == nil {
		want, err = io.ReadAll(io.LimitReader(r, 16<<20))
		if len(want) == 16<<20 {
			return
		}
	}
	got, gotErr := decompress(bytes.NewReader(data))
	if (err == nil) != (gotErr == nil) || err == nil && !bytes.Equal(got, want) {
		t.Fatalf("%d bytes (%v) where there should be %d (%v), of %x", len(got), gotErr, len(want), err, data)
	}
	if len(got) > len(want) && !bytes.HasPrefix(got, want) || len(got) < len(want) && !bytes.HasPrefix(want, got) {
		t.Fatalf("the beginning differs, of %x", data)
	}
}

func FuzzReader(f *testing.F) {
	for _, data := range inputs() {
		f.Add(pack(f, data[:min(len(data), 500)]))
	}
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x01\x03\x00\xfc\xffabc\xc2A$5\x03\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) { compare(t, data) })
}

func BenchmarkReader(b *testing.B) {
	data := inputs()["program"]
	packed := pack(b, data)
	for name, open := range map[string]func(io.Reader) (io.ReadCloser, error){
		"ours":      func(r io.Reader) (io.ReadCloser, error) { return NewReader(r) },
		"klauspost": func(r io.Reader) (io.ReadCloser, error) { return kgzip.NewReader(r) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for range b.N {
				r, err := open(bytes.NewReader(packed))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(data)) {
					b.Fatal(n, err)
				}
			}
		})
	}
}
