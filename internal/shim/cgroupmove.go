package shim

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// CgroupName is the shim's own cgroup: there is one for each exec root. A shim
// that was killed leaves it behind, empty.
func CgroupName(execRoot string) string {
	execRoot = filepath.Clean(execRoot)
	if execRoot == "/run/gantry" {
		return "/gantry-shim"
	}
	sum := sha256.Sum256([]byte(execRoot))
	return "/g" + hex.EncodeToString(sum[:])[:6] + "-shim"
}

// leaveCgroup moves the process out of the daemon's cgroup. Where that is not
// possible the shim works as well, until somebody stops the daemon's cgroup.
func leaveCgroup(execRoot string, log *slog.Logger) {
	cg := cgroup.New(CgroupName(execRoot))
	err := cg.Create(nil)
	if err == nil {
		err = cg.Add(os.Getpid())
	}
	if err != nil {
		log.Warn("the shim stays in the cgroup of the daemon", "error", err)
	}
}

// removeCgroup moves the process, which is about to end, to the root of each
// hierarchy, and removes the shim's cgroup. What is left of it does no harm.
func removeCgroup(execRoot string) {
	cg := cgroup.New(CgroupName(execRoot))
	pid := []byte(strconv.Itoa(os.Getpid()))
	for _, file := range cg.ProcsFiles() {
		dir := filepath.Dir(file)
		os.WriteFile(filepath.Join(filepath.Dir(dir), "cgroup.procs"), pid, 0)
	}
	cg.Delete()
}
