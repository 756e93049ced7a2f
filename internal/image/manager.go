// Package image keeps images: what they are made of, what they are called, and
// how they come from and go to archives and registries.
//
// It owns four kinds of thing. An image's record, under the digest of its
// configuration, which is its ID as Docker has it. References, which are tags
// and repository digests: each stands for a target, the manifest of one image
// or an index of several, and means one image. A record per index, of which of
// its manifests are here. And, on behalf of those, the blobs of the content
// store and the layers of the snapshotter: those that nothing names are
// removed. It must not know containers: whether one uses an image it asks
// through Options.
//
// An image for another kind of machine than this is kept packed: its layers are
// blobs until Resolve is asked for them.
//
// What a crash can leave behind is harmless by the order of writes: blobs, then
// layers, then the image's record, then the index's, then the reference; and
// the other way round when something is removed. Collect removes the rest.
//
// Locks, in this order: Manager.reclaiming, Manager.sweeping, Manager.mu,
// ingest.mu, pins.mu; and group.mu before ingest.mu. Manager.useMu and uploads.mu
// are taken last. No lock is held while a slot is waited for.
package image

import (
	"encoding/json"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/content"
	"github.com/gantry-containers/gantry/internal/registry"
	"github.com/gantry-containers/gantry/internal/snapshot"
	"github.com/gantry-containers/gantry/internal/state"
)

// Options is what a Manager works with.
type Options struct {
	DB        *state.DB
	Content   *content.Store
	Snapshots snapshot.Snapshotter
	Events    *state.Events
	// Registry reaches registries; nil is a client with default options.
	Registry *registry.Client
	// InUse lists the containers, by full ID, made from the image, whether
	// they run or not. Nil is none.
	InUse func(id digest.Digest) []string
	// Running lists those of them that run. Nil is none.
	Running func(id digest.Digest) []string
	// LayersInUse lists the layers containers stand on, also when the image
	// they were made from is gone. Nil is none.
	LayersInUse func() []digest.Digest
	// Parallel is how many layers of one pull are fetched and unpacked at
	// once, of all pulls twice as many; 0 means what AtOnce says of a machine
	// without memory.
	Parallel int
	// Uploads is how many blobs of one push are sent at once; 0 means 5.
	Uploads int
	// Watermarks are between which levels of disk use images are collected.
	Watermarks Watermarks
	// Idle is how long an image must not have been used to be collected; 0
	// means two minutes.
	Idle time.Duration
}

// Manager is the images of one engine. It is safe for concurrent use.
type Manager struct {
	opts    Options
	images  *state.Table[record]
	refs    *state.Table[refRecord]
	indexes *state.Table[indexRecord]
	sourced *state.Table[sourceRecord] // by repository
	used    *state.Table[useRecord]    // by ID; volatile
	uploads *uploads                   // volatile

	parsed parsedRefs

	mu      sync.RWMutex                   // guards the maps
	byID    map[digest.Digest]*entry       // never modified in place: replaced
	byRef   map[string]refRecord           // by canonical reference
	byIndex map[digest.Digest]*indexRecord // those a reference stands for; replaced
	// bySource is which blobs a repository, by its full name, is known to have.
	bySource map[string]map[digest.Digest]bool

	// sweeping is held for writing while blobs and layers are removed, and
	// for reading while one is adopted: found or committed, and then pinned.
	sweeping sync.RWMutex
	pins     pins

	reclaiming sync.Mutex    // one collection at a time; taken before all others
	arrived    chan struct{} // has one in it when an image came in since Watch looked

	useMu sync.Mutex                  // guards what follows; taken last
	uses  map[digest.Digest]time.Time // the last use of images
	noted map[digest.Digest]time.Time // as it is recorded

	layers group // layers being fetched or unpacked, by diff ID
	blobs  group // blobs being fetched and left as they are, by digest
	slots  slots // one for each of those that is worked on
}

// record is what is kept of an image under its ID.
type record struct {
	// Manifest is the one the image came with, or one written for it.
	Manifest ocispec.Descriptor `json:"manifest"`
	Layers   []layerRecord      `json:"layers"` // bottom first
	Parent   digest.Digest      `json:"parent,omitempty"`
	Made     bool               `json:"made,omitempty"` // the manifest was written here
	Added    time.Time          `json:"added"`
}

// layerRecord is one layer of an image: the unpacked tree, and the blob it was
// unpacked from. The blob may differ from the one the manifest names, when the
// same tree had been there before in another compression.
type layerRecord struct {
	DiffID digest.Digest      `json:"diffID"`
	Size   int64              `json:"size"` // unpacked, in bytes; while packed the blob's
	Blob   ocispec.Descriptor `json:"blob"`
	Packed bool               `json:"packed,omitempty"` // there is no tree of it yet
}

// refRecord is what a tag or a repository digest stands for.
type refRecord struct {
	// ID is the image it means when no platform is asked for.
	ID digest.Digest `json:"id"`
	// Target is the manifest or the index it was given to.
	Target ocispec.Descriptor `json:"target,omitzero"`
	Tagged time.Time          `json:"tagged"`
}

// entry is a record in memory, with the configuration once it was read.
type entry struct {
	record
	id     digest.Digest
	config func() (*dockerspec.DockerOCIImage, error)
}

// New reads the records. A record whose blobs are gone is left out; Collect
// removes what belongs to nothing.
func New(opts Options) (*Manager, error) {
	if opts.Registry == nil {
		opts.Registry = registry.New(registry.Options{})
	}
	if opts.Parallel <= 0 {
		opts.Parallel = AtOnce(0)
	}
	if opts.Uploads <= 0 {
		opts.Uploads = 5
	}
	if opts.Idle <= 0 {
		opts.Idle = idle
	}
	if err := opts.Watermarks.Check(); err != nil {
		return nil, err
	}
	none := func(digest.Digest) []string { return nil }
	if opts.InUse == nil {
		opts.InUse = none
	}
	if opts.Running == nil {
		opts.Running = none
	}
	if opts.LayersInUse == nil {
		opts.LayersInUse = func() []digest.Digest { return nil }
	}
	m := &Manager{
		opts:     opts,
		images:   state.NewTable[record](opts.DB, "images"),
		refs:     state.NewTable[refRecord](opts.DB, "image-refs"),
		indexes:  state.NewTable[indexRecord](opts.DB, "image-indexes"),
		sourced:  state.NewTable[sourceRecord](opts.DB, "image-sources"),
		used:     state.NewTable[useRecord](opts.DB, "image-uses"),
		uploads:  newUploads(opts.DB),
		uses:     map[digest.Digest]time.Time{},
		noted:    map[digest.Digest]time.Time{},
		arrived:  make(chan struct{}, 1),
		byID:     map[digest.Digest]*entry{},
		byRef:    map[string]refRecord{},
		byIndex:  map[digest.Digest]*indexRecord{},
		bySource: map[string]map[digest.Digest]bool{},
		pins:     pins{blobs: map[digest.Digest]int{}, layers: map[digest.Digest]int{}},
		slots:    newSlots(opts.Parallel),
	}
	if err := m.restore(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manager) newEntry(id digest.Digest, rec record) *entry {
	return &entry{id: id, record: rec, config: sync.OnceValues(func() (*dockerspec.DockerOCIImage, error) {
		data, err := m.opts.Content.ReadAll(id, maxConfig)
		if err != nil {
			return nil, fmt.Errorf("cannot read the configuration of image %s: %w", short(id), err)
		}
		config := &dockerspec.DockerOCIImage{}
		if err := json.Unmarshal(data, config); err != nil {
			return nil, fmt.Errorf("cannot read the configuration of image %s: %w", short(id), err)
		}
		return config, nil
	})}
}

// size is the sum of the layers, in bytes: of their trees, or while they are
// packed of their blobs.
func (e *entry) size() (total int64) {
	for _, l := range e.Layers {
		total += l.Size
	}
	return total
}

// unpackedSize is the sum of the layers that are unpacked, in bytes.
func (e *entry) unpackedSize() (total int64) {
	for _, l := range e.Layers {
		if !l.Packed {
			total += l.Size
		}
	}
	return total
}

// packed tells whether the image has layers that are only blobs yet.
func (r *record) packed() bool {
	return slices.ContainsFunc(r.Layers, func(l layerRecord) bool { return l.Packed })
}

func (e *entry) diffIDs() []digest.Digest {
	ids := make([]digest.Digest, len(e.Layers))
	for i, l := range e.Layers {
		ids[i] = l.DiffID
	}
	return ids
}

// publish tells of an event, with Docker's attributes: the image's labels and
// a name.
func (m *Manager) publish(action events.Action, e *entry, actor, name string) {
	if m.opts.Events == nil {
		return
	}
	attributes := map[string]string{}
	if e != nil {
		if config, err := e.config(); err == nil {
			for k, v := range config.Config.Labels {
				attributes[k] = v
			}
		}
	}
	if name != "" {
		attributes["name"] = name
	}
	m.opts.Events.Publish(events.Message{
		Type:   events.ImageEventType,
		Action: action,
		Actor:  events.Actor{ID: actor, Attributes: attributes},
	})
}

// short is the ID as people see it: twelve digits.
func short(id digest.Digest) string {
	hex := id.Encoded()
	return hex[:min(12, len(hex))]
}

// HostPlatform is the platform images are chosen for when none is asked for.
func HostPlatform() ocispec.Platform {
	return normalize(ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH})
}
