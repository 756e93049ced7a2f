package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/mount"
	"github.com/gantry-containers/gantry/internal/ocirt"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// Runtime is an external OCI runtime: a program with runc's command line. It
// makes containers and processes in them; io holds those as it holds its own,
// for they become its children when the runtime has ended. Signals, pausing and
// limits do not go through it: they need no more than the pidfd and the cgroup.
type Runtime struct {
	Name string   // by which users know it; names the directory of its state
	Path string   // looked for in PATH when it has no slash
	Args []string `json:",omitempty"` // given to it before all others
}

// external is a runtime for one container.
type external struct {
	Runtime
	id     string
	root   string // where the runtime keeps its state
	bundle string // config.json and, while the runtime creates, the root file system
	parts  []part

	orphans *reaper
}

// olderVersion is written into bundles: runtimes refuse a version that is newer
// than they are (crun before 1.8.4 each but 1.0), also when they know all that a
// configuration uses.
const olderVersion = "1.0.2"

// deletePatience is how long a runtime may take to delete a container whose
// processes are dead.
const deletePatience = 10 * time.Second

func (h *Holder) external(r *Runtime, id string) *external {
	return &external{
		Runtime: *r, id: id, orphans: &h.orphans,
		root:   filepath.Join(h.execRoot, "runtimes", r.Name),
		bundle: filepath.Join(h.bundles(), id),
	}
}

func (h *Holder) bundles() string { return filepath.Join(h.execRoot, "bundles") }

// spawnExec makes a further process, with the container's own runtime.
func (t *task) spawnExec(ctx context.Context, spec *specs.Spec, process *specs.Process, io *stdio) (*ocirt.Process, error) {
	if t.rec.Runtime != nil {
		return t.h.external(t.rec.Runtime, t.id).exec(ctx, process, io)
	}
	filter, err := t.filter()
	if err != nil {
		return nil, err
	}
	e := &ocirt.Exec{
		Pid: t.rec.Pid, StartTime: t.rec.StartTime, Spec: spec, Process: process, Filter: filter, Cgroup: t.cgroup(),
		Stdin: io.theirs[0], Stdout: io.theirs[1], Stderr: io.theirs[2],
	}
	return e.Start(ctx)
}

// start creates and starts the container. Nothing of it is left when it fails.
func (x *external) start(ctx context.Context, spec *specs.Spec, root []mount.Mount, netns *os.File, io *stdio) (p *ocirt.Process, err error) {
	defer x.closeParts()
	if err := x.prepare(spec, root, netns); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			x.delete()
		}
	}()
	create := &runtimeCall{
		args:    []string{"create", "--bundle", x.bundle},
		process: spec.Process, io: io, private: true, mounts: root, netns: netns,
	}
	pid, console, err := x.spawn(ctx, create)
	if err != nil {
		return nil, err
	}
	if p, err = holdPid(pid, console); err != nil {
		return nil, err
	}
	if err := x.call(ctx, &runtimeCall{args: []string{"start"}, process: spec.Process}); err != nil {
		p.PidFD.Close()
		return nil, err
	}
	if spec.Linux != nil && spec.Linux.CgroupsPath != "" {
		if cg, err := cgroup.Load(spec.Linux.CgroupsPath); err == nil {
			p.Cgroup = cg
		}
	}
	return p, nil
}

// exec runs a further process in the container.
func (x *external) exec(ctx context.Context, process *specs.Process, io *stdio) (*ocirt.Process, error) {
	pid, console, err := x.spawn(ctx, &runtimeCall{args: []string{"exec", "--detach"}, process: process, send: true, io: io})
	if err != nil {
		return nil, err
	}
	p, err := holdPid(pid, console)
	if err == nil && console != nil && process.ConsoleSize != nil {
		// Not each runtime heeds it.
		setSize(console, process.ConsoleSize.Height, process.ConsoleSize.Width)
	}
	return p, err
}

// holdPid takes a process the runtime has made. io is its parent, so that the
// number is its own even if it has ended already.
func holdPid(pid int, console *os.File) (*ocirt.Process, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		closeFile(console)
		return nil, errs.System("cannot hold the process %d that the runtime has started: %w", pid, err)
	}
	start, err := startTime(pid)
	if err != nil {
		unix.Close(fd)
		closeFile(console)
		return nil, errs.System("cannot hold the process %d that the runtime has started: %w", pid, err)
	}
	return &ocirt.Process{Pid: pid, PidFD: os.NewFile(uintptr(fd), "pidfd"), StartTime: start, Console: console}, nil
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		closeFile(f)
	}
}

// prepare makes the bundle.
func (x *external) prepare(spec *specs.Spec, root []mount.Mount, netns *os.File) error {
	fail := func(err error) error {
		return errs.System("cannot prepare the bundle of container %s: %w", x.id, err)
	}
	if err := x.delete(); err != nil { // what a failed deletion may have left
		return fail(err)
	}
	if err := os.MkdirAll(x.root, 0o711); err != nil {
		return fail(err)
	}
	// A user namespace's root has to get through to the root file system.
	if err := os.MkdirAll(filepath.Join(x.bundle, "rootfs"), 0o711); err != nil {
		return fail(err)
	}
	own := *spec
	own.Version = olderVersion
	var err error
	if own.Mounts, err = x.takeParts(spec.Mounts); err != nil {
		return fail(err)
	}
	if len(root) > 0 {
		own.Root = &specs.Root{Path: "rootfs"}
		if spec.Root != nil {
			own.Root.Readonly = spec.Root.Readonly
		}
	}
	if netns != nil {
		if err := os.WriteFile(x.netns(), nil, 0o600); err != nil {
			return fail(err)
		}
		own.Linux = withNetwork(spec.Linux, x.netns())
	}
	for _, file := range []struct {
		name  string
		value any
	}{{"config.json", &own}, {"runtime.json", &x.Runtime}} {
		raw, err := json.Marshal(file.value)
		if err == nil {
			err = os.WriteFile(filepath.Join(x.bundle, file.name), raw, 0o600)
		}
		if err != nil {
			return fail(err)
		}
	}
	return nil
}

// netns is where the runtime finds the network namespace.
func (x *external) netns() string { return filepath.Join(x.bundle, "netns") }

// withNetwork returns the configuration with that network namespace.
func withNetwork(linux *specs.Linux, path string) *specs.Linux {
	out := specs.Linux{}
	if linux != nil {
		out = *linux
	}
	list := []specs.LinuxNamespace{{Type: specs.NetworkNamespace, Path: path}}
	for _, ns := range out.Namespaces {
		if ns.Type != specs.NetworkNamespace {
			list = append(list, ns)
		}
	}
	out.Namespaces = list
	return &out
}

// delete makes the runtime forget the container and removes the bundle. What is
// not there is deleted already.
func (x *external) delete() error {
	if _, err := os.Stat(x.bundle); err != nil {
		return ignoreMissing(err)
	}
	var err error
	if state := filepath.Join(x.root, x.id); exists(state) {
		ctx, cancel := context.WithTimeout(context.Background(), deletePatience)
		defer cancel()
		err = x.call(ctx, &runtimeCall{args: []string{"delete", "--force"}})
		if err != nil {
			// The container must be able to start again all the same.
			os.RemoveAll(state)
		}
	}
	// The root was mounted where the host does not see it. Were it here, for
	// whatever reason, its files would not be ours to remove.
	rootfs := filepath.Join(x.bundle, "rootfs")
	if rerr := ignoreMissing(os.Remove(rootfs)); rerr != nil {
		return errors.Join(err, rerr)
	}
	return errors.Join(err, os.RemoveAll(x.bundle))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// deleteExternal deletes what an external runtime keeps of an ended container.
func (t *task) deleteExternal() {
	if t.exec != "" || t.rec.Runtime == nil {
		return
	}
	if err := t.h.external(t.rec.Runtime, t.id).delete(); err != nil {
		t.h.log.Error("cannot delete a container", "process", t.key.String(), "runtime", t.rec.Runtime.Name, "error", err)
	}
}

// sweepBundles deletes the containers of external runtimes that were half
// started or half deleted when io was killed.
func (h *Holder) sweepBundles() {
	list, _ := os.ReadDir(h.bundles())
	for _, dir := range list {
		if _, err := h.running(key{dir.Name(), ""}); err == nil {
			continue
		}
		var r Runtime
		raw, err := os.ReadFile(filepath.Join(h.bundles(), dir.Name(), "runtime.json"))
		if err == nil {
			err = json.Unmarshal(raw, &r)
		}
		if err == nil {
			err = h.external(&r, dir.Name()).delete()
		}
		if err != nil {
			h.log.Error("cannot delete what was left of a container", "id", dir.Name(), "error", err)
		}
	}
}

// readPid reads a file that a runtime has written.
func readPid(path string) (int, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%q is not a process ID", raw)
	}
	return pid, nil
}
