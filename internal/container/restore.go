package container

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/gantry-containers/gantry/internal/ahead"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/state"
	"github.com/gantry-containers/gantry/internal/topdir"
)

// New reads the records of all containers. Nothing is looked at in the world
// until Restore, but that the directories the last daemon made ahead go.
func New(o Options) (*Manager, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	m := &Manager{
		opts:   o,
		table:  state.NewTable[Record](o.DB, "containers"),
		byID:   map[string]*Container{},
		byName: map[string]string{},
		execs:  map[string]*execution{},
		probes: map[string]chan int{},
		unborn: map[*Container]struct{}{},
		can:    sync.OnceValue(cgroup.Supported),
	}
	m.spares = ahead.OpenDirs(filepath.Join(o.DataRoot, "ahead"), makeSpareDir)
	m.ctx, m.stop = context.WithCancel(context.Background())
	records, err := m.table.All()
	if err != nil {
		// One record that cannot be read must not hide the others.
		o.Log.Error("cannot read some containers", "error", err)
		m.blind = true
	}
	for id, rec := range records {
		if rec.ID != id || rec.Config == nil || rec.HostConfig == nil {
			o.Log.Error("a container's record is incomplete", "container", id)
			m.blind = true
			continue
		}
		m.byName[rec.Name] = id
		m.add(&Container{rec: *rec})
	}
	return m, nil
}

// VolumeUsers returns the containers that use each volume, by volume name.
func (m *Manager) VolumeUsers() map[string][]string {
	users := map[string][]string{}
	for _, c := range m.all() {
		rec := c.copy()
		for _, mnt := range rec.Mounts {
			if mnt.Type == mount.TypeVolume {
				users[mnt.Name] = append(users[mnt.Name], rec.ID)
			}
		}
	}
	return users
}

// IDs returns the IDs of all containers.
func (m *Manager) IDs() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string{}, m.ids...)
}

// Restore brings records and world together after a start of the daemon: what
// runs is followed again, what ended meanwhile is recorded with its exit code,
// what a crash left half done is finished, and what is to run after a boot is
// started.
func (m *Manager) Restore(ctx context.Context) error {
	statuses, err := m.opts.Shim.List(ctx)
	if err != nil {
		return err
	}
	if err := m.opts.Shim.DropPending(ctx); err != nil {
		m.opts.Log.Error("cannot let go of clients whose process was never started", "error", err)
	}
	live := map[string]struct{}{}
	for _, s := range statuses {
		if s.ExecID == "" && s.Running {
			live[s.ID] = struct{}{}
		}
	}
	if err := m.opts.Networks.Restore(ctx, live); err != nil {
		m.opts.Log.Error("cannot restore the networks", "error", err)
	}
	m.sweep(ctx)
	m.reconcile(ctx, statuses)
	m.endCommits(ctx)
	m.following.Go(func() { m.watch(m.ctx) })
	for _, c := range m.all() {
		rec := c.copy()
		switch {
		case rec.running():
		case rec.HostConfig.AutoRemove && rec.HasBeenStarted:
			go m.Remove(context.WithoutCancel(ctx), rec.ID, RemoveOptions{Volumes: true})
		case rec.startAfterBoot():
			go m.startOnBoot(context.WithoutCancel(ctx), c)
		}
	}
	return nil
}

func (m *Manager) startOnBoot(ctx context.Context, c *Container) {
	c.op.Lock()
	defer c.op.Unlock()
	if err := m.start(ctx, c); err != nil {
		m.opts.Log.Error("cannot start a container by its restart policy", "container", c.copy().ID, "error", err)
	}
}

// sweep removes what a crash in the middle of a creation or removal left.
func (m *Manager) sweep(ctx context.Context) {
	if !m.blind {
		m.sweepUnknown(ctx)
	}
	for _, c := range m.all() {
		if s := c.copy().State.Status; s == api.StateRemoving || s == api.StateDead {
			c.mu.Lock()
			c.rec.State.Status = api.StateExited
			c.mu.Unlock()
			if err := m.Remove(ctx, c.copy().ID, RemoveOptions{Volumes: c.copy().HostConfig.AutoRemove || c.copy().RemoveVolumes}); err != nil {
				m.opts.Log.Error("cannot finish a removal", "container", c.copy().ID, "error", err)
			}
		}
	}
}

// sweepUnknown removes writable layers and directories without a record.
func (m *Manager) sweepUnknown(ctx context.Context) {
	ids, err := m.opts.Snapshots.Snapshots(ctx)
	if err != nil {
		m.opts.Log.Error("cannot list the writable layers", "error", err)
	}
	for _, id := range ids {
		if !m.known(id) {
			if err := m.opts.Snapshots.Remove(ctx, id); err != nil {
				m.opts.Log.Error("cannot remove a writable layer nobody owns", "id", id, "error", err)
			}
		}
	}
	if err := os.MkdirAll(m.dir(""), dirMode); err == nil {
		topdir.Mark(m.dir(""))
	}
	dirs, err := os.ReadDir(m.dir(""))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.opts.Log.Error("cannot list the directories of containers", "error", err)
	}
	for _, dir := range dirs {
		if !m.known(dir.Name()) {
			if err := os.RemoveAll(m.dir(dir.Name())); err != nil {
				m.opts.Log.Error("cannot remove the directory of a container that is not there", "id", dir.Name(), "error", err)
			}
		}
	}
}

// Close stops following the containers, which run on.
func (m *Manager) Close() error {
	m.stop()
	m.following.Wait()
	m.spares.Close()
	return nil
}
