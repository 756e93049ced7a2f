package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// manyFiles is an archive of n small files, a hundred to a directory.
func manyFiles(t testing.TB, n int) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	content := bytes.Repeat([]byte("x"), 700)
	for i := range n {
		if i%100 == 0 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("usr/share/d%d/", i/100), Mode: 0o755, ModTime: someTime}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("usr/share/d%d/file%d", i/100, i), Mode: 0o644, Size: int64(len(content)), ModTime: someTime}); err != nil {
			t.Fatal(err)
		}
		w.Write(content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// BenchmarkUnpack100k unpacks 100,000 small files, and lets tar do the same.
func BenchmarkUnpack100k(b *testing.B) {
	data := manyFiles(b, 100_000)
	run := func(name string, unpack func(dir string) error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				dir, err := os.MkdirTemp("", "gantry-bench-")
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				err = unpack(dir)
				b.StopTimer()
				os.RemoveAll(dir)
				if err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(100_000*float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
	run("gantry", func(dir string) error {
		root, err := os.Open(dir)
		if err != nil {
			return err
		}
		defer root.Close()
		_, err = Unpack(context.Background(), root, bytes.NewReader(data), UnpackOptions{Whiteouts: Overlay})
		return err
	})
	if _, err := exec.LookPath("tar"); err != nil {
		return
	}
	run("tar", func(dir string) error {
		cmd := exec.Command("tar", "-C", dir, "-xf", "-")
		cmd.Stdin = bytes.NewReader(data)
		return cmd.Run()
	})
}
