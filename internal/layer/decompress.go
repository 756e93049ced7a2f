package layer

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer/inflate"
)

// Compression is how a stream is packed.
type Compression string

// The compressions Decompress recognises.
const (
	None  Compression = "none"
	Gzip  Compression = "gzip"
	Zstd  Compression = "zstd"
	Xz    Compression = "xz"
	Bzip2 Compression = "bzip2"
)

// What asks for more memory than this to be unpacked is refused: zstd -19 needs
// 8 MB, --ultra -22 128 MB, xz -9 64 MB.
const maxWindow = 128 << 20

// Detect tells the compression from the first bytes of a stream; six suffice.
func Detect(head []byte) Compression {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 0x08}):
		return Gzip
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	case bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")):
		return Xz
	case bytes.HasPrefix(head, []byte("BZh")):
		return Bzip2
	case len(head) >= 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:4], []byte{0x2a, 0x4d, 0x18}):
		return Zstd // a skippable frame, which zstd:chunked may start with
	}
	return None
}

// Decompress recognises gzip, zstd, xz and bzip2 by their first bytes and
// returns the unpacked stream; anything else is passed on as it is. The caller
// closes the returned reader, which leaves r open. Damage shows up as an error
// of Read.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	br := bufio.NewReaderSize(r, 256<<10)
	head, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, None, err
	}
	err = nil // shorter than a magic number: nothing packed
	kind := Detect(head)
	var out io.ReadCloser
	switch kind {
	case Gzip:
		out, err = inflate.NewReader(br)
	case Zstd:
		var d *zstd.Decoder
		if d, err = zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2)); err == nil {
			out = d.IOReadCloser()
		}
	case Xz:
		var x *xz.Reader
		if x, err = xz.NewReader(br, maxWindow); err == nil {
			out = io.NopCloser(x)
		}
	case Bzip2:
		out = io.NopCloser(bzip2.NewReader(br))
	default:
		out = io.NopCloser(br)
	}
	if err != nil {
		return nil, kind, errs.InvalidArgument("cannot decompress (%s): %v", kind, err)
	}
	return out, kind, nil
}
