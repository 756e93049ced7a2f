package image

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// ParsePlatform reads a platform as people write it: "linux/arm64/v8", "arm64",
// "linux". What is left out is the host's.
func ParsePlatform(s string) (ocispec.Platform, error) {
	host := HostPlatform()
	parts := strings.Split(strings.ToLower(s), "/")
	for _, part := range parts {
		if part == "" || strings.Trim(part, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
			return host, errs.InvalidArgument("%q is an invalid platform: it should be os/architecture or os/architecture/variant", s)
		}
	}
	switch len(parts) {
	case 1:
		if parts[0] == "linux" || parts[0] == "windows" || parts[0] == "darwin" || parts[0] == "freebsd" {
			return ocispec.Platform{OS: parts[0], Architecture: host.Architecture, Variant: host.Variant}, nil
		}
		p := normalize(ocispec.Platform{OS: host.OS, Architecture: parts[0]})
		if !slices.Contains(knownArchitectures(), p.Architecture) {
			return host, errs.InvalidArgument("%q is an unknown operating system or architecture", s)
		}
		return p, nil
	case 2:
		return normalize(ocispec.Platform{OS: parts[0], Architecture: parts[1]}), nil
	case 3:
		return normalize(ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}), nil
	}
	return host, errs.InvalidArgument("%q is an invalid platform: it should be os/architecture or os/architecture/variant", s)
}

func knownArchitectures() []string {
	return []string{"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle",
		"ppc64", "ppc64le", "riscv64", "s390x", "wasm"}
}

// FormatPlatform is the reverse of ParsePlatform.
func FormatPlatform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// normalize writes a platform in one way of the several that are in use.
func normalize(p ocispec.Platform) ocispec.Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	if p.OS == "macos" {
		p.OS = "darwin"
	}
	switch p.Architecture {
	case "i386", "i486", "i586", "i686":
		p.Architecture, p.Variant = "386", ""
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	switch p.Architecture {
	case "amd64":
		if p.Variant == "v1" {
			p.Variant = ""
		}
	case "arm64":
		if p.Variant == "8" || p.Variant == "v8" {
			p.Variant = ""
		}
	case "arm":
		switch p.Variant {
		case "":
			p.Variant = "v7"
		case "5", "6", "7", "8":
			p.Variant = "v" + p.Variant
		}
	}
	return p
}

// runnable lists the platforms whose programs run where p's do, p first, the
// better before the worse.
func runnable(p ocispec.Platform) []ocispec.Platform {
	p = normalize(p)
	list := []ocispec.Platform{p}
	add := func(architecture string, variants ...string) {
		for _, v := range variants {
			list = append(list, ocispec.Platform{OS: p.OS, Architecture: architecture, Variant: v})
		}
	}
	switch p.Architecture {
	case "amd64":
		all := []string{"v4", "v3", "v2", ""}
		if i := slices.Index(all, p.Variant); i >= 0 {
			add("amd64", all[i+1:]...)
		}
		add("386", "")
	case "arm64":
		if p.Variant != "" {
			add("arm64", "")
		}
		add("arm", "v8", "v7", "v6", "v5")
	case "arm":
		all := []string{"v8", "v7", "v6", "v5"}
		if i := slices.Index(all, p.Variant); i >= 0 {
			add("arm", all[i+1:]...)
		}
	}
	return list
}

// rank tells how good a match have is for want: 0 is exact, more is worse, and
// negative is none.
func rank(want, have ocispec.Platform) int {
	unsaid := have.Variant == ""
	have = normalize(have)
	for i, p := range runnable(want) {
		if p.OS == have.OS && p.Architecture == have.Architecture &&
			(p.Variant == have.Variant || unsaid && i == 0) {
			return i
		}
	}
	return -1
}
