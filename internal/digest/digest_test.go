package digest

import (
	"crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
)

const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestDigestsOfContent(t *testing.T) {
	want := Digest("sha256:" + empty)
	fromReader, err := FromReader(strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	for _, got := range []Digest{FromString(""), FromBytes(nil), fromReader, NewDigest(SHA256, sha256.New()), NewDigestFromBytes(SHA256, sum[:]), NewDigestFromEncoded(SHA256, empty)} {
		if got != want {
			t.Errorf("the digest of nothing is %s", got)
		}
	}
	if want.Algorithm() != SHA256 || want.Encoded() != empty || want.Hex() != empty {
		t.Errorf("%s has the parts %q and %q", want, want.Algorithm(), want.Encoded())
	}
	for alg, length := range map[Algorithm]int{SHA256: 64, SHA384: 96, SHA512: 128} {
		if d := alg.FromString("x"); len(d.Encoded()) != length || d.Validate() != nil {
			t.Errorf("%s made %s: %v", alg, d, d.Validate())
		}
	}
}

// What does not match its digest must not pass.
func TestVerifierNoticesEveryByte(t *testing.T) {
	v := FromString("layer").Verifier()
	io.WriteString(v, "laye")
	if v.Verified() {
		t.Error("a part passes for the whole")
	}
	io.WriteString(v, "r")
	if !v.Verified() {
		t.Error("the content does not match its own digest")
	}
	io.WriteString(v, "s")
	if v.Verified() {
		t.Error("more than the content passes for it")
	}
}

func TestValidateSaysWhatIsWrong(t *testing.T) {
	for s, want := range map[string]error{
		"sha256:" + empty:                  nil,
		"":                                 ErrDigestInvalidFormat,
		":" + empty:                        ErrDigestInvalidFormat,
		"sha256:":                          ErrDigestInvalidFormat,
		"sha256":                           ErrDigestInvalidFormat,
		"sha256:" + empty[1:]:              ErrDigestInvalidLength,
		"sha256:" + empty + "\n":           ErrDigestInvalidLength,
		"sha256:" + empty[:63] + "\n":      ErrDigestInvalidFormat,
		"sha256:" + strings.ToUpper(empty): ErrDigestInvalidFormat,
		"sha512:" + empty:                  ErrDigestInvalidLength,
		"sha256:../../../etc":              ErrDigestInvalidLength,
		"blake3:abc_-=":                    ErrDigestUnsupported,
		"multihash+base58:QmRZx":           ErrDigestUnsupported,
		"a..b:c":                           ErrDigestInvalidFormat,
		"blake3:a/b":                       ErrDigestInvalidFormat,
	} {
		if _, err := Parse(s); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", s, err, want)
		}
	}
}

// The grammar, as the specification writes it.
func FuzzValidate(f *testing.F) {
	for _, s := range []string{"sha256:" + empty, "sha256:x", "blake3:abc", "a+b.c_d-e:Z=_-", "a++b:c", "-a:b", "a-:b", "a:b:c", "é:b", ""} {
		f.Add(s)
	}
	grammar := regexp.MustCompile(`^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$`)
	known := regexp.MustCompile(`^(sha256:[a-f0-9]{64}|sha384:[a-f0-9]{96}|sha512:[a-f0-9]{128})$`)
	f.Fuzz(func(t *testing.T, s string) {
		err := Digest(s).Validate()
		if ok := err == nil; ok != known.MatchString(s) {
			t.Errorf("%q: %v", s, err)
		}
		if unsupported := errors.Is(err, ErrDigestUnsupported); unsupported && !grammar.MatchString(s) {
			t.Errorf("%q is no digest, and not one of another algorithm either", s)
		}
		if alg, _, _ := strings.Cut(s, ":"); grammar.MatchString(s) && !Algorithm(alg).Available() && !errors.Is(err, ErrDigestUnsupported) {
			t.Errorf("%q: %v, though its algorithm only is unknown", s, err)
		}
	})
}
