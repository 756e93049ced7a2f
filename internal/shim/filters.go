package shim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/seccomp"
)

// filters keeps compiled seccomp profiles by the digest of their JSON: nearly
// all containers of a machine have the same one, and it takes longer to read and
// to compile than anything else of a start.
type filters struct {
	mu       sync.Mutex // guards programs
	programs map[string]*seccomp.Program
}

// maxFilters bounds what is kept, at some 10 kB each.
const maxFilters = 64

// compile returns the filter of a profile, which is shared, and its digest.
func (f *filters) compile(profile []byte) (*seccomp.Program, string, error) {
	sum := sha256.Sum256(profile)
	digest := hex.EncodeToString(sum[:])
	if p := f.find(digest); p != nil {
		return p, digest, nil
	}
	var decoded specs.LinuxSeccomp
	if err := json.Unmarshal(profile, &decoded); err != nil {
		return nil, "", errs.InvalidArgument("cannot read the seccomp profile: %w", err)
	}
	p, err := seccomp.Compile(&decoded)
	if err != nil {
		return nil, "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.programs == nil || len(f.programs) >= maxFilters {
		f.programs = map[string]*seccomp.Program{}
	}
	f.programs[digest] = p
	return p, digest, nil
}

func (f *filters) find(digest string) *seccomp.Program {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.programs[digest]
}

func (t *task) profilePath() string { return filepath.Join(t.h.dir(t.id), "seccomp.json") }

// filter is the container's seccomp filter, for an exec; nil when the container
// has none beside its specification. The profile is on the tmpfs with the rest
// of the container: an io that came later compiles it once more.
func (t *task) filter() (*seccomp.Program, error) {
	if t.rec.Seccomp == "" {
		return nil, nil
	}
	if p := t.h.filters.find(t.rec.Seccomp); p != nil {
		return p, nil
	}
	profile, err := os.ReadFile(t.profilePath())
	if err != nil {
		return nil, errs.System("cannot read the seccomp profile of %s: %w", t.key, err)
	}
	p, _, err := t.h.filters.compile(profile)
	return p, err
}
