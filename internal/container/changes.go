package container

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/snapshot"
)

// marker is the file by which programs tell that they run in a container.
const marker = ".dockerenv"

// writableDir is where the writable layer of a container is; upper says that
// nothing of the image is in there.
func (m *Manager) writableDir(id string) (dir string, upper bool, err error) {
	mounts, err := m.opts.Snapshots.Mounts(id)
	for _, mnt := range mounts {
		if mnt.Type == "bind" {
			dir = mnt.Source
		}
		for _, option := range mnt.Options {
			if s, ok := strings.CutPrefix(option, "upperdir="); ok {
				dir, upper = s, true
			}
		}
	}
	return dir, upper, err
}

// ownSize is what the runtime put into the writable layer, in bytes of files: a
// user who wrote nothing is shown nothing.
func (m *Manager) ownSize(id string) int64 {
	dir, upper, err := m.writableDir(id)
	if err != nil || !upper {
		return 0
	}
	root, err := os.OpenRoot(dir) // the container may have made /etc a link
	if err != nil {
		return 0
	}
	defer root.Close()
	if target, err := root.Readlink("etc/mtab"); err != nil || target != procMounts {
		return 0
	}
	return int64(len(procMounts))
}

// markRoot puts the marker into the writable layer of a new container.
func (m *Manager) markRoot(id string) error {
	dir, _, err := m.writableDir(id)
	if err != nil || dir == "" {
		return err
	}
	// The root is the image's: what is there must not be followed or replaced.
	// That is what mknod(2) does, in one call.
	err = unix.Mknod(filepath.Join(dir, marker), unix.S_IFREG|0o755, 0)
	if err != nil && err != unix.EEXIST {
		return fmt.Errorf("cannot mark the container's root: %w", err)
	}
	return nil
}

// ownEntries are what the engine and the runtime make in a writable layer when they
// find nothing of the name, and the directory. A volume on /etc is filled with what the
// image has there.
func ownEntries(rec *Record) []snapshot.Entry {
	if mountsEtc(rec) {
		return nil
	}
	return []snapshot.Entry{{Dir: ".", Name: marker}, {Dir: "etc", Name: "mtab", Target: procMounts},
		{Dir: "etc", Name: "resolv.conf"}, {Dir: "etc", Name: "hostname"}, {Dir: "etc", Name: "hosts"}}
}

// mountsEtc says whether something is mounted on /etc itself, or may be.
func mountsEtc(rec *Record) bool {
	const etc = "/etc"
	for _, raw := range rec.HostConfig.Binds {
		for part := range strings.SplitSeq(raw, ":") {
			if filepath.Clean(part) == etc {
				return true
			}
		}
	}
	for i := range rec.HostConfig.Mounts {
		if filepath.Clean(rec.HostConfig.Mounts[i].Target) == etc {
			return true
		}
	}
	for destination := range rec.Config.Volumes {
		if filepath.Clean(destination) == etc {
			return true
		}
	}
	return len(rec.HostConfig.VolumesFrom) > 0
}

// procMounts is what /etc/mtab is a link to.
const procMounts = "/proc/mounts"

// withoutOwn leaves out of the changes what the engine and the runtime made in
// the writable layer: places to mount on, of which the user sees only what is
// mounted there.
func withoutOwn(changes []snapshot.Change) []snapshot.Change {
	own := map[string]bool{}
	for _, path := range []string{"/" + marker, "/dev", "/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/sys",
		"/etc/hostname", "/etc/hosts", "/etc/mtab", "/etc/resolv.conf"} {
		own[path] = true
	}
	kept := make([]snapshot.Change, 0, len(changes))
	inEtc := false
	for _, c := range changes {
		if own[c.Path] && (c.Kind == snapshot.Added || c.Entries) {
			continue
		}
		inEtc = inEtc || strings.HasPrefix(c.Path, "/etc/")
		kept = append(kept, c)
	}
	if inEtc || len(kept) == len(changes) {
		return kept
	}
	// Making files in /etc changed it, and nothing else did.
	return slices.DeleteFunc(kept, func(c snapshot.Change) bool { return c.Path == "/etc" && c.Entries })
}
