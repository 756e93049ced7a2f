package cli

import (
	"errors"
	"fmt"
	"strings"
)

// imageRef is an image's name in its parts, with Docker's defaults filled in.
type imageRef struct {
	domain string // docker.io
	path   string // library/busybox
	tag    string
	digest string
	isID   bool // 64 hexadecimal digits: an image's ID, not a name
}

// errReference is worded as Docker words it; scripts look for it.
var errReference = errors.New("invalid reference format")

// parseRef reads [domain/]path[:tag][@digest]. It is written by hand because
// the usual library compiles a dozen regular expressions at start.
func parseRef(s string) (imageRef, error) {
	var r imageRef
	if isHex(s, 64) {
		return imageRef{isID: true}, nil
	}
	if rest, ok := strings.CutPrefix(s, "sha256:"); ok && isHex(rest, 64) {
		return imageRef{isID: true}, nil
	}
	name, digest, hasDigest := strings.Cut(s, "@")
	if hasDigest && !validDigest(digest) {
		return r, errReference
	}
	r.digest = digest
	if i := strings.LastIndexByte(name, ':'); i >= 0 && !strings.Contains(name[i:], "/") {
		name, r.tag = name[:i], name[i+1:]
		if !validTag(r.tag) {
			return r, errReference
		}
	}
	r.domain, r.path = splitDomain(name)
	if strings.ToLower(r.path) != r.path {
		return r, fmt.Errorf("invalid reference format: repository name (%s) must be lowercase", r.path)
	}
	if !validDomain(r.domain) || !validPath(r.path) || len(r.path) > 255 {
		return r, errReference
	}
	return r, nil
}

// splitDomain takes the first part for a registry when it looks like a host.
func splitDomain(name string) (domain, path string) {
	first, rest, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		domain, path = "docker.io", name
	} else {
		domain, path = first, rest
	}
	if domain == "index.docker.io" {
		domain = "docker.io"
	}
	if domain == "docker.io" && !strings.Contains(path, "/") {
		path = "library/" + path
	}
	return domain, path
}

// withDefaultTag adds latest when neither tag nor digest was given.
func (r imageRef) withDefaultTag() imageRef {
	if r.tag == "" && r.digest == "" && !r.isID {
		r.tag = "latest"
	}
	return r
}

// name is the repository with its registry: docker.io/library/busybox.
func (r imageRef) name() string { return r.domain + "/" + r.path }

// familiarName leaves out what Docker Hub implies: busybox.
func (r imageRef) familiarName() string {
	if r.domain != "docker.io" {
		return r.name()
	}
	if rest, ok := strings.CutPrefix(r.path, "library/"); ok && !strings.Contains(rest, "/") {
		return rest
	}
	return r.path
}

// suffix is :tag and @digest.
func (r imageRef) suffix() string {
	s := ""
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + r.digest
	}
	return s
}

// familiar is how a person would write the reference, with its tag.
func (r imageRef) familiar() string {
	r = r.withDefaultTag()
	return r.familiarName() + r.suffix()
}

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

func validDigest(s string) bool {
	algo, hex, ok := strings.Cut(s, ":")
	if !ok || len(hex) < 32 || strings.Trim(hex, "0123456789abcdefABCDEF") != "" {
		return false
	}
	for _, part := range strings.FieldsFunc(algo+"\x00", func(r rune) bool { return strings.ContainsRune("+._-", r) }) {
		part = strings.TrimSuffix(part, "\x00")
		if part == "" || !isLetter(part[0]) || !isWord(part) {
			return false
		}
	}
	switch algo {
	case "sha256":
		return isHex(hex, 64)
	case "sha384":
		return isHex(hex, 96)
	case "sha512":
		return isHex(hex, 128)
	}
	return false
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isAlnum(c byte) bool  { return isLetter(c) || '0' <= c && c <= '9' }

func isWord(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) {
			return false
		}
	}
	return s != ""
}

func validTag(s string) bool {
	if s == "" || len(s) > 128 || !isAlnum(s[0]) && s[0] != '_' {
		return false
	}
	for i := range len(s) {
		if !isAlnum(s[i]) && !strings.Contains("_.-", s[i:i+1]) {
			return false
		}
	}
	return true
}

// validPath accepts components of lower-case letters and digits, separated
// within by one dot, one or two underscores, or any number of hyphens.
func validPath(path string) bool {
	for _, part := range strings.Split(path, "/") {
		if !validComponent(part) {
			return false
		}
	}
	return true
}

func validComponent(s string) bool {
	if s == "" || !isAlnum(s[0]) || !isAlnum(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if isAlnum(s[i]) {
			i++
			continue
		}
		j := i
		for j < len(s) && !isAlnum(s[j]) {
			j++
		}
		sep := s[i:j]
		if sep != "." && sep != "_" && sep != "__" && strings.Trim(sep, "-") != "" {
			return false
		}
		i = j
	}
	return true
}

// validDomain accepts host names and addresses, an IPv6 one in brackets, with
// an optional port.
func validDomain(domain string) bool {
	host := domain
	if strings.HasPrefix(domain, "[") {
		addr, rest, ok := strings.Cut(domain[1:], "]")
		if !ok || addr == "" || strings.Trim(addr, "0123456789abcdefABCDEF:") != "" {
			return false
		}
		return rest == "" || strings.HasPrefix(rest, ":") && isDigits(rest[1:])
	}
	if h, port, ok := strings.Cut(domain, ":"); ok {
		if !isDigits(port) {
			return false
		}
		host = h
	}
	for _, label := range strings.Split(host, ".") {
		if label == "" || !isAlnum(label[0]) || !isAlnum(label[len(label)-1]) || !isWord(strings.ReplaceAll(label, "-", "a")) {
			return false
		}
	}
	return true
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
