// Package image keeps images: what they are made of, what they are called, and
// how they come from and go to archives and registries.
//
// It owns three kinds of thing. An image's record, under the digest of its
// configuration, which is its ID as Docker has it. References, which are tags
// and repository digests, each pointing at one ID. And, on behalf of images,
// the blobs of the content store and the layers of the snapshotter: those that
// no image names are removed. It must not know containers: whether one uses an
// image it asks through Options.
//
// What a crash can leave behind is harmless by the order of writes: blobs, then
// layers, then the record, then the reference; and the other way round when
// something is removed. Collect removes the rest.
//
// Locks, in this order: Manager.sweeping, Manager.mu, ingest.mu, pins.mu; and
// group.mu before ingest.mu.
package image

import (
	"encoding/json"
	"fmt"
	"runtime"
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
	// Parallel is how many layers of one pull are fetched at once; 0 means 3.
	Parallel int
}

// Manager is the images of one engine. It is safe for concurrent use.
type Manager struct {
	opts   Options
	images *state.Table[record]
	refs   *state.Table[refRecord]

	mu    sync.RWMutex             // guards byID, byRef
	byID  map[digest.Digest]*entry // never modified in place: replaced
	byRef map[string]refRecord     // by canonical reference

	// sweeping is held for writing while blobs and layers are removed, and
	// for reading while one is adopted: found or committed, and then pinned.
	sweeping sync.RWMutex
	pins     pins

	layers group // layers being fetched or unpacked, by diff ID
}

// record is what is kept of an image under its ID.
type record struct {
	// Manifest is the one the image came with, or one written for it.
	Manifest ocispec.Descriptor `json:"manifest"`
	Layers   []layerRecord      `json:"layers"` // bottom first
	Parent   digest.Digest      `json:"parent,omitempty"`
	Added    time.Time          `json:"added"`
}

// layerRecord is one layer of an image: the unpacked tree, and the blob it was
// unpacked from. The blob may differ from the one the manifest names, when the
// same tree had been there before in another compression.
type layerRecord struct {
	DiffID digest.Digest      `json:"diffID"`
	Size   int64              `json:"size"` // unpacked, in bytes
	Blob   ocispec.Descriptor `json:"blob"`
}

// refRecord is what a tag or a repository digest points at.
type refRecord struct {
	ID     digest.Digest `json:"id"`
	Tagged time.Time     `json:"tagged"`
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
		opts.Parallel = 3
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
		opts:   opts,
		images: state.NewTable[record](opts.DB, "images"),
		refs:   state.NewTable[refRecord](opts.DB, "image-refs"),
		byID:   map[digest.Digest]*entry{},
		byRef:  map[string]refRecord{},
		pins:   pins{blobs: map[digest.Digest]int{}, layers: map[digest.Digest]int{}},
	}
	if err := m.restore(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manager) restore() error {
	images, err := m.images.All()
	if err != nil {
		return fmt.Errorf("cannot read the images: %w", err)
	}
	for key, rec := range images {
		id := digest.Digest(key)
		if m.complete(id, rec) {
			m.byID[id] = m.newEntry(id, *rec)
		}
	}
	refs, err := m.refs.All()
	if err != nil {
		return fmt.Errorf("cannot read the tags: %w", err)
	}
	for key, ref := range refs {
		if m.byID[ref.ID] != nil {
			m.byRef[key] = *ref
		}
	}
	return nil
}

// complete tells whether all that a container needs of the image is there.
func (m *Manager) complete(id digest.Digest, rec *record) bool {
	if _, err := m.opts.Content.Stat(id); err != nil {
		return false
	}
	for _, l := range rec.Layers {
		if !m.opts.Snapshots.HasLayer(l.DiffID) {
			return false
		}
	}
	return true
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

// size is the sum of the unpacked layers, in bytes.
func (e *entry) size() (total int64) {
	for _, l := range e.Layers {
		total += l.Size
	}
	return total
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
