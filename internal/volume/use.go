package volume

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/mount"
	api "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Used is a volume as a container uses it.
type Used struct {
	Name, Source string
	Empty        bool
}

// Use finds or creates the volume of a mount and notes the container as a user.
func (m *Manager) Use(ctx context.Context, spec mount.Mount, containerID string) (*Used, error) {
	r := &api.CreateRequest{Name: spec.Source}
	if o := spec.VolumeOptions; o != nil {
		r.Labels = o.Labels
		if o.DriverConfig != nil {
			r.Driver, r.DriverOpts = o.DriverConfig.Name, o.DriverConfig.Options
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if have, ok := m.all[r.Name]; ok && r.DriverOpts != nil {
		r.DriverOpts = have.Options // options in a mount are for its creation only
	}
	rec, err := m.create(r)
	if err != nil {
		return nil, err
	}
	if err := m.mount(rec); err != nil {
		return nil, err
	}
	m.use(rec.Name, containerID)
	return &Used{Name: rec.Name, Source: m.path(rec.Name), Empty: isEmpty(m.path(rec.Name))}, nil
}

// Release ends a container's use of a volume. With remove, an anonymous volume
// nobody else uses is deleted.
func (m *Manager) Release(ctx context.Context, name, containerID string, remove bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.users[name], containerID)
	rec, ok := m.all[name]
	if !ok && remove && len(name) == len(anonymousName()) {
		// The engine died between making the directory and recording the volume.
		return os.RemoveAll(filepath.Dir(m.path(name)))
	}
	if !ok || len(m.users[name]) > 0 {
		return nil
	}
	if len(rec.Options) > 0 {
		if err := unmount(m.path(name)); err != nil {
			return err
		}
	}
	if _, anonymous := rec.Labels[anonymousLabel]; remove && anonymous {
		return m.remove(name)
	}
	return nil
}

// Open makes sure the volume is there, and mounted where it has options that
// say so, and returns the directory of its data.
func (m *Manager) Open(ctx context.Context, name string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec, ok := m.all[name]
	if !ok {
		return "", errs.NotFound("get %s: no such volume", name)
	}
	if err := m.mount(rec); err != nil {
		return "", err
	}
	return m.path(name), nil
}

func validOptions(options map[string]string) error {
	for key := range options {
		switch key {
		case "type", "device", "o":
		default:
			return errs.InvalidArgument("create: invalid option: %q", key)
		}
	}
	if len(options) > 0 && options["device"] == "" {
		return errs.InvalidArgument("create: missing required option: \"device\"")
	}
	return nil
}

// mount mounts the file system a volume's options name, unless it is mounted.
func (m *Manager) mount(rec *Record) error {
	dir := m.path(rec.Name)
	if len(rec.Options) == 0 || isMountpoint(dir) {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	flags, data := parseMountOptions(rec.Options["o"])
	device, kind := rec.Options["device"], rec.Options["type"]
	if err := unix.Mount(device, dir, kind, flags, data); err != nil {
		return errs.System("failed to mount local volume: mount %s:%s, data: %s: %w", device, dir, data, err)
	}
	// The first mount of a bind takes no other flags.
	const more = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME
	if flags&unix.MS_BIND != 0 && flags&more != 0 {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags&more, ""); err != nil {
			unix.Unmount(dir, unix.MNT_DETACH)
			return errs.System("failed to mount local volume: cannot set the options %q: %w", rec.Options["o"], err)
		}
	}
	return nil
}

// unmount takes away every mount on the directory.
func unmount(dir string) error {
	for isMountpoint(dir) {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("cannot unmount %s: %w", dir, err)
		}
	}
	return nil
}

// isMountpoint tells whether something is mounted on the directory, a bind of
// the same file system included.
func isMountpoint(dir string) bool {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_NO_AUTOMOUNT, 0, &stat)
	return err == nil && stat.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// parseMountOptions splits the options of mount(8) into flags and what the file
// system itself reads.
func parseMountOptions(o string) (flags uintptr, data string) {
	var rest []string
	for _, option := range strings.Split(o, ",") {
		switch option {
		case "", "rw", "defaults":
		case "ro":
			flags |= unix.MS_RDONLY
		case "nosuid":
			flags |= unix.MS_NOSUID
		case "nodev":
			flags |= unix.MS_NODEV
		case "noexec":
			flags |= unix.MS_NOEXEC
		case "noatime":
			flags |= unix.MS_NOATIME
		case "nodiratime":
			flags |= unix.MS_NODIRATIME
		case "relatime":
			flags |= unix.MS_RELATIME
		case "strictatime":
			flags |= unix.MS_STRICTATIME
		case "sync":
			flags |= unix.MS_SYNCHRONOUS
		case "dirsync":
			flags |= unix.MS_DIRSYNC
		case "bind":
			flags |= unix.MS_BIND
		case "rbind":
			flags |= unix.MS_BIND | unix.MS_REC
		default:
			rest = append(rest, option)
		}
	}
	return flags, strings.Join(rest, ",")
}

func anonymousName() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
