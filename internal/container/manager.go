package container

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"sort"
	"strings"
	"sync"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	api "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/ahead"
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/shim"
	"github.com/gantry-containers/gantry/internal/snapshot"
	"github.com/gantry-containers/gantry/internal/state"
	"github.com/gantry-containers/gantry/internal/trash"
)

// Image is what a container takes from an image.
type Image struct {
	ID       digest.Digest
	Config   dockerspec.DockerOCIImageConfig
	Platform ocispec.Platform
	Layers   []digest.Digest // diffIDs, bottom first
}

// Images finds images.
type Images interface {
	// Resolve finds an image by reference or ID; errdefs.ErrNotFound when it
	// is not here.
	Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (*Image, error)
	// Matches returns the ID of the image a name or ID stands for now.
	Matches(ctx context.Context, ref string) (digest.Digest, error)
	// Commit makes an image of a container's changes, and returns its ID and
	// the name it was given, "" for none. The request is not used afterwards.
	Commit(ctx context.Context, r *CommitRequest) (id digest.Digest, name string, err error)
}

// CommitRequest asks for an image.
type CommitRequest struct {
	Parent digest.Digest // the image the container was made from
	// Config is what was asked for, which Changes are applied to; Container is
	// what completes it, and made the changes.
	Config, Container dockerspec.DockerOCIImageConfig
	Changes           []string
	Repo, Tag         string
	Author, Comment   string
	// Diff writes the changes as an uncompressed layer archive. It is called
	// once at most.
	Diff func(ctx context.Context, w io.Writer) error
}

// NetworkRequest asks for a network namespace for one container.
type NetworkRequest struct {
	ContainerID, Name, Hostname string
	Mode                        api.NetworkMode
	Exposed                     network.PortSet
	Bindings                    network.PortMap
	PublishAll                  bool
	Endpoints                   map[string]*network.EndpointSettings
}

// Sandbox is a network namespace with its addresses.
type Sandbox struct {
	NetNS *os.File // the caller closes it; the container's processes keep it alive
	Network
}

// Networks gives containers their network namespaces. Both calls are idempotent.
type Networks interface {
	Connect(ctx context.Context, r *NetworkRequest) (*Sandbox, error)
	Disconnect(ctx context.Context, containerID string) error
	// Connected returns how a container is connected, nil when it is not.
	Connected(containerID string) *Network
	// Rename tells that the container has another name.
	Rename(containerID, name string) error
	// Restore keeps what the live containers hold and releases all else.
	Restore(ctx context.Context, live map[string]struct{}) error
}

// Volume is a volume a container uses.
type Volume struct {
	Name, Driver, Source string
	Empty                bool // nothing was ever written to it
}

// Volumes gives containers their volumes and counts who uses them.
type Volumes interface {
	// Use finds or, where there is none of the name, creates a volume, and
	// notes the user. An empty name makes an anonymous one.
	Use(ctx context.Context, spec mount.Mount, containerID string) (*Volume, error)
	// Release ends the use; remove also deletes anonymous volumes nobody uses.
	Release(ctx context.Context, name, containerID string, remove bool) error
	// Open makes sure the volume is mounted and returns its directory.
	Open(ctx context.Context, name string) (string, error)
}

// Defaults are the engine's settings for what a container does not say.
type Defaults struct {
	LogDriver      string
	LogOpts        map[string]string
	CgroupParent   string
	CgroupnsMode   api.CgroupnsMode
	IPCMode        api.IpcMode
	ShmSize        int64
	Init           bool
	InitPath       string
	Ulimits        []*api.Ulimit
	Runtime        string
	Runtimes       map[string]Runtime
	CDISpecDirs    []string
	SeccompProfile string // a path, "unconfined", or "" for the built-in one
	// AppArmorProfile confines containers that ask for no other; "" for none.
	AppArmorProfile string
	DNS             []netip.Addr
	DNSSearch       []string
	DNSOptions      []string
	HostGateway     func() []netip.Addr // what host-gateway stands for
	StopTimeout     int
}

// Runtime is an external OCI runtime.
type Runtime struct {
	Path string
	Args []string
}

// Options are what a Manager is made of.
type Options struct {
	DataRoot, ExecRoot string
	Instance           string // prefix of what is visible on the host, such as cgroups
	DB                 *state.DB
	Events             *state.Events
	Shim               *shim.Client
	Snapshots          snapshot.Snapshotter
	Images             Images
	Networks           Networks
	Volumes            Volumes
	Defaults           Defaults
	Log                *slog.Logger
}

// Manager manages the containers of one engine.
type Manager struct {
	opts  Options
	table *state.Table[Record]
	blind bool // some record could not be read, so that not everything is known

	mu        sync.Mutex            // guards what follows; see the package comment
	byID      map[string]*Container // every container
	byName    map[string]string     // name to ID
	ids       []string              // sorted, for finding by prefix
	execs     map[string]*execution // by exec ID
	execCount int                   // execs that have ended
	farewells []farewell            // of the last that removed themselves

	can    func() cgroup.Support   // looked at once, when first asked
	unborn map[*Container]struct{} // being created
	probes map[string]chan int     // exit codes of running health checks, by exec ID

	ctx       context.Context // ends with the manager
	stop      context.CancelFunc
	following sync.WaitGroup // watch, once it was begun

	users userCache
	bin   trash.Bin // directories of containers that removed themselves
	// spares are directories for the next containers.
	spares *ahead.Dirs
}

// lookup finds a container by ID, name or unambiguous beginning of an ID.
func (m *Manager) lookup(ref string) (*Container, error) {
	if ref == "" {
		return nil, errs.InvalidArgument("no container name or ID supplied")
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.byID[ref]; ok {
		return c, nil
	}
	if id, ok := m.byName[strings.TrimPrefix(ref, "/")]; ok {
		return m.byID[id], nil
	}
	i := sort.SearchStrings(m.ids, ref)
	if i == len(m.ids) || !strings.HasPrefix(m.ids[i], ref) {
		return nil, errs.NotFound("No such container: %s", ref)
	}
	if i+1 < len(m.ids) && strings.HasPrefix(m.ids[i+1], ref) {
		return nil, errs.InvalidArgument("multiple IDs found with provided prefix: %s", ref)
	}
	return m.byID[m.ids[i]], nil
}

// all returns every container, the newest first.
func (m *Manager) all() []*Container {
	m.mu.Lock()
	list := make([]*Container, 0, len(m.byID))
	for _, c := range m.byID {
		list = append(list, c)
	}
	m.mu.Unlock()
	created := make(map[*Container]int64, len(list))
	for _, c := range list {
		c.mu.Lock()
		created[c] = c.rec.Created.UnixNano()
		c.mu.Unlock()
	}
	sort.Slice(list, func(i, j int) bool { return created[list[i]] > created[list[j]] })
	return list
}

// add puts a new container into the index; its name must be reserved already.
func (m *Manager) add(c *Container) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := c.rec.ID
	m.byID[id] = c
	i := sort.SearchStrings(m.ids, id)
	m.ids = append(m.ids, "")
	copy(m.ids[i+1:], m.ids[i:])
	m.ids[i] = id
}

// forget takes a container out of the index and frees its name.
func (m *Manager) forget(c *Container) {
	rec := c.copy()
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byID, rec.ID)
	if m.byName[rec.Name] == rec.ID {
		delete(m.byName, rec.Name)
	}
	if i := sort.SearchStrings(m.ids, rec.ID); i < len(m.ids) && m.ids[i] == rec.ID {
		m.ids = append(m.ids[:i], m.ids[i+1:]...)
	}
}

// Counts tells how many containers are in each of the states `info` shows.
func (m *Manager) Counts() (running, paused, stopped int) {
	for _, c := range m.all() {
		rec := c.copy()
		switch rec.State.Status {
		case api.StatePaused:
			paused++
		case api.StateRunning, api.StateRestarting:
			running++
		default:
			stopped++
		}
	}
	return running, paused, stopped
}

// UsersOf returns the IDs of the containers that use an image, and of those of
// them that run.
func (m *Manager) UsersOf(image digest.Digest) (all, running []string) {
	for _, c := range m.all() {
		rec := c.copy()
		uses := rec.ImageID == image
		for _, mnt := range rec.Mounts {
			uses = uses || mnt.Type == mount.TypeImage && mnt.Name == image.String()
		}
		if uses {
			all = append(all, rec.ID)
			if rec.running() {
				running = append(running, rec.ID)
			}
		}
	}
	return all, running
}

// Layers returns the layers containers stand on, some more than once.
func (m *Manager) Layers() []digest.Digest {
	var layers []digest.Digest
	list := m.all()
	m.mu.Lock()
	for c := range m.unborn {
		list = append(list, c)
	}
	m.mu.Unlock()
	for _, c := range list {
		rec := c.copy()
		layers = append(layers, rec.Layers...)
		for _, mnt := range rec.Mounts {
			layers = append(layers, mnt.Layers...)
		}
	}
	return layers
}

// Tty tells whether the container has a terminal, which decides the framing of
// its streams.
func (m *Manager) Tty(ref string) (bool, error) {
	c, err := m.lookup(ref)
	if err != nil {
		return false, err
	}
	return c.copy().Config.Tty, nil
}

var _ io.Closer = (*Manager)(nil)
