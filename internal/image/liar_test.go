package image

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry"
)

// A neighbour that has other bytes under the digests of an image costs a person
// nothing but time: the image comes from the next one, or from the registry.
func TestPullPassesLiarsOver(t *testing.T) {
	img := makeImage(t, host, map[string]string{"big": randomText(600_000)}, map[string]string{"b": "2"}, map[string]string{"c": "3"})
	other := makeImage(t, host, map[string]string{"other": randomText(100_000)})
	for name, lie := range map[string]func(blob []byte) []byte{
		"damaged at the end":  func(b []byte) []byte { return append(b[:len(b)-1:len(b)-1], b[len(b)-1]+1) },
		"damaged in its head": func(b []byte) []byte { return append([]byte{b[0] + 1}, b[1:]...) },
		"of another image":    func([]byte) []byte { return other.layers[0] },
		"zeros":               func(b []byte) []byte { return make([]byte, len(b)) },
		"nothing":             func([]byte) []byte { return nil },
	} {
		for _, honest := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				r, h, liar, good := newRig(t), newHub(t), newHub(t), newHub(t)
				h.add("1", img)
				good.add("1", img)
				liar.before = func(w http.ResponseWriter, r *http.Request) bool {
					for dgst, blob := range img.blobs() {
						if strings.HasSuffix(r.URL.Path, dgst[strings.LastIndexByte(dgst, '/')+1:]) {
							http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(lie([]byte(blob))))
							return true
						}
					}
					return false
				}
				neighbours := []string{liar.host()}
				if honest {
					neighbours = append(neighbours, good.host())
				}
				r.opts.Registry = registry.New(registry.Options{Attempts: 3, Backoff: time.Millisecond, IdleTimeout: 2 * time.Second,
					Settings: registry.Settings{Neighbours: neighbours, HostDirs: []string{}}})
				r.restart()
				out := r.pull(h.host() + "/web:1")
				if got, err := r.Resolve(t.Context(), h.host()+"/web:1", nil); err != nil || len(got.Layers) != 3 {
					t.Errorf("resolved %+v, %v", got, err)
				}
				if said := strings.Contains(out, liar.host()+" sent something else than blob "); said == (name == "nothing" || name == "of another image") {
					t.Errorf("the pull said:\n%s", out) // sizes show before the blob does
				}
				h.mu.Lock()
				if n := h.fetched[digest.FromBytes(img.layers[0]).String()]; honest && n > 0 || !honest && n != 1 {
					t.Errorf("the registry was asked %d times for a layer", n)
				}
				h.mu.Unlock()
				if _, err := r.Remove(t.Context(), h.host()+"/web:1", RemoveOptions{}); err != nil {
					t.Error(err)
				}
				r.wantNothing()
			})
		}
	}
}
