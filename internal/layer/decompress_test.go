package layer

import (
	"bytes"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// packed is what a tool makes of data; the test is skipped without the tool.
func packed(t testing.TB, data string, tool ...string) []byte {
	t.Helper()
	cmd := exec.Command(tool[0], tool[1:]...)
	cmd.Stdin = strings.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("%s does not compress here: %v", tool[0], err)
	}
	return out
}

// What a person would lose: a few bytes from a registry that say how much memory
// unpacking them takes would take all of the daemon's, also when harmless ones come
// first.
func TestGreedyDictionaries(t *testing.T) {
	const text = "a layer\n"
	greedy := packed(t, text, "xz", "-c", "--lzma2=preset=0,dict=1536MiB")
	for name, stream := range map[string][]byte{
		"at once":           greedy,
		"in another stream": append(packed(t, text, "xz", "-c"), greedy...),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r, _, err := Decompress(bytes.NewReader(stream))
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: it was unpacked", name)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > maxWindow {
			t.Errorf("%s: it took %d MB", name, took>>20)
		}
	}
	most, _, err := Decompress(bytes.NewReader(packed(t, text, "xz", "-9e", "-c")))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(most); err != nil || string(got) != text {
		t.Errorf("xz -9: %q, %v", got, err)
	}
}

// FuzzDecompress feeds the decompressors what no compressor wrote: an error is
// all that may come of it.
func FuzzDecompress(f *testing.F) {
	for _, tool := range [][]string{{"gzip", "-c"}, {"zstd", "-qc"}, {"xz", "-c"}, {"xz", "-c", "--check=sha256"}, {"xz", "-c", "--x86", "--lzma2"}, {"bzip2", "-c"}} {
		if _, err := exec.LookPath(tool[0]); err == nil {
			f.Add(packed(f, strings.Repeat("what is in a layer ", 30), tool...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, _, err := Decompress(bytes.NewReader(data))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.CopyN(io.Discard, r, 1<<20)
	})
}
