package image

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/filter"
)

// collecting is a rig whose images may be collected at once. InUse tells that
// the images in used have containers.
func collecting(t *testing.T, used map[digest.Digest]bool) *rig {
	r := newRig(t)
	r.opts.Idle = time.Nanosecond
	r.opts.InUse = func(id digest.Digest) []string {
		if used[id] {
			return []string{"0123456789abcdef"}
		}
		return nil
	}
	r.restart()
	return r
}

// sized imports an image of about so many bytes.
func (r *rig) sized(name string, bytesOf int) digest.Digest {
	r.t.Helper()
	id, err := r.Import(context.Background(), bytes.NewReader(tarball(r.t, map[string]string{name: strings.Repeat(name[:1], bytesOf)})), ImportOptions{Repo: name})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *rig) used() int64 {
	r.t.Helper()
	u, err := r.Usage(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return u.Total
}

func names(report *ReclaimReport) (list []string) {
	for _, i := range report.Images {
		list = append(list, strings.Join(i.Names, "+"))
	}
	return list
}

// The images nobody used for longest go, no more of them than must, and what a
// dry run tells is what happens.
func TestReclaim(t *testing.T) {
	used := map[digest.Digest]bool{}
	r := collecting(t, used)
	const size = 200000
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		r.sized(name, size)
	}
	if err := r.Tag("c", "c", "too"); err != nil {
		t.Fatal(err)
	}
	b, err := r.Resolve(t.Context(), "b", nil)
	if err != nil {
		t.Fatal(err)
	}
	used[b.ID] = true
	if _, err := r.Resolve(t.Context(), "a", nil); err != nil { // used last
		t.Fatal(err)
	}
	full := r.used()
	marks := Watermarks{High: Watermark{Bytes: full - 1}, Low: Watermark{Bytes: full - 3*size}}
	quiet, err := r.Reclaim(t.Context(), ReclaimOptions{Watermarks: Watermarks{High: Watermark{Bytes: full}, Low: marks.Low}})
	if err != nil || !quiet.Enabled || len(quiet.Images) != 0 || quiet.Used != full {
		t.Errorf("below the high watermark: %+v, %v", quiet, err)
	}
	dry, err := r.Reclaim(t.Context(), ReclaimOptions{Watermarks: marks, DryRun: true})
	if err != nil || r.used() != full || !slices.Equal(names(dry), []string{"d:latest", "e:latest"}) {
		t.Errorf("a dry run: %+v, %v; %d bytes of %d left", dry, err, r.used(), full)
	}
	// c was tagged last. Each is there twice, as a tree and as a blob.
	got, err := r.Reclaim(t.Context(), ReclaimOptions{Watermarks: marks})
	if err != nil || !slices.Equal(names(got), names(dry)) || got.Reclaimed != dry.Reclaimed || got.Short != 0 {
		t.Errorf("done: %+v, %v; to be done was %+v", got, err, dry)
	}
	if now := r.used(); full-now != got.Reclaimed || now > marks.Low.Bytes {
		t.Errorf("%d bytes are free, %d were told", full-now, got.Reclaimed)
	}
	rest, err := r.Reclaim(t.Context(), ReclaimOptions{Watermarks: Watermarks{High: Watermark{Bytes: 2}, Low: Watermark{Bytes: 1}}})
	if err != nil || !slices.Equal(names(rest), []string{"c:latest+c:too", "a:latest"}) || rest.Short == 0 {
		t.Errorf("everything: %+v, %v", rest, err)
	}
	if _, err := r.Resolve(t.Context(), "b", nil); err != nil {
		t.Errorf("the image of a container went: %v", err)
	}
}

// What belongs together goes together: an image after those made from it, an
// index with its parts.
func TestReclaimOrder(t *testing.T) {
	r := collecting(t, nil)
	parent := r.sized("parent", 1000)
	if _, _, err := r.Commit(t.Context(), CommitOptions{Parent: parent, Diff: oneFile("more", "x"), Repo: "child"}); err != nil {
		t.Fatal(err)
	}
	f := makeFamily(t)
	r.load(layoutOf(t, indexOf(named(f.index.descriptor(), "multi:1")), f.blobs()...))
	all := ReclaimOptions{Watermarks: Watermarks{High: Watermark{Bytes: 2}, Low: Watermark{Bytes: 1}}}
	got, err := r.Reclaim(t.Context(), all)
	if err != nil || !slices.Equal(names(got), []string{"child:latest", "parent:latest", "multi:1"}) {
		t.Errorf("%+v, %v", got, err)
	}
	r.wantNothing()
}

// What was used a moment ago, or is on its way, stays.
func TestReclaimSparesWhatIsNew(t *testing.T) {
	r := newRig(t)
	r.sized("new", 1000)
	all := ReclaimOptions{Watermarks: Watermarks{High: Watermark{Bytes: 2}}}
	if got, err := r.Reclaim(t.Context(), all); err != nil || len(got.Images) != 0 || got.Short == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	r.opts.Idle = time.Nanosecond
	r.restart()
	in := r.begin()
	e, err := r.find("new")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.hold(in, e.id); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Reclaim(t.Context(), all); err != nil || len(got.Images) != 0 {
		t.Errorf("while it is pushed: %+v, %v", got, err)
	}
	in.end()
	if got, err := r.Reclaim(t.Context(), all); err != nil || len(got.Images) != 1 {
		t.Errorf("afterwards: %+v, %v", got, err)
	}
}

// The order of use outlives the daemon, and what was never used counts from when
// it came.
func TestLastUseOutlivesTheDaemon(t *testing.T) {
	r := collecting(t, nil)
	r.sized("first", 1000)
	r.sized("second", 1000)
	if _, err := r.Resolve(t.Context(), "first", nil); err != nil {
		t.Fatal(err)
	}
	r.restart()
	got, err := r.Reclaim(t.Context(), ReclaimOptions{DryRun: true, Watermarks: Watermarks{High: Watermark{Bytes: 2}, Low: Watermark{Bytes: 1}}})
	if err != nil || !slices.Equal(names(got), []string{"second:latest", "first:latest"}) || got.Images[0].LastUsed.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
}

// Watch collects when an image comes in.
func TestWatch(t *testing.T) {
	r := newRig(t)
	r.opts.Idle = time.Nanosecond
	r.opts.Watermarks = Watermarks{High: Watermark{Bytes: r.used() + 500000}}
	r.restart()
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan *ReclaimReport, 10)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Watch(ctx, func(report *ReclaimReport, err error) { told <- report })
	}()
	r.sized("old", 200000) // twice that on disk
	r.sized("new", 200000)
	select {
	case report := <-told:
		if !slices.Equal(names(report), []string{"old:latest"}) {
			t.Errorf("%+v", report)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing was collected")
	}
	cancel()
	<-ended
}

func TestWatermarks(t *testing.T) {
	for _, tt := range []struct {
		high, low string
		want      Watermarks
		bad       string
	}{
		{"", "", Watermarks{}, ""},
		{"80%", "", Watermarks{Watermark{Percent: 80}, Watermark{Percent: 72}}, ""},
		{"80%", "70%", Watermarks{Watermark{Percent: 80}, Watermark{Percent: 70}}, ""},
		{"50GB", "40GB", Watermarks{Watermark{Bytes: 50e9}, Watermark{Bytes: 40e9}}, ""},
		{"", "70%", Watermarks{}, "needs a high one"},
		{"80%", "40GB", Watermarks{}, "both be percentages or both be sizes"},
		{"70%", "80%", Watermarks{}, "above the high one"},
		{"0%", "", Watermarks{}, "no level"}, {"101%", "", Watermarks{}, "no level"}, {"NaN%", "", Watermarks{}, "no level"},
		{"-1GB", "", Watermarks{}, "no level"}, {"much", "", Watermarks{}, "no level"},
	} {
		var w Watermarks
		var err error
		if w.High, err = ParseWatermark(tt.high); err == nil {
			w.Low, err = ParseWatermark(tt.low)
		}
		if err == nil {
			err = w.Check()
		}
		if tt.bad == "" && (err != nil || w != tt.want) || tt.bad != "" && (!errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), tt.bad)) {
			t.Errorf("%q and %q: %+v, %v", tt.high, tt.low, w, err)
		}
	}
}

// What prune says it freed is free.
func TestPruneTellsWhatIsFree(t *testing.T) {
	r := collecting(t, nil)
	r.sized("one", 100000)
	r.sized("two", 100000)
	before := r.used()
	report, err := r.Prune(t.Context(), filter.Args{"dangling": {"false"}})
	if err != nil || len(report.ImagesDeleted) == 0 || int64(report.SpaceReclaimed) != before-r.used() {
		t.Errorf("%+v, %v; %d bytes are free", report, err, before-r.used())
	}
}
