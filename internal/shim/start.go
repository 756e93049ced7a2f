package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/heap"
	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/ocirt"
	"github.com/gantry-containers/gantry/internal/ocirt/seccomp"
)

// start starts a container. Its answer means: recorded, its output is read, and
// whoever attached before it will see the first byte.
func (h *Holder) start(ctx context.Context, r *StartRequest, netns *os.File, conns []*os.File) (*StartReply, error) {
	defer closeAll(conns) // what becomes of them are duplicates
	var spec specs.Spec
	if err := json.Unmarshal(r.Spec, &spec); err != nil {
		return nil, errs.InvalidArgument("cannot read the OCI specification: %w", err)
	}
	if spec.Process == nil {
		return nil, errs.InvalidArgument("the OCI specification names no process")
	}
	t, err := h.reserve(key{r.ID, ""})
	if err != nil {
		return nil, err
	}
	for i := range r.Attach {
		r.Attach[i].ID = r.ID
		if err == nil {
			err = t.bring(&r.Attach[i], conns[i])
		}
	}
	if err == nil {
		err = t.start(ctx, r, &spec, netns)
	}
	if errors.Is(err, errNotRecorded) {
		h.forgetWhenGone(t)
		return nil, err
	}
	if err != nil {
		os.RemoveAll(h.dir(r.ID))
		h.unreserve(t)
		return nil, err
	}
	s := t.status()
	return &StartReply{Pid: s.Pid, StartedAt: s.StartedAt, StartTime: s.StartTime}, nil
}

func (t *task) start(ctx context.Context, r *StartRequest, spec *specs.Spec, netns *os.File) (err error) {
	spec.Process.Terminal = r.Terminal
	ownOOMScore(spec.Process, nil)
	if r.Terminal && r.ConsoleSize != [2]uint{} {
		spec.Process.ConsoleSize = &specs.Box{Height: r.ConsoleSize[0], Width: r.ConsoleSize[1]}
	}
	if err := os.MkdirAll(t.h.dir(t.id), 0o700); err != nil {
		return errs.System("cannot keep the state of %s: %w", t.key, err)
	}
	defer t.h.orphans.spawning()()
	maker, err := t.maker(r, spec, netns)
	if err != nil {
		return err
	}
	// What maker has begun goes on meanwhile.
	io, log, profile, err := t.surround(r, maker)
	if err != nil {
		maker.drop()
		return err
	}
	defer io.closeTheirs()
	p, err := maker.spawn(ctx, io)
	if err != nil {
		io.closeOurs()
		log.Close()
		return err
	}
	io.console(p.Console)
	t.mu.Lock()
	t.rec = record{
		Status:     Status{Ephemeral: r.Ephemeral, Labels: r.Labels},
		StdinOnce:  r.StdinOnce,
		SharedPIDs: sharesPIDs(spec),
		WatchOOM:   hasMemoryLimit(spec),
		Log:        &r.Log,
		Seccomp:    profile,
		Runtime:    r.Runtime,
	}
	t.log = log
	t.mu.Unlock()
	t.linger(p.Pid, r, spec)
	if err := t.begin(p, io, r.Terminal); err != nil {
		return err
	}
	if r.ConsoleSize != [2]uint{} && r.Terminal {
		// What the runtime set may have come before the terminal was ours.
		t.resize(r.ConsoleSize[0], r.ConsoleSize[1])
	}
	return nil
}

// surround makes what a container has in this process: its streams and its log.
// profile is the digest of its seccomp profile, whose filter the maker
// gets.
func (t *task) surround(r *StartRequest, m maker) (io *stdio, log logs.Writer, profile string, err error) {
	if len(r.Seccomp) > 0 {
		var filter *seccomp.Program
		if filter, profile, err = t.h.filters.compile(r.Seccomp); err != nil {
			return nil, nil, "", err
		}
		m.confine(filter)
	}
	if io, err = newStdio(r.Terminal, r.OpenStdin, false); err != nil {
		return nil, nil, "", err
	}
	if log, err = logs.NewWriter(r.Log); err != nil {
		io.closeOurs()
		io.closeTheirs()
		return nil, nil, "", err
	}
	return io, log, profile, nil
}

// keep writes down what a later exec asks for, and an io that comes after this one
// was killed in the middle of a start: it finds the cgroup by that, so there is none
// before.
func (t *task) keep(r *StartRequest) error {
	err := os.WriteFile(t.specPath(), r.Spec, 0o600)
	if err == nil && len(r.Seccomp) > 0 {
		err = os.WriteFile(t.profilePath(), r.Seccomp, 0o600)
	}
	if err != nil {
		return errs.System("cannot keep the state of %s: %w", t.key, err)
	}
	return nil
}

// begin records a process that runs and lets data flow.
func (t *task) begin(p *ocirt.Process, io *stdio, terminal bool) error {
	t.mu.Lock()
	t.rec.ID, t.rec.ExecID, t.rec.Pid, t.rec.StartTime = t.id, t.exec, p.Pid, p.StartTime
	t.rec.StartedAt, t.rec.Running, t.rec.Terminal = now(), true, terminal
	if p.Cgroup != nil {
		t.rec.Cgroup = p.Cgroup.Path()
	}
	t.rec.Pipes = io.inodes
	t.pidfd, t.in, t.out = pollable(p.PidFD), io.in, io.out
	t.mu.Unlock()
	t.h.orphans.know(p.Pid)
	err := t.save()
	if err != nil {
		// Nobody would find it again: it must not run. What follows is its exit.
		t.signal(unix.SIGKILL, t.exec == "")
		err = fmt.Errorf("%w: %w", errNotRecorded, err)
	}
	t.hold()
	t.run()
	heap.Used()
	return err
}

// errNotRecorded is a process that had to be killed again.
var errNotRecorded = errors.New("the process was killed because it could not be recorded")

// forgetWhenGone drops a process nobody was told of, once it is dead.
func (h *Holder) forgetWhenGone(t *task) {
	go func() {
		<-t.gone
		h.guarded(func() { h.forget(t.key) })
	}()
}

// run starts what looks after the process: also after an adoption or upgrade.
func (t *task) run() {
	t.h.connectPending(t) // before the first byte is read
	for s, f := range t.out {
		if f != nil {
			t.pumps.Go(func() { t.pump(logs.Stream(s), f) })
		}
	}
	if t.exec == "" && t.rec.WatchOOM {
		t.watchOOM()
	}
	go t.wait()
}

// exec starts a further process in a container, with the client whose socket
// conn is if r.Attach says so.
func (h *Holder) exec(ctx context.Context, r *ExecRequest, conn *os.File) (pid int, err error) {
	defer closeAll([]*os.File{conn}) // what becomes of it is a duplicate
	parent, err := h.running(key{r.ID, ""})
	if err != nil {
		return 0, err
	}
	if r.ExecID == "" {
		return 0, errs.InvalidArgument("an exec needs an ID")
	}
	var process specs.Process
	if err := json.Unmarshal(r.Process, &process); err != nil {
		return 0, errs.InvalidArgument("cannot read the OCI process: %w", err)
	}
	spec, err := parent.spec()
	if err != nil {
		return 0, err
	}
	t, err := h.reserve(key{r.ID, r.ExecID})
	if err != nil {
		return 0, err
	}
	if r.Attach != nil {
		r.Attach.ID, r.Attach.ExecID = r.ID, r.ExecID
		err = t.bring(r.Attach, conn)
	}
	if err == nil {
		err = t.startExec(ctx, parent, r, spec, &process)
	}
	if errors.Is(err, errNotRecorded) {
		h.forgetWhenGone(t)
		return 0, err
	}
	if err != nil {
		h.unreserve(t)
		return 0, err
	}
	return t.status().Pid, nil
}

func (t *task) startExec(ctx context.Context, parent *task, r *ExecRequest, spec *specs.Spec, process *specs.Process) error {
	process.Terminal = r.Terminal
	ownOOMScore(process, spec.Process)
	io, err := newStdio(r.Terminal, r.OpenStdin, r.Detach)
	if err != nil {
		return err
	}
	defer io.closeTheirs()
	defer t.h.orphans.spawning()()
	p, err := parent.spawnExec(ctx, spec, process, io)
	if err != nil {
		io.closeOurs()
		if s := parent.status(); !s.Running {
			return errs.Conflict("container %s is not running", parent.id)
		}
		return err
	}
	io.console(p.Console)
	t.mu.Lock()
	t.rec.StdinOnce = true
	t.mu.Unlock()
	return t.begin(p, io, r.Terminal)
}

// spec reads the container's OCI specification. It is not kept in memory: it is
// the largest thing known of a container, and only exec asks for it.
func (t *task) spec() (*specs.Spec, error) {
	raw, err := os.ReadFile(t.specPath())
	if err != nil {
		return nil, errs.System("cannot read the specification of %s: %w", t.key, err)
	}
	var spec specs.Spec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, errs.System("cannot read the specification of %s: %w", t.key, err)
	}
	return &spec, nil
}

// ownOOMScore keeps a process from inheriting io's own score, which protects it.
func ownOOMScore(p, like *specs.Process) {
	if p.OOMScoreAdj == nil && like != nil {
		p.OOMScoreAdj = like.OOMScoreAdj
	}
	if p.OOMScoreAdj == nil {
		p.OOMScoreAdj = new(int)
	}
}

// sharesPIDs reports whether a container's processes outlive its first one.
func sharesPIDs(spec *specs.Spec) bool {
	if spec.Linux != nil {
		for _, ns := range spec.Linux.Namespaces {
			if ns.Type == specs.PIDNamespace {
				return ns.Path != ""
			}
		}
	}
	return true
}

func hasMemoryLimit(spec *specs.Spec) bool {
	if spec.Linux == nil || spec.Linux.Resources == nil || spec.Linux.Resources.Memory == nil {
		return false
	}
	limit := spec.Linux.Resources.Memory.Limit
	return limit != nil && *limit > 0
}

// watchOOM tells of OOM kills while they happen. Containers without a limit of
// their own are only looked at when they end: a watch costs a descriptor.
func (t *task) watchOOM() {
	cg := t.cgroup()
	if cg == nil {
		return
	}
	w, err := cg.OOM()
	if err != nil {
		return
	}
	go func() {
		<-t.ended
		w.Close()
	}()
	go func() {
		for {
			if _, err := w.Wait(); err != nil {
				if !errors.Is(err, os.ErrClosed) {
					w.Close()
				}
				return
			}
			t.mu.Lock()
			t.rec.OOMKilled = true
			t.mu.Unlock()
			t.h.publish(Event{Type: EventOOM, Status: t.status()})
		}
	}()
}
