package depot

import (
	"io"

	"github.com/opencontainers/go-digest"
)

// Sized reads from r and holds what comes against the size that was promised, in
// bytes: when there is more or less, reading fails with a *Mismatch.
func Sized(r io.Reader, dgst digest.Digest, size int64) io.Reader {
	return &sized{r: r, want: size, digest: dgst}
}

type sized struct {
	r      io.Reader
	n      int64
	want   int64
	digest digest.Digest
}

func (s *sized) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n += int64(n)
	if s.n > s.want || err == io.EOF && s.n != s.want {
		err = &Mismatch{Want: s.digest, WantSize: s.want, GotSize: s.n}
	}
	return n, err
}
