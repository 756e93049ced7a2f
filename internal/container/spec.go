package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/layer"
	"github.com/gantry-containers/gantry/internal/ocispec"
)

// cgroupPath is where the container is below the root of every hierarchy.
func (m *Manager) cgroupPath(rec *Record) string {
	parent, _ := m.cgroupParent(rec)
	return path.Join("/", parent, rec.ID)
}

// cgroupParent is what the container's cgroup is in, and whether that is this
// engine's alone: a user's choice may be anybody's.
func (m *Manager) cgroupParent(rec *Record) (parent string, own bool) {
	switch {
	case rec.HostConfig.CgroupParent != "":
		return rec.HostConfig.CgroupParent, false
	case m.opts.Defaults.CgroupParent != "":
		return m.opts.Defaults.CgroupParent, false
	}
	return m.opts.Instance, true
}

func netNSPath(pid int) string { return fmt.Sprintf("/proc/%d/ns/net", pid) }

// spec makes the OCI configuration of a container that is about to start.
func (m *Manager) spec(ctx context.Context, rec *Record, sandbox *Sandbox, h *held) (*specs.Spec, error) {
	user, err := m.resolveUser(ctx, rec, rec.Config.User)
	if err != nil {
		return nil, err
	}
	in := &ocispec.Input{
		ID:              rec.ID,
		Args:            rec.argv(),
		Config:          rec.Config,
		HostConfig:      rec.HostConfig,
		User:            *user,
		Hostname:        rec.Config.Hostname,
		OwnNetwork:      sandbox != nil && sandbox.NetNS != nil,
		CgroupPath:      m.cgroupPath(rec),
		SeccompProfile:  m.opts.Defaults.SeccompProfile,
		AppArmorProfile: m.opts.Defaults.AppArmorProfile,
		DefaultUlimits:  m.opts.Defaults.Ulimits,
		CDISpecDirs:     m.opts.Defaults.CDISpecDirs,
	}
	if in.Config, err = m.withLinks(rec); err != nil {
		return nil, err
	}
	if init := rec.HostConfig.Init; init != nil && *init || init == nil && m.opts.Defaults.Init {
		if in.InitPath = m.opts.Defaults.InitPath; in.InitPath == "" {
			return nil, errs.System("cannot run an init in the container: gantry-init is neither beside gantryd nor in PATH")
		}
	}
	if err := m.joinNamespaces(rec, in, h); err != nil {
		return nil, err
	}
	if err := m.writeFiles(rec, in, sandbox); err != nil {
		return nil, err
	}
	for i := range rec.Mounts {
		mnt := &rec.Mounts[i]
		out, err := m.specMount(ctx, mnt, h)
		if err != nil {
			return nil, err
		}
		in.Mounts = append(in.Mounts, *out)
		if mnt.Type == mount.TypeVolume {
			m.publishVolume(events.ActionMount, mnt, "container", rec.ID, "destination", mnt.Destination,
				"read/write", strconv.FormatBool(mnt.RW), "propagation", string(mnt.Propagation))
		}
	}
	return ocispec.Build(in)
}

// joinNamespaces finds the namespaces of the containers this one shares some with.
func (m *Manager) joinNamespaces(rec *Record, in *ocispec.Input, h *held) error {
	for _, join := range []struct {
		mode, kind string
		path       *string
	}{
		{string(rec.HostConfig.PidMode), "pid", &in.PIDNamespace},
		{string(rec.HostConfig.IpcMode), "ipc", &in.IPCNamespace},
		{string(rec.HostConfig.NetworkMode), "net", &in.NetworkNamespace},
	} {
		name, ok := strings.CutPrefix(join.mode, "container:")
		if !ok {
			continue
		}
		other, err := m.lookup(name)
		if err != nil {
			return err
		}
		shared := other.copy()
		if !shared.running() {
			return errs.Conflict("cannot join %s namespace of container %s: it is not running", join.kind, shared.ID)
		}
		if join.kind == "ipc" {
			if !shared.HostConfig.IpcMode.IsShareable() {
				return errs.InvalidArgument("cannot join IPC namespace of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", shared.ID)
			}
			in.ShmPath = m.shmPath(shared.ID)
		}
		if join.kind == "net" {
			in.Hostname = shared.Config.Hostname
		}
		if *join.path, err = h.namespace(&shared, join.kind); err != nil {
			return err
		}
	}
	if rec.HostConfig.IpcMode.IsShareable() {
		if err := m.mountShm(rec); err != nil {
			return err
		}
		in.ShmPath = m.shmPath(rec.ID)
	}
	return nil
}

// shmPath is the /dev/shm that a container shares with others. It is the only
// thing of a container that is mounted where the host sees it.
func (m *Manager) shmPath(id string) string { return filepath.Join(m.opts.ExecRoot, "shm", id) }

func (m *Manager) mountShm(rec *Record) error {
	dir := m.shmPath(rec.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	unmountAll(dir)
	data := "mode=1777,size=" + strconv.FormatInt(rec.HostConfig.ShmSize, 10)
	if err := unix.Mount("shm", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, data); err != nil {
		return fmt.Errorf("cannot mount the shared memory of container %s: %w", rec.Name, err)
	}
	return nil
}

// unmountShm takes away what mountShm made. Others that share it keep it.
func (m *Manager) unmountShm(rec *Record) {
	if !rec.HostConfig.IpcMode.IsShareable() {
		return
	}
	dir := m.shmPath(rec.ID)
	unmountAll(dir)
	os.Remove(dir)
}

func unmountAll(dir string) {
	for unix.Unmount(dir, unix.MNT_DETACH) == nil {
	}
}

// specMount makes sure the source of a mount is there now.
func (m *Manager) specMount(ctx context.Context, mnt *Mount, h *held) (*ocispec.Mount, error) {
	out := &ocispec.Mount{Type: mnt.Type, Source: mnt.Source, Destination: mnt.Destination, RW: mnt.RW, Propagation: mnt.Propagation}
	switch mnt.Type {
	case mount.TypeBind:
		if err := provideBind(mnt); err != nil {
			return nil, err
		}
		if err := canPropagate(mnt); err != nil {
			return nil, err
		}
		if o := mnt.Spec.BindOptions; o != nil {
			out.Bind = *o
		}
	case mount.TypeVolume:
		dir, err := m.opts.Volumes.Open(ctx, mnt.Name)
		if err != nil {
			return nil, err
		}
		out.Source = dir
		if o := mnt.Spec.VolumeOptions; o != nil && o.Subpath != "" {
			if out.Source, err = h.inside(dir, o.Subpath); err != nil {
				return nil, errs.InvalidArgument("cannot access path %s of volume %s: %w", o.Subpath, mnt.Name, err)
			}
		}
	case mount.TypeTmpfs:
		if o := mnt.Spec.TmpfsOptions; o != nil {
			out.Tmpfs = *o
		}
	case mount.TypeImage:
		stack, err := m.opts.Snapshots.View(ctx, mnt.Layers)
		if err != nil {
			return nil, err
		}
		out.Stack = stack
		if o := mnt.Spec.ImageOptions; o != nil && o.Subpath != "" {
			return out, m.imagePart(out, mnt.Spec.Source, o.Subpath, h)
		}
	}
	return out, nil
}

// userCache keeps the passwd and group files of images: most containers of an
// image start with them unchanged.
type userCache struct {
	mu     sync.Mutex
	images map[digest.Digest]userFiles
}

type userFiles struct{ passwd, group []byte }

// maxUserFile bounds what is read of a passwd or group file.
const maxUserFile = 10 << 20

// resolveUser finds a user in the container's own files.
func (m *Manager) resolveUser(ctx context.Context, rec *Record, name string) (*ocispec.User, error) {
	files, err := m.userFiles(rec)
	if err != nil {
		return nil, err
	}
	return ocispec.ResolveUser(name, files.passwd, files.group, rec.HostConfig.GroupAdd)
}

func (m *Manager) userFiles(rec *Record) (userFiles, error) {
	pristine := !rec.HasBeenStarted && !rec.CopiedInto
	if pristine {
		// Nothing was written yet but what came with the image and its volumes.
		m.users.mu.Lock()
		files, ok := m.users.images[rec.ImageID]
		m.users.mu.Unlock()
		if ok {
			return files, nil
		}
	}
	root, err := m.bareRoot(rec)
	if err != nil {
		return userFiles{}, err
	}
	defer root.Close()
	files := userFiles{}
	for _, f := range []struct {
		name string
		to   *[]byte
	}{{"etc/passwd", &files.passwd}, {"etc/group", &files.group}} {
		if *f.to, err = readInRoot(root, f.name); err != nil {
			return userFiles{}, err
		}
	}
	if pristine {
		m.users.mu.Lock()
		defer m.users.mu.Unlock()
		if m.users.images == nil || len(m.users.images) > 256 {
			m.users.images = map[digest.Digest]userFiles{}
		}
		m.users.images[rec.ImageID] = files
	}
	return files, nil
}

// readInRoot reads a regular file of a root, following symlinks inside it. A
// file that is not there, or is something else, is nil: a container may have put
// a device in its place, which must not even be opened from out here.
func readInRoot(root *os.File, name string) ([]byte, error) {
	file, err := layer.OpenIn(root, name)
	switch {
	case errdefs.IsNotFound(err), errdefs.IsInvalidArgument(err), errors.Is(err, unix.ELOOP):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("cannot read /%s of the container: %w", name, err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(file, maxUserFile))
}

// execProcess makes the OCI process of an exec.
func (m *Manager) execProcess(ctx context.Context, rec *Record, r *api.ExecCreateRequest) (*specs.Process, error) {
	name := r.User
	if name == "" {
		name = rec.Config.User
	}
	user, err := m.resolveUser(ctx, rec, name)
	if err != nil {
		return nil, err
	}
	config, err := m.withLinks(rec)
	if err != nil {
		return nil, err
	}
	return ocispec.Exec(&ocispec.ExecInput{
		Args: r.Cmd, Env: r.Env, WorkingDir: r.WorkingDir, Tty: r.Tty, Privileged: r.Privileged,
		User: *user, Hostname: rec.Config.Hostname, Config: config, HostConfig: rec.HostConfig,
		SeccompProfile: m.opts.Defaults.SeccompProfile, AppArmorProfile: m.opts.Defaults.AppArmorProfile,
	})
}

func boxOf(size [2]uint) *specs.Box { return &specs.Box{Height: size[0], Width: size[1]} }
