package image

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/content"
)

// ReclaimOptions says how a collection differs from the automatic one.
type ReclaimOptions struct {
	Watermarks Watermarks // instead of the configured ones; zero are those
	DryRun     bool       // only tell what would go
}

// ReclaimReport is what a collection found and did, as POST /system/collect
// answers it. Sizes are in bytes, as du(1) counts them.
type ReclaimReport struct {
	DryRun  bool
	Enabled bool // there is a high watermark
	// Of is what the levels are of: "filesystem", or "images".
	Of    string `json:",omitempty"`
	Used  int64  // before
	Total int64  `json:",omitempty"` // of the file system
	High  int64  // above which there is something to do
	Low   int64  // at which it ends
	// Images are those that went or would go, in that order.
	Images    []ReclaimedImage
	Partials  int64 // of interrupted downloads, which go first
	Reclaimed int64 // in all
	// Short is how much is above Low when all went that may.
	Short int64
}

// ReclaimedImage is one image of a collection.
type ReclaimedImage struct {
	ID       digest.Digest
	Names    []string
	LastUsed time.Time
	Size     int64 // that becomes free with it, after those before it
}

// idle is how long an image or an interrupted download must not have been used
// before it may be collected: what was pulled to be run next has no container
// yet.
const idle = 2 * time.Minute

// Reclaim removes the images used least recently that no container needs, when
// the disk is fuller than the high watermark, until it is at the low one.
// Interrupted downloads go before them. It returns what was done also when it
// fails half way.
func (m *Manager) Reclaim(ctx context.Context, o ReclaimOptions) (*ReclaimReport, error) {
	m.reclaiming.Lock()
	defer m.reclaiming.Unlock()
	w := m.opts.Watermarks
	if o.Watermarks != (Watermarks{}) {
		w = o.Watermarks
	}
	report := &ReclaimReport{DryRun: o.DryRun, Images: []ReclaimedImage{}}
	if err := w.Check(); err != nil || w.High.IsZero() {
		return report, err
	}
	l, err := m.level(ctx, w)
	if err != nil {
		return report, err
	}
	report.Enabled, report.Used, report.Total, report.High, report.Low = true, l.used, l.total, l.high, l.low
	report.Of = "images"
	if w.High.Percent > 0 {
		report.Of = "filesystem"
	}
	m.touchUsed()
	if l.used <= l.high {
		return report, nil
	}
	rc := &reclaimer{m: m, ctx: ctx, o: o, report: report, cutoff: time.Now().Add(-m.opts.Idle), tried: map[digest.Digest]bool{}}
	return report, rc.run(l, w)
}

// reclaimer is one collection under way.
type reclaimer struct {
	m      *Manager
	ctx    context.Context // of Reclaim
	o      ReclaimOptions
	report *ReclaimReport
	cutoff time.Time
	tried  map[digest.Digest]bool
}

func (rc *reclaimer) run(l level, w Watermarks) (err error) {
	if rc.report.Partials, err = rc.partials(); err != nil {
		return err
	}
	rc.report.Reclaimed = rc.report.Partials
	over := l.used - l.low - rc.report.Partials
	for over > 0 && rc.ctx.Err() == nil {
		victims, err := rc.plan(over)
		if err != nil {
			return err
		}
		if len(victims) == 0 {
			break
		}
		for _, v := range victims {
			gone, err := rc.remove(v)
			if err != nil {
				return err
			}
			if gone {
				rc.report.Images = append(rc.report.Images, v.ReclaimedImage)
				rc.report.Reclaimed += v.Size
				over -= v.Size
			}
		}
		if rc.o.DryRun {
			break
		}
		// What was removed may have freed less than it seemed to, or others
		// have filled the disk again.
		now, err := rc.m.level(rc.ctx, w)
		if err != nil {
			return err
		}
		over = now.used - now.low
	}
	rc.report.Short = max(0, over)
	return context.Cause(rc.ctx)
}

// partials removes the interrupted downloads nobody goes on with.
func (rc *reclaimer) partials() (freed int64, err error) {
	if !rc.o.DryRun {
		return rc.m.opts.Content.DropPartials(rc.cutoff)
	}
	err = rc.m.opts.Content.WalkPartials(func(info content.Info) error {
		if !info.ModTime.After(rc.cutoff) {
			freed += info.Size
		}
		return nil
	})
	return freed, err
}

// remove removes an image unless it came into use, and tells whether it is gone.
func (rc *reclaimer) remove(v *victim) (bool, error) {
	rc.tried[v.ID] = true
	if rc.o.DryRun {
		return true, nil
	}
	_, err := rc.m.pruneOne(rc.ctx, v.e)
	if errors.Is(err, errdefs.ErrConflict) || errors.Is(err, errdefs.ErrNotFound) {
		return false, nil
	}
	rc.m.mu.RLock()
	defer rc.m.mu.RUnlock()
	return rc.m.byID[v.ID] == nil, err
}

// victim is an image that may go, with what else its names keep.
type victim struct {
	ReclaimedImage
	e    *entry
	ids  []digest.Digest // of all the images
	held holding
}

// plan lists images to remove, the one used least recently first, until enough
// bytes are free. An image goes before the one it was made from.
func (rc *reclaimer) plan(over int64) (list []*victim, err error) {
	d, err := rc.m.measure(rc.ctx)
	if err != nil {
		return nil, err
	}
	all := rc.m.units()
	left := rc.m.counts(all)
	children := map[digest.Digest]int{}
	for _, v := range all {
		children[v.e.Parent]++
	}
	candidates := slices.DeleteFunc(all, func(v *victim) bool { return !rc.idle(v) })
	for over > 0 {
		i := slices.IndexFunc(candidates, func(v *victim) bool { return children[v.ID] == 0 })
		if i < 0 {
			break
		}
		v := candidates[i]
		candidates = slices.Delete(candidates, i, i+1)
		v.Size = left.take(v.held, d)
		children[v.e.Parent]--
		over -= v.Size
		list = append(list, v)
	}
	return list, nil
}

// idle tells whether nobody needs the image, and nobody did a moment ago.
func (rc *reclaimer) idle(v *victim) bool {
	if rc.tried[v.ID] || v.LastUsed.After(rc.cutoff) {
		return false
	}
	for _, id := range v.ids {
		if len(rc.m.opts.InUse(id)) > 0 || rc.m.pins.has(rc.m.pins.blobs, id) {
			return false
		}
	}
	return true
}

// units are the images that go each by themselves, the one used least recently
// first. The images of one index go together.
func (m *Manager) units() (list []*victim) {
	held := m.holdings()
	m.mu.RLock()
	defer m.mu.RUnlock()
	together := map[digest.Digest][]digest.Digest{}
	part := map[digest.Digest]bool{}
	for _, rec := range m.byIndex {
		main := rec.main()
		for _, id := range rec.images() {
			if id != main {
				together[main] = append(together[main], id)
				part[id] = len(m.references(id)) == 0
			}
		}
	}
	for id, e := range m.byID {
		if part[id] {
			continue
		}
		v := &victim{ReclaimedImage: ReclaimedImage{ID: id, Names: []string{}, LastUsed: m.lastUse(e)},
			e: e, ids: append(together[id], id), held: held[id]}
		for _, other := range together[id] {
			if o := m.byID[other]; o != nil && m.lastUse(o).After(v.LastUsed) {
				v.LastUsed = m.lastUse(o)
			}
		}
		for _, key := range m.references(id) {
			v.Names = append(v.Names, familiar(key))
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b *victim) int {
		if c := a.LastUsed.Compare(b.LastUsed); c != 0 {
			return c
		}
		return compareDigests(a.ID, b.ID)
	})
	return list
}

func compareDigests(a, b digest.Digest) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// counts is how many need each layer and blob: images, containers, and what is
// on its way in or out.
func (m *Manager) counts(all []*victim) *owners {
	left := &owners{layers: map[digest.Digest]int{}, blobs: map[digest.Digest]int{}}
	for _, v := range all {
		left.add(v.held)
	}
	for _, d := range m.opts.LayersInUse() {
		left.layers[d]++
	}
	m.pins.mu.Lock()
	defer m.pins.mu.Unlock()
	for d := range m.pins.layers {
		left.layers[d]++
	}
	for d := range m.pins.blobs {
		left.blobs[d]++
	}
	return left
}

// take takes an image out, and returns how many bytes nobody needs then.
func (o *owners) take(h holding, d *disk) (freed int64) {
	for key := range h.layers {
		if o.layers[key]--; o.layers[key] == 0 {
			freed += d.layers[key]
		}
	}
	for key := range h.blobs {
		if o.blobs[key]--; o.blobs[key] == 0 {
			freed += d.blobs[key]
		}
	}
	return freed
}

// checkEvery is how often the disk is looked at when no image comes in.
const checkEvery = time.Minute

// Watch collects images for as long as the context lasts: when one has come in,
// and every minute. done is told of every collection that removed something or
// failed. Without a high watermark it does nothing.
func (m *Manager) Watch(ctx context.Context, done func(*ReclaimReport, error)) {
	if m.opts.Watermarks.High.IsZero() {
		return
	}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		report, err := m.Reclaim(ctx, ReclaimOptions{})
		if ctx.Err() != nil {
			return
		}
		if err != nil || report.Reclaimed > 0 {
			done(report, err)
		}
		select {
		case <-tick.C:
		case <-m.arrived:
		case <-ctx.Done():
			return
		}
	}
}

// tellArrival lets Watch look at the disk.
func (m *Manager) tellArrival() {
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}
