package digest

import (
	"crypto"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// Algorithm names a hash.
type Algorithm string

// The registered algorithms. A program can use one when it links its crypto
// package.
const (
	SHA256 Algorithm = "sha256"
	SHA384 Algorithm = "sha384"
	SHA512 Algorithm = "sha512"

	// Canonical is the algorithm of digests that are made, not checked.
	Canonical = SHA256
)

// hash is 0 when the algorithm is not registered.
func (a Algorithm) hash() crypto.Hash {
	switch a {
	case SHA256:
		return crypto.SHA256
	case SHA384:
		return crypto.SHA384
	case SHA512:
		return crypto.SHA512
	}
	return 0
}

// Available says whether the algorithm is registered and linked.
func (a Algorithm) Available() bool { return a.hash().Available() }

func (a Algorithm) String() string { return string(a) }

// Size is the length of the hash in bytes; 0 when the algorithm is not
// registered.
func (a Algorithm) Size() int {
	if a.hash() == 0 {
		return 0
	}
	return a.hash().Size()
}

// Hash begins a hash. It panics when the algorithm is not available.
func (a Algorithm) Hash() hash.Hash {
	if !a.Available() {
		panic(fmt.Sprintf("digest algorithm %q is not available: is its package imported?", string(a)))
	}
	return a.hash().New()
}

// Encode writes a hash as this algorithm's digests do, in small hexadecimal.
func (a Algorithm) Encode(sum []byte) string { return hex.EncodeToString(sum) }

// Validate checks the encoded part of a digest: its length first.
func (a Algorithm) Validate(encoded string) error {
	size := a.Size()
	if size == 0 {
		return ErrDigestUnsupported
	}
	if len(encoded) != 2*size {
		return ErrDigestInvalidLength
	}
	for i := range len(encoded) {
		if c := encoded[i]; !('a' <= c && c <= 'f' || '0' <= c && c <= '9') {
			return ErrDigestInvalidFormat
		}
	}
	return nil
}

// FromReader is the digest of all that r has.
func (a Algorithm) FromReader(r io.Reader) (Digest, error) {
	d := a.Digester()
	if _, err := io.Copy(d.Hash(), r); err != nil {
		return "", err
	}
	return d.Digest(), nil
}

// FromBytes is the digest of p.
func (a Algorithm) FromBytes(p []byte) Digest {
	d := a.Digester()
	d.Hash().Write(p)
	return d.Digest()
}

// FromString is the digest of s.
func (a Algorithm) FromString(s string) Digest { return a.FromBytes([]byte(s)) }

// Digester hashes what is written to its Hash.
type Digester interface {
	Hash() hash.Hash // the same one at every call
	Digest() Digest  // of what was written so far
}

// Digester panics when the algorithm is not available.
func (a Algorithm) Digester() Digester { return &digester{a, a.Hash()} }

type digester struct {
	alg  Algorithm
	hash hash.Hash
}

func (d *digester) Hash() hash.Hash { return d.hash }
func (d *digester) Digest() Digest  { return NewDigest(d.alg, d.hash) }
