// Command benchimage makes an image for the benchmark and puts it into a
// registry: layers of a given size that compress to about half, or one layer of
// many small files.
//
//	benchimage -to 127.0.0.1:5000/big:latest [-layers 8] [-size 128] [-files 100000] [-seed 1]
//
// It speaks the distribution protocol by itself, so that no engine under test
// has seen the image before it is pulled.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func main() {
	to := flag.String("to", "", "HOST:PORT/NAME:TAG of the image")
	layers := flag.Int("layers", 8, "layers of large files")
	size := flag.Int64("size", 128, "size of each in MiB")
	files := flag.Int("files", 0, "instead: one layer of so many small files")
	seed := flag.Uint64("seed", 1, "layers of the same seed and size are the same")
	flag.Parse()
	if err := run(*to, *layers, *size<<20, *files, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "benchimage:", err)
		os.Exit(1)
	}
}

func run(to string, layers int, size int64, files int, seed uint64) error {
	host, rest, ok := strings.Cut(to, "/")
	name, tag, tagged := strings.Cut(rest, ":")
	if !ok || !tagged {
		return fmt.Errorf("%q is not HOST:PORT/NAME:TAG", to)
	}
	r := &repository{"http://" + host + "/v2/" + name}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	config.Config.Cmd = []string{"true"}
	config.RootFS.Type = "layers"
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	if files > 0 {
		layers = 1
	}
	for i := range layers {
		write := func(w *tar.Writer) error { return largeFile(w, i, size, seed) }
		if files > 0 {
			write = func(w *tar.Writer) error { return smallFiles(w, files, seed) }
		}
		desc, diffID, err := r.layer(write)
		if err != nil {
			return err
		}
		m.Layers = append(m.Layers, desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		created := time.Unix(int64(i), 0).UTC()
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: "benchimage"})
	}
	encoded, err := json.Marshal(config)
	if err != nil {
		return err
	}
	m.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(encoded), Size: int64(len(encoded))}
	if err := r.blob(m.Config.Digest, bytes.NewReader(encoded), m.Config.Size); err != nil {
		return err
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return r.put("/manifests/"+tag, m.MediaType, bytes.NewReader(manifest), int64(len(manifest)))
}

// largeFile is text for one half and noise for the other, mixed.
func largeFile(w *tar.Writer, i int, size int64, seed uint64) error {
	h := &tar.Header{Name: fmt.Sprintf("data/layer-%d", i), Mode: 0o644, Size: size, ModTime: time.Unix(1, 0)}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	var key [32]byte
	key[0], key[1] = byte(seed), byte(i)
	noise := rand.NewChaCha8(key)
	page := make([]byte, 8192)
	copy(page, bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog, "), 100))
	for left := size; left > 0; left -= int64(len(page)) {
		noise.Read(page[4096:])
		if _, err := w.Write(page[:min(left, int64(len(page)))]); err != nil {
			return err
		}
	}
	return nil
}

func smallFiles(w *tar.Writer, n int, seed uint64) error {
	for i := range n {
		content := fmt.Sprintf("file %d of %d\n%s", i, seed, strings.Repeat("x", i%2000))
		h := &tar.Header{Name: fmt.Sprintf("lib/%03d/f%06d", i/200, i), Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1, 0)}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(w, content); err != nil {
			return err
		}
	}
	return nil
}

type repository struct{ url string }

// layer packs a layer into a file, as its digest has to be known first.
func (r *repository) layer(write func(*tar.Writer) error) (ocispec.Descriptor, digest.Digest, error) {
	f, err := os.CreateTemp("", "benchimage-")
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer f.Close()
	os.Remove(f.Name())
	packed, unpacked := sha256.New(), sha256.New()
	z, err := gzip.NewWriterLevel(io.MultiWriter(f, packed), gzip.BestSpeed)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	w := tar.NewWriter(io.MultiWriter(z, unpacked))
	if err := write(w); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := w.Close(); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := z.Close(); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.NewDigest(digest.SHA256, packed), Size: size}
	return desc, digest.NewDigest(digest.SHA256, unpacked), r.blob(desc.Digest, f, size)
}

// blob uploads in one piece: distribution specification, "POST then PUT".
func (r *repository) blob(dgst digest.Digest, body io.Reader, size int64) error {
	resp, err := http.Post(r.url+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	at, err := resp.Location()
	if err != nil {
		return fmt.Errorf("no upload at %s: %s", r.url, resp.Status)
	}
	q := at.Query()
	q.Set("digest", dgst.String())
	at.RawQuery = q.Encode()
	return put(at.String(), "application/octet-stream", body, size)
}

func (r *repository) put(path, mediaType string, body io.Reader, size int64) error {
	return put(r.url+path, mediaType, body, size)
}

func put(url, mediaType string, body io.Reader, size int64) error {
	req, err := http.NewRequest(http.MethodPut, url, io.NopCloser(body))
	if err != nil {
		return err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return fmt.Errorf("PUT %s: %s %s", url, resp.Status, text)
	}
	return nil
}
