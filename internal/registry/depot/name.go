package depot

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
)

// maxName bounds a repository's name, in bytes. Clients cut off at 255 for the
// name with the registry's host before it (OCI distribution 1.1, "Pulling
// manifests"), so no longer one can be reached by all of them.
const maxName = 255

// CheckRepository fails with ErrInvalidArgument unless the name is one of the
// specification's ("Pulling manifests"):
//
//	[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*
func CheckRepository(name string) error {
	if len(name) > maxName {
		return errs.InvalidArgument("a repository's name has at most %d characters, this one has %d", maxName, len(name))
	}
	for component := range strings.SplitSeq(name, "/") {
		if !validComponent(component) {
			return errs.InvalidArgument("%q is no name of a repository: it is made of lower case letters and digits, separated by one of . _ __ / or hyphens", clip(name))
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// validComponent matches [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func validComponent(s string) bool {
	if s == "" || !alphanumeric(s[0]) || !alphanumeric(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if alphanumeric(s[i]) {
			continue
		}
		start := i
		for i+1 < len(s) && s[i+1] == s[start] {
			i++
		}
		run := i - start + 1
		switch {
		case s[start] == '-', s[start] == '.' && run == 1, s[start] == '_' && run <= 2:
		default:
			return false
		}
		if !alphanumeric(s[i+1]) { // the last character is alphanumeric
			return false
		}
	}
	return true
}

// CheckTag fails with ErrInvalidArgument unless the tag matches the
// specification's [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}.
func CheckTag(tag string) error {
	ok := tag != "" && len(tag) <= 128 && tag[0] != '.' && tag[0] != '-'
	for i := 0; ok && i < len(tag); i++ {
		c := tag[i]
		ok = alphanumeric(c) || 'A' <= c && c <= 'Z' || c == '_' || c == '.' || c == '-'
	}
	if !ok {
		return errs.InvalidArgument("%q is no tag: it has up to 128 letters, digits, underscores, dots and hyphens, and begins with none of the last two", clip(tag))
	}
	return nil
}

// CheckDigest fails with ErrInvalidArgument unless the digest is a well-formed
// one of sha256 or sha512.
func CheckDigest(dgst digest.Digest) error {
	algorithm, encoded, _ := strings.Cut(string(dgst), ":")
	length := 0
	switch digest.Algorithm(algorithm) {
	case digest.SHA256:
		length = 64
	case digest.SHA512:
		length = 128
	default:
		return errs.InvalidArgument("%q is no digest of sha256 or sha512", clip(string(dgst)))
	}
	ok := len(encoded) == length
	for i := 0; ok && i < len(encoded); i++ {
		c := encoded[i]
		ok = '0' <= c && c <= '9' || 'a' <= c && c <= 'f'
	}
	if !ok {
		return errs.InvalidArgument("%q is no digest: %s has %d hexadecimal digits in lower case", clip(string(dgst)), algorithm, length)
	}
	return nil
}

// CheckBoth is CheckRepository and CheckDigest: what arrives from outside before
// it becomes a key.
func CheckBoth(repository string, dgst digest.Digest) error {
	if err := CheckRepository(repository); err != nil {
		return err
	}
	return CheckDigest(dgst)
}

// CheckManifest looks at all names that come with a manifest.
func CheckManifest(repository string, m *Manifest, tags []string) error {
	if err := CheckBoth(repository, m.Digest); err != nil {
		return err
	}
	for _, tag := range tags {
		if err := CheckTag(tag); err != nil {
			return err
		}
	}
	for _, dgst := range m.Names() {
		if err := CheckDigest(dgst); err != nil {
			return err
		}
	}
	return nil
}

// CheckKey fails with ErrInvalidArgument unless the key can be one of Records.
func CheckKey(key string) error {
	ok := key != "" && len(key) <= 512
	for word := range strings.SplitSeq(key, "/") {
		ok = ok && word != "" && word != "." && word != ".."
		for i := 0; ok && i < len(word); i++ {
			c := word[i]
			ok = alphanumeric(c) || 'A' <= c && c <= 'Z' || strings.IndexByte("._:@=+-", c) >= 0
		}
	}
	if !ok {
		return errs.InvalidArgument("%q is no key of a record", clip(key))
	}
	return nil
}
