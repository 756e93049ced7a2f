package ocispec

import (
	"crypto/sha256"
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// seccompProfile chooses the profile: the container's, then the engine's, then
// the built-in one. A privileged container has none unless it brings its own.
func seccompProfile(s *specs.Spec, in *Input, own string) (err error) {
	source := own
	if source == "" && in.HostConfig.Privileged {
		return nil
	}
	if source == "" {
		source = in.SeccompProfile
		if source != "" && source != "unconfined" && source != "builtin" {
			b, err := os.ReadFile(source)
			if err != nil {
				return describe("cannot read the engine's seccomp profile", err)
			}
			source = string(b)
		}
	}
	if source == "unconfined" {
		return nil
	}
	if s.Linux.Seccomp, err = profiles.resolve(source, s); err != nil {
		return invalid("cannot load the seccomp profile: %w", err)
	}
	return nil
}

// EncodeSeccomp is the JSON of a profile that Build has chosen. Equal choices
// give the same bytes, which belong to this package: nobody changes them.
func EncodeSeccomp(p *specs.LinuxSeccomp) (json.RawMessage, error) { return profiles.encode(p) }

// profiles are the resolved ones. What a profile allows depends on its source
// and on the capabilities of the container (and on this machine, which stays
// the same); nearly all containers agree in both, and to resolve and encode one
// takes longer than all the rest of a configuration.
var profiles profileCache

type profileCache struct {
	mu      sync.Mutex // guards the maps
	chosen  map[profileKey]*specs.LinuxSeccomp
	encoded map[*specs.LinuxSeccomp]json.RawMessage
}

type profileKey struct {
	source [sha256.Size]byte
	caps   string
}

// maxProfiles bounds the cache, at some 50 kB each.
const maxProfiles = 32

// resolve returns the profile for a container with the capabilities of s. It is
// shared: nobody changes it.
func (c *profileCache) resolve(source string, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	key := profileKey{sha256.Sum256([]byte(source)), strings.Join(s.Process.Capabilities.Bounding, " ")}
	c.mu.Lock()
	p, ok := c.chosen[key]
	c.mu.Unlock()
	if ok {
		return p, nil
	}
	p, err := loadSeccomp(source, s)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chosen == nil || len(c.chosen) >= maxProfiles {
		c.chosen = map[profileKey]*specs.LinuxSeccomp{}
		c.encoded = map[*specs.LinuxSeccomp]json.RawMessage{}
	}
	c.chosen[key] = p
	return p, nil
}

func (c *profileCache) encode(p *specs.LinuxSeccomp) (json.RawMessage, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if raw, ok := c.encoded[p]; ok {
		return raw, nil
	}
	raw, err := json.Marshal(p)
	if err == nil && c.encoded != nil && len(c.encoded) < maxProfiles {
		c.encoded[p] = raw
	}
	return raw, err
}

// loadSeccomp reads a profile in Docker's format, or the built-in one.
func loadSeccomp(source string, s *specs.Spec) (*specs.LinuxSeccomp, error) {
	if source != "" && source != "builtin" {
		return seccomp.LoadProfile(source, s)
	}
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		return nil, nil
	}
	return seccomp.GetDefaultProfile(s)
}
