// Package digest is the digests of the OCI image specification (descriptor.md,
// "Digests"): an algorithm, a colon and the encoded hash.
//
// It stands in for github.com/opencontainers/go-digest, by a replace directive
// in go.mod, because every type of the Engine API leads there and that package
// compiles five regular expressions before main: as long as all of gantry's
// other packages take together to begin. It has the same names, answers and
// errors, as far as something we link uses them; what it must not have is work
// at the start of a program.
package digest

import (
	"errors"
	"hash"
	"io"
	"strings"
)

// Errors of Parse and Validate, and of nothing else.
var (
	ErrDigestInvalidFormat = errors.New("invalid checksum digest format")
	ErrDigestInvalidLength = errors.New("invalid checksum digest length")
	ErrDigestUnsupported   = errors.New("unsupported digest algorithm")
)

// Digest is ALGORITHM:ENCODED. One that came from outside is a string like any
// other until Parse or Validate has agreed to it.
type Digest string

// NewDigest is what has been written to h, which alg made.
func NewDigest(alg Algorithm, h hash.Hash) Digest {
	return NewDigestFromBytes(alg, h.Sum(nil))
}

// NewDigestFromBytes encodes a hash.
func NewDigestFromBytes(alg Algorithm, sum []byte) Digest {
	return NewDigestFromEncoded(alg, alg.Encode(sum))
}

// NewDigestFromEncoded puts the two parts together without a look at them.
func NewDigestFromEncoded(alg Algorithm, encoded string) Digest {
	return Digest(string(alg) + ":" + encoded)
}

// Parse returns s as a digest, and says with the error what it lacks to be one.
func Parse(s string) (Digest, error) {
	d := Digest(s)
	return d, d.Validate()
}

// FromReader is the canonical digest of all that r has.
func FromReader(r io.Reader) (Digest, error) { return Canonical.FromReader(r) }

// FromBytes is the canonical digest of p.
func FromBytes(p []byte) Digest { return Canonical.FromBytes(p) }

// FromString is the canonical digest of s.
func FromString(s string) Digest { return Canonical.FromString(s) }

// Validate checks the form and, of an algorithm that is known, the length. A
// digest of good form whose algorithm is not linked is ErrDigestUnsupported.
func (d Digest) Validate() error {
	alg, encoded, ok := strings.Cut(string(d), ":")
	if !ok || alg == "" || encoded == "" {
		return ErrDigestInvalidFormat
	}
	if a := Algorithm(alg); a.Available() {
		return a.Validate(encoded)
	}
	if !isAlgorithm(alg) || !isEncoded(encoded) {
		return ErrDigestInvalidFormat
	}
	return ErrDigestUnsupported
}

// isAlgorithm says whether s is what the grammar calls an algorithm: components
// of small letters and digits with one separator between them.
func isAlgorithm(s string) bool {
	separated := true
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			separated = false
		case strings.IndexByte("+._-", c) >= 0 && !separated:
			separated = true
		default:
			return false
		}
	}
	return !separated
}

func isEncoded(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '=' || c == '_' || c == '-') {
			return false
		}
	}
	return s != ""
}

// Algorithm is the part before the colon. It panics when there is no colon.
func (d Digest) Algorithm() Algorithm { alg, _ := d.parts(); return Algorithm(alg) }

// Encoded is the part after the colon. It panics when there is no colon.
func (d Digest) Encoded() string { _, encoded := d.parts(); return encoded }

// Hex is what Encoded was called.
//
// Deprecated: say Encoded.
func (d Digest) Hex() string { return d.Encoded() }

func (d Digest) String() string { return string(d) }

func (d Digest) parts() (alg, encoded string) {
	alg, encoded, ok := strings.Cut(string(d), ":")
	if !ok {
		panic(`no ':' separator in digest "` + string(d) + `"`)
	}
	return alg, encoded
}

// Verifier is written the content whose digest d may be.
type Verifier interface {
	io.Writer

	// Verified says whether what was written so far has the digest.
	Verified() bool
}

// Verifier panics when d is no digest of an algorithm that is linked.
func (d Digest) Verifier() Verifier {
	return verifier{d.Algorithm().Hash(), d}
}

type verifier struct {
	hash.Hash
	digest Digest
}

func (v verifier) Verified() bool {
	return v.digest == NewDigest(v.digest.Algorithm(), v.Hash)
}
