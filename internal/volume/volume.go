// Package volume manages named directories that outlive containers.
//
// It owns the volume records and DATA-ROOT/volumes: the data of a volume is in
// volumes/NAME/_data. The one driver is "local"; with the options type, device
// and o it mounts a file system there while it is used. The package knows users
// of volumes only by their container IDs.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/events"
	api "github.com/moby/moby/api/types/volume"

	"github.com/gantry-containers/gantry/internal/du"
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/filter"
	"github.com/gantry-containers/gantry/internal/state"
)

// Driver is the name of the one driver.
const Driver = "local"

// anonymousLabel marks volumes that were made without a name, as Docker does.
const anonymousLabel = "com.docker.volume.anonymous"

// Record is what is remembered of a volume.
type Record struct {
	Name    string
	Created time.Time
	Labels  map[string]string `json:",omitempty"`
	Options map[string]string `json:",omitempty"`
}

// Manager manages the volumes of one engine.
type Manager struct {
	dir    string
	table  *state.Table[Record]
	events *state.Events

	mu    sync.Mutex // guards what follows, and the directories
	all   map[string]*Record
	users map[string]map[string]bool // container IDs by volume
}

// New opens the volumes below the data root. Directories without a record, of
// a crash in the middle of a creation, are left alone: they may hold data.
func New(dataRoot string, db *state.DB, ev *state.Events) (*Manager, error) {
	m := &Manager{
		dir:    filepath.Join(dataRoot, "volumes"),
		table:  state.NewTable[Record](db, "volumes"),
		events: ev,
		users:  map[string]map[string]bool{},
	}
	if err := os.MkdirAll(m.dir, 0o701); err != nil {
		return nil, fmt.Errorf("cannot make the volumes' directory: %w", err)
	}
	var err error
	m.all, err = m.table.All()
	return m, err
}

// SetUsers tells, once at start, which containers use which volumes.
func (m *Manager) SetUsers(users map[string][]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, ids := range users {
		for _, id := range ids {
			m.use(name, id)
		}
	}
}

// use is called with mu held.
func (m *Manager) use(name, id string) {
	if m.users[name] == nil {
		m.users[name] = map[string]bool{}
	}
	m.users[name][id] = true
}

func (m *Manager) path(name string) string { return filepath.Join(m.dir, name, "_data") }

// Create makes a volume, or returns the one that has the name already when its
// options do not differ. An empty name makes an anonymous volume.
func (m *Manager) Create(ctx context.Context, r *api.CreateRequest) (*api.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec, err := m.create(r)
	if err != nil {
		return nil, err
	}
	v := m.describe(rec)
	return &v, nil
}

// create is called with mu held.
func (m *Manager) create(r *api.CreateRequest) (*Record, error) {
	if r.ClusterVolumeSpec != nil {
		return nil, errs.InvalidArgument("cannot make a cluster volume: this engine is not part of a cluster")
	}
	if r.Driver != "" && r.Driver != Driver {
		return nil, errs.NotFound("error looking up volume plugin %s: plugin %q not found", r.Driver, r.Driver)
	}
	if have, ok := m.all[r.Name]; ok {
		if len(r.DriverOpts) > 0 && !maps.Equal(r.DriverOpts, have.Options) {
			return nil, errs.Conflict("create %s: conflict: volume name must be unique: it exists with other options", r.Name)
		}
		return have, nil
	}
	rec := &Record{Name: r.Name, Created: time.Now().UTC(), Labels: r.Labels, Options: r.DriverOpts}
	if rec.Name == "" {
		rec.Name = anonymousName()
		rec.Labels = maps.Clone(rec.Labels)
		if rec.Labels == nil {
			rec.Labels = map[string]string{}
		}
		rec.Labels[anonymousLabel] = ""
	}
	if err := validName(rec.Name); err != nil {
		return nil, err
	}
	if err := validOptions(rec.Options); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(m.path(rec.Name), 0o755); err != nil {
		return nil, fmt.Errorf("cannot make volume %s: %w", rec.Name, err)
	}
	if err := os.Chmod(filepath.Dir(m.path(rec.Name)), 0o701); err != nil {
		return nil, err
	}
	if err := m.table.Put(rec.Name, rec); err != nil {
		os.RemoveAll(filepath.Dir(m.path(rec.Name)))
		return nil, err
	}
	m.all[rec.Name] = rec
	m.publish(events.ActionCreate, rec.Name, "driver", Driver)
	return rec, nil
}

func validName(name string) error {
	for i, r := range name {
		alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alnum && (i == 0 || r != '_' && r != '.' && r != '-') {
			return badName(name)
		}
	}
	if len(name) < 2 || len(name) > 255 {
		return badName(name)
	}
	return nil
}

func badName(name string) error {
	return errs.InvalidArgument("create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. "+
		"If you intended to pass a host directory, use absolute path", name, name)
}

// Inspect finds a volume by its name.
func (m *Manager) Inspect(ctx context.Context, name string) (*api.Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	rec, ok := m.all[name]
	if !ok {
		return nil, errs.NotFound("get %s: no such volume", name)
	}
	v := m.describe(rec)
	return &v, nil
}

func (m *Manager) describe(rec *Record) api.Volume {
	v := api.Volume{
		Name:       rec.Name,
		Driver:     Driver,
		Mountpoint: m.path(rec.Name),
		CreatedAt:  rec.Created.Format(time.RFC3339),
		Labels:     rec.Labels,
		Options:    rec.Options,
		Scope:      "local",
	}
	return v
}

// List returns the volumes the filters choose, by name: name, driver, label,
// dangling.
func (m *Manager) List(ctx context.Context, f filter.Args) (*api.ListResponse, error) {
	if err := f.Validate("dangling", "driver", "label", "name"); err != nil {
		return nil, err
	}
	wantDangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	list := []api.Volume{}
	for _, rec := range m.all {
		if f.Has("dangling") && wantDangling != (len(m.users[rec.Name]) == 0) ||
			!f.Match("name", rec.Name) || !f.ExactMatch("driver", Driver) || !f.MatchKV("label", rec.Labels) {
			continue
		}
		list = append(list, m.describe(rec))
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return &api.ListResponse{Volumes: list}, nil
}

// Remove deletes a volume and its data. One that is used is errdefs.ErrConflict;
// with force, one that does not exist is no error.
func (m *Manager) Remove(ctx context.Context, name string, force bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.all[name]; !ok {
		if force {
			return nil
		}
		return errs.NotFound("get %s: no such volume", name)
	}
	if users := m.users[name]; len(users) > 0 {
		ids := slices.Sorted(maps.Keys(users))
		return errs.Conflict("remove %s: volume is in use - [%s]", name, strings.Join(ids, ", "))
	}
	return m.remove(name)
}

// remove is called with mu held.
func (m *Manager) remove(name string) error {
	if err := unmount(m.path(name)); err != nil {
		return err
	}
	if err := m.table.Delete(name); err != nil {
		return err
	}
	delete(m.all, name)
	delete(m.users, name)
	m.publish(events.ActionDestroy, name, "driver", Driver)
	if err := os.RemoveAll(filepath.Join(m.dir, name)); err != nil {
		return fmt.Errorf("cannot delete the data of volume %s: %w", name, err)
	}
	return nil
}

// Prune deletes the volumes nobody uses: anonymous ones, or with the filter
// all=true named ones as well.
func (m *Manager) Prune(ctx context.Context, f filter.Args) (*api.PruneReport, error) {
	if err := f.Validate("all", "label", "label!"); err != nil {
		return nil, err
	}
	everything, err := f.Bool("all", false)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	report := &api.PruneReport{VolumesDeleted: []string{}}
	for _, name := range slices.Sorted(maps.Keys(m.all)) {
		rec := m.all[name]
		_, anonymous := rec.Labels[anonymousLabel]
		if len(m.users[name]) > 0 || !anonymous && !everything || !f.MatchLabels(rec.Labels) {
			continue
		}
		size, err := du.Tree(ctx, filepath.Dir(m.path(name)))
		if err != nil {
			return report, err
		}
		if err := m.remove(name); err != nil {
			return report, err
		}
		report.VolumesDeleted = append(report.VolumesDeleted, name)
		report.SpaceReclaimed += uint64(size)
	}
	m.publish(events.ActionPrune, "", "reclaimed", strconv.FormatUint(report.SpaceReclaimed, 10))
	return report, nil
}

// Usage returns what every volume takes on disk, in bytes of blocks, and the
// number of its users.
func (m *Manager) Usage(ctx context.Context) ([]api.Volume, error) {
	all, err := m.List(ctx, nil)
	if err != nil {
		return nil, err
	}
	list := all.Volumes
	for i := range list {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		m.mu.Lock()
		users := len(m.users[list[i].Name])
		m.mu.Unlock()
		size, err := du.Tree(ctx, filepath.Dir(m.path(list[i].Name)))
		if err != nil {
			return nil, err
		}
		list[i].UsageData = &api.UsageData{RefCount: int64(users), Size: size}
	}
	return list, nil
}

func (m *Manager) publish(action events.Action, name string, attributes ...string) {
	actor := events.Actor{ID: name, Attributes: map[string]string{}}
	for i := 0; i+1 < len(attributes); i += 2 {
		actor.Attributes[attributes[i]] = attributes[i+1]
	}
	m.events.Publish(events.Message{Type: events.VolumeEventType, Action: action, Actor: actor})
}

// isEmpty tells whether a directory has no entries.
func isEmpty(dir string) bool {
	d, err := os.Open(dir)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer d.Close()
	names, _ := d.Readdirnames(1)
	return len(names) == 0
}
