package image

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// gathering holds requests for layers back until so many are there together,
// and remembers the most there ever were.
type gathering struct {
	want int
	full chan struct{} // closed when they are

	mu        sync.Mutex
	now, most int
}

func (h *hub) gather(want int, images ...*testImage) *gathering {
	g := &gathering{want: want, full: make(chan struct{})}
	layers := map[string]bool{}
	for _, img := range images {
		for _, l := range img.layers {
			layers[digest.FromBytes(l).String()] = true
		}
	}
	h.before = func(_ http.ResponseWriter, r *http.Request) bool {
		_, blob, _ := strings.Cut(r.URL.Path, "/blobs/")
		if layers[blob] {
			g.come(r.Context())
		}
		return false
	}
	return g
}

func (g *gathering) come(ctx context.Context) {
	g.mu.Lock()
	g.now++
	if g.most = max(g.most, g.now); g.now == g.want {
		// Not at once: what must not come has time to come.
		time.AfterFunc(100*time.Millisecond, func() { close(g.full) })
		g.want = -1
	}
	g.mu.Unlock()
	select {
	case <-g.full:
	case <-ctx.Done():
	}
	g.mu.Lock()
	g.now--
	g.mu.Unlock()
}

func imageOfLayers(t *testing.T, name string, n int) *testImage {
	var layers []map[string]string
	for i := range n {
		layers = append(layers, map[string]string{fmt.Sprint(name, i): name})
	}
	return makeImage(t, host, layers...)
}

// Where nothing else is said, all layers of an image come at once: a person
// would wait for one after the other of a registry that is far away.
func TestAllLayersAtOnce(t *testing.T) {
	r, h := newRig(t), newHub(t)
	r.opts.Parallel = AtOnce(8 << 30)
	r.restart()
	img := imageOfLayers(t, "all", 16)
	h.add("1", img)
	g := h.gather(16, img)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Pull(ctx, h.host()+"/web:1", PullOptions{}); err != nil {
		t.Fatalf("%v, when %d layers had been asked for at once", err, g.most)
	}
}

// However many images come at once, the layers that are worked on are bounded:
// so is the memory.
func TestLayersOfAllPullsAreBounded(t *testing.T) {
	r, h := newRig(t), newHub(t)
	r.opts.Parallel = 2
	r.restart()
	var images []*testImage
	for i := range 4 {
		img := imageOfLayers(t, fmt.Sprint("image", i, "-"), 3)
		images = append(images, img)
		h.add(fmt.Sprint(i), img)
	}
	g := h.gather(4, images...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	eg, ctx := errgroup.WithContext(ctx)
	for i := range images {
		eg.Go(func() error { return r.Pull(ctx, fmt.Sprintf("%s/web:%d", h.host(), i), PullOptions{}) })
	}
	if err := eg.Wait(); err != nil {
		t.Fatal(err)
	}
	if g.most != 4 {
		t.Errorf("%d layers were asked for at once, want 4", g.most)
	}
}

func TestAtOnce(t *testing.T) {
	for memory, want := range map[int64]int{0: 3, 1 << 30: 3, 4 << 30: 8, 8 << 30: 16, 1 << 40: 16} {
		if got := AtOnce(memory); got != want {
			t.Errorf("with %d bytes of memory %d, want %d", memory, got, want)
		}
	}
}
