// Package container manages containers: it creates, starts, stops and removes
// them, knows what state each is in, and answers every question about them.
//
// It owns the container records and the directories DATA-ROOT/containers/ID. It
// holds no process and no pipe: the shim does, and tells of exits; a manager
// that starts finds everything again from its records and the shim's list. It
// knows images, networks and volumes only as the interfaces in manager.go.
//
// Locks: Container.op serialises whole operations on one container (start,
// remove, rename, update, pause) and is taken first, Container.attaching next.
// Manager.mu guards the index of containers and names, Container.mu the record of
// one container; Manager.mu is taken before Container.mu, and neither is held
// while the shim, the network or the disk is waited for.
package container

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"time"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
)

// Record is what is remembered of a container.
type Record struct {
	ID      string
	Name    string // without Docker's leading slash
	Created time.Time

	Path string   // argv[0]
	Args []string // the rest of argv

	Config     *api.Config
	HostConfig *api.HostConfig

	ImageID  digest.Digest
	Layers   []digest.Digest // diffIDs of the image, bottom first
	Platform string          // the operating system
	Driver   string          // the snapshotter

	Mounts    []Mount
	Endpoints map[string]*network.EndpointSettings // as asked for, by network
	Network   *Network                             // as it is, while running
	// NetworkIDs are the networks of the last run, by name: tools that compare
	// a container with what they want of it look at them when it does not run.
	NetworkIDs map[string]string `json:",omitempty"`

	State             State
	RestartCount      int
	HasBeenStarted    bool
	CopiedInto        bool `json:",omitempty"` // its files are not those of the image any more
	ManuallyStopped   bool
	PausedForCommit   bool `json:",omitempty"` // by a commit under way, not by a person
	RemoveVolumes     bool `json:",omitempty"` // by the removal that has begun, its anonymous ones
	ResolvedLogDriver string
	ResolvedLogOpts   map[string]string
}

// Network is the network state of a running container.
type Network struct {
	SandboxID string
	Endpoints map[string]*network.EndpointSettings
	Ports     network.PortMap
}

// Mount is one mount of a container, resolved.
type Mount struct {
	Type        mount.Type
	Name        string // of a volume
	Source      string // on the host; a mount of an image has none
	Destination string
	Driver      string
	Mode        string // the options as they were written
	RW          bool
	Propagation mount.Propagation

	Spec   mount.Mount // the long form, for binds and volumes made from the short one too
	CopyUp bool        // fill an empty volume from the image at the first start
	Layers []digest.Digest
}

// State is the state of a container that outlives the daemon.
type State struct {
	Status     api.ContainerState
	Pid        int
	StartTime  uint64 `json:",omitempty"` // of that process, in clock ticks after boot; 0 when unknown
	ExitCode   int
	Error      string
	OOMKilled  bool
	StartedAt  time.Time
	FinishedAt time.Time
}

// Container is one container the manager knows.
type Container struct {
	op sync.Mutex // see the package comment
	// attaching is held for reading from before a client is told that it is
	// attached until its socket is with the shim. A start waits for that: the
	// client may ask for it as soon as it was told.
	attaching sync.RWMutex

	mu      sync.Mutex // guards what follows
	rec     Record
	waiters []*waiter
	early   []*early
	execs   map[string]*execution
	health  *health
	backoff time.Duration // the wait before the next restart by policy
	retry   context.CancelFunc
	keep    int  // AutoRemove does not apply to an exit now: it is being restarted
	doomed  bool // it is being killed to be removed: the exit need not outlast a boot
	starts  int  // counts starts, so that a late event of an earlier run is told apart

	run      *firstRun // nil unless Run has created the container
	starting bool      // a start has taken the early clients and is not over
	gone     bool      // it is removed: who waits from now on would not be woken
}

func (r *Record) running() bool {
	return r.State.Status == api.StateRunning || r.State.Status == api.StatePaused
}

func (m *Manager) dir(id string) string { return filepath.Join(m.opts.DataRoot, "containers", id) }

// copy returns a copy of the record that later changes do not reach. What its
// pointers lead to is replaced, never changed, by the manager.
func (c *Container) copy() Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rec
}

// save records the container: durably unless it is removed on exit anyway.
func (m *Manager) save(c *Container) error {
	rec := c.copy()
	if rec.HostConfig.AutoRemove {
		return m.table.PutVolatile(rec.ID, &rec)
	}
	return m.table.Put(rec.ID, &rec)
}

// saveState records what only matters while the machine is up, without a sync.
func (m *Manager) saveState(c *Container) error {
	rec := c.copy()
	return m.table.PutVolatile(rec.ID, &rec)
}

func (m *Manager) publish(c *Container, action events.Action, more ...string) {
	rec := c.copy()
	attributes := map[string]string{"image": rec.Config.Image, "name": rec.Name}
	for k, v := range rec.Config.Labels {
		attributes[k] = v
	}
	for i := 0; i+1 < len(more); i += 2 {
		attributes[more[i]] = more[i+1]
	}
	m.opts.Events.Publish(events.Message{
		Type:   events.ContainerEventType,
		Action: action,
		Actor:  events.Actor{ID: rec.ID, Attributes: attributes},
	})
}

// command is argv as one line, for lists.
func (r *Record) argv() []string { return append(slices.Clip([]string{r.Path}), r.Args...) }
