package registry

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blobSize is that of a large layer.
const blobSize = 256 << 20

// BenchmarkBlob reads a blob from loopback, beside what Go's own client does
// with the same server in the same run.
func BenchmarkBlob(b *testing.B) {
	file, err := os.Create(filepath.Join(b.TempDir(), "blob"))
	if err == nil {
		defer file.Close()
		err = file.Truncate(blobSize)
	}
	if err != nil {
		b.Fatal(err)
	}
	s, host := serve(b, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(blobSize))
		io.Copy(w, io.NewSectionReader(file, 0, blobSize))
	})
	desc := ocispec.Descriptor{Digest: digest.FromString("x"), Size: blobSize}
	buffer := make([]byte, 256<<10)
	drain := func(b *testing.B, r io.ReadCloser, err error) {
		if err == nil {
			defer r.Close()
			_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buffer)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Run("gantry", func(b *testing.B) {
		repo := repository(b, New(Options{Settings: Settings{HostDirs: []string{}}}), host+"/web", nil)
		b.SetBytes(blobSize)
		b.ReportAllocs()
		for b.Loop() {
			r, err := repo.Blob(b.Context(), desc, 0)
			drain(b, r, err)
		}
	})
	b.Run("net-http", func(b *testing.B) {
		b.SetBytes(blobSize)
		for b.Loop() {
			resp, err := http.Get(s.URL)
			if err != nil {
				b.Fatal(err)
			}
			drain(b, resp.Body, nil)
		}
	})
}

// BenchmarkPushBlob uploads to loopback.
func BenchmarkPushBlob(b *testing.B) {
	file, err := os.Create(filepath.Join(b.TempDir(), "blob"))
	if err == nil {
		defer file.Close()
		err = file.Truncate(blobSize)
	}
	if err != nil {
		b.Fatal(err)
	}
	_, host := serve(b, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodHead:
			w.WriteHeader(404)
		case http.MethodPost:
			w.Header().Set("Location", "/upload")
			w.WriteHeader(202)
		case http.MethodPut:
			io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 256<<10))
			w.WriteHeader(201)
		}
	})
	desc := ocispec.Descriptor{Digest: digest.FromString("x"), Size: blobSize}
	repo := repository(b, New(Options{Settings: Settings{HostDirs: []string{}}}), host+"/web", nil)
	b.SetBytes(blobSize)
	b.ReportAllocs()
	for b.Loop() {
		_, err := repo.PushBlob(b.Context(), desc, func(_ context.Context, at int64) (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(file, at, blobSize-at)), nil
		}, PushOptions{Progress: func(int64) {}})
		if err != nil {
			b.Fatal(err)
		}
	}
}
