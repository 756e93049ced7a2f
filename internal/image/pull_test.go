package image

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry"
)

// hub is a registry that can be told to misbehave.
type hub struct {
	*httptest.Server
	mu        sync.Mutex
	manifests map[string][]byte // by tag and by digest
	types     map[string]string
	blobs     map[string][]byte
	fetched   map[string]int // whole or part blobs, by digest
	ranges    []string
	before    func(w http.ResponseWriter, r *http.Request) bool // true: answered
}

func newHub(t testing.TB) *hub {
	h := &hub{manifests: map[string][]byte{}, types: map[string]string{}, blobs: map[string][]byte{}, fetched: map[string]int{}}
	h.Server = httptest.NewServer(h)
	t.Cleanup(h.Close)
	return h
}

// host is where the hub listens, as a part of an image's name.
func (h *hub) host() string { return h.Listener.Addr().String() }

func (h *hub) add(tag string, img *testImage) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ref := range []string{tag, img.digest().String()} {
		h.manifests[ref], h.types[ref] = img.manifest, img.mediaTyp
	}
	if img.config != nil {
		h.blobs[img.id().String()] = img.config
	}
	for _, l := range img.layers {
		h.blobs[digest.FromBytes(l).String()] = l
	}
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.before != nil && h.before(w, r) {
		return
	}
	_, ref, isManifest := strings.Cut(r.URL.Path, "/manifests/")
	_, dgst, isBlob := strings.Cut(r.URL.Path, "/blobs/")
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case isManifest && h.manifests[ref] != nil:
		w.Header().Set("Content-Type", h.types[ref])
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(h.manifests[ref]).String())
		w.Write(h.manifests[ref])
	case isManifest:
		w.WriteHeader(404)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
	case isBlob && h.blobs[dgst] != nil:
		h.fetched[dgst]++
		if s := r.Header.Get("Range"); s != "" {
			h.ranges = append(h.ranges, s)
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(h.blobs[dgst])))
	case r.URL.Path == "/v2/":
	default:
		w.WriteHeader(404)
	}
}

func (r *rig) pull(ref string) string {
	r.t.Helper()
	var out messages
	if err := r.Pull(r.t.(*testing.T).Context(), ref, PullOptions{Progress: out.add}); err != nil {
		r.t.Fatalf("pull %s: %v", ref, err)
	}
	return out.text()
}

func TestPull(t *testing.T) {
	r, h := newRig(t), newHub(t)
	img := makeImage(t, host, map[string]string{"a": "1"}, map[string]string{"b": "2"})
	h.add("1", img)
	ref := h.host() + "/team/web:1"
	out := r.pull(ref)
	for _, want := range []string{
		"1: Pulling from team/web\n",
		short(digest.FromBytes(img.layers[0])) + ": Pulling fs layer\n",
		": Download complete\n",
		short(digest.FromBytes(img.layers[1])) + ": Pull complete\n",
		"Digest: " + img.digest().String() + "\nStatus: Downloaded newer image for " + ref + "\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if out := r.pull(ref); !strings.Contains(out, "Status: Image is up to date for "+ref) {
		t.Errorf("the second pull said:\n%s", out)
	}
	digested := h.host() + "/team/web@" + img.digest().String()
	r.pull(digested)
	got, err := r.Resolve(t.Context(), digested, nil)
	if err != nil || !slices.Equal(r.digests(digested), []string{digested}) || !slices.Equal(r.tags(digested), []string{ref}) {
		t.Errorf("resolved %+v, %v", got, err)
	}
	for d, n := range h.fetched {
		if n != 1 {
			t.Errorf("blob %s was fetched %d times", d, n)
		}
	}
	if err := r.Tag(ref, "other", ""); err != nil {
		t.Fatal(err)
	}
	_, err = r.Remove(t.Context(), img.id().String(), RemoveOptions{})
	if !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "must be forced) - image is referenced in multiple repositories") {
		t.Errorf("removed by ID: %v", err)
	}
	if _, err := r.Remove(t.Context(), img.id().Encoded()[:10], RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}
	r.wantNothing()
}

func TestPullPlatform(t *testing.T) {
	r, h := newRig(t), newHub(t)
	v7 := ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	v6 := ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v6"}
	x := makeImage(t, host, map[string]string{"a": "x"})
	a := makeImage(t, v6, map[string]string{"a": "6"})
	dx, da := x.descriptor(), a.descriptor()
	dx.Platform, da.Platform = &host, &v6
	attest := x.descriptor()
	attest.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	index := &testImage{manifest: mustJSON(t, indexOf(attest, da, dx)), mediaTyp: registry.MediaTypeDockerList}
	for tag, img := range map[string]*testImage{"x": x, "a": a, "1": index} {
		h.add(tag, img)
	}
	ref := h.host() + "/multi:1"
	r.pull(ref)
	if got, err := r.Resolve(t.Context(), ref, nil); err != nil || got.ID != x.id() {
		t.Errorf("the host's: %v, %v", got, err)
	}
	if got := r.digests(ref); !slices.Equal(got, []string{h.host() + "/multi@" + index.digest().String()}) {
		t.Errorf("repository digests: %v", got)
	}
	if err := r.Pull(t.Context(), ref, PullOptions{Platform: &v7}); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Resolve(t.Context(), ref, &v7); err != nil || got.ID != a.id() {
		t.Errorf("for arm/v7: %v, %v", got, err)
	}
	err := r.Pull(t.Context(), ref, PullOptions{Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}})
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "no matching manifest for linux/s390x in the manifest list entries") {
		t.Errorf("for s390x: %v", err)
	}
}

// A cut connection is gone on with where it was cut, and an overloaded registry
// is asked again.
func TestPullResumes(t *testing.T) {
	r, h := newRig(t), newHub(t)
	img := makeImage(t, host, map[string]string{"big": randomText(300_000)})
	h.add("1", img)
	blob := img.layers[0]
	var cut, busy atomic.Int32
	h.before = func(w http.ResponseWriter, req *http.Request) bool {
		if strings.Contains(req.URL.Path, "/manifests/") && busy.Add(1) == 1 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(429)
			return true
		}
		if !strings.HasSuffix(req.URL.Path, digest.FromBytes(blob).String()) || cut.Add(1) > 2 {
			return false
		}
		conn, buf, _ := w.(http.Hijacker).Hijack()
		defer conn.Close()
		from := 0
		fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from)
		status := "200 OK\r\n"
		if from > 0 {
			status = fmt.Sprintf("206 Partial Content\r\nContent-Range: bytes %d-%d/%d\r\n", from, len(blob)-1, len(blob))
		}
		fmt.Fprintf(buf, "HTTP/1.1 %sContent-Length: %d\r\n\r\n", status, len(blob)-from)
		buf.Write(blob[from : from+len(blob)/4])
		buf.Flush()
		return true
	}
	r.pull(h.host() + "/web:1")
	if len(h.ranges) != 1 || h.ranges[0] == "bytes=0-" {
		t.Errorf("the last part was asked for as %v", h.ranges)
	}
}

func randomText(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		b.WriteString(digest.FromString(strconv.Itoa(i)).Encoded())
	}
	return b.String()
}

// Two pulls at once fetch each blob once, and the end of one does not end the
// other.
func TestPullTogether(t *testing.T) {
	r, h := newRig(t), newHub(t)
	img := makeImage(t, host, map[string]string{"a": "1"}, map[string]string{"b": "2"})
	h.add("1", img)
	h.add("2", img)
	gate, asked := make(chan struct{}), make(chan struct{}, 100)
	h.before = func(w http.ResponseWriter, req *http.Request) bool {
		for _, l := range img.layers {
			if strings.HasSuffix(req.URL.Path, digest.FromBytes(l).String()) {
				asked <- struct{}{}
				<-gate
			}
		}
		return false
	}
	ctx1, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	pull := func(ctx context.Context, tag string, want error) {
		wg.Go(func() {
			if err := r.Pull(ctx, h.host()+"/web:"+tag, PullOptions{}); !errors.Is(err, want) {
				t.Errorf("pull %s: %v", tag, err)
			}
		})
	}
	pull(ctx1, "1", context.Canceled)
	<-asked // the layers are under way
	for _, tag := range []string{"2", "1"} {
		pull(t.Context(), tag, nil)
	}
	for joined := func() int {
		r.layers.mu.Lock()
		defer r.layers.mu.Unlock()
		n := 0
		for _, c := range r.layers.calls {
			n += len(c.waiters)
		}
		return n
	}; joined() < 6; {
		runtime.Gosched()
	}
	cancel()
	close(gate)
	wg.Wait()
	for d, n := range h.fetched {
		if n != 1 && d != img.id().String() {
			t.Errorf("blob %s was fetched %d times", d, n)
		}
	}
}

// Whatever is wrong with what a registry sends: a sentence of the right class,
// and nothing left behind.
func TestPullBad(t *testing.T) {
	good := func() *testImage { return makeImage(t, host, map[string]string{"a": "1"}, map[string]string{"b": "2"}) }
	remake := func(img *testImage, change func(*ocispec.Manifest)) {
		m, err := parseManifest(img.manifest)
		if err != nil {
			t.Fatal(err)
		}
		change(m)
		img.manifest = mustJSON(t, m)
	}
	for _, c := range []struct {
		name   string
		mangle func(h *hub, img *testImage)
		class  error
		text   string
	}{
		{"unknown tag", func(h *hub, img *testImage) { delete(h.manifests, "1") }, errdefs.ErrNotFound,
			"/web:1 not found: manifest unknown: manifest unknown"},
		{"truncated layer", func(h *hub, img *testImage) {
			d := digest.FromBytes(img.layers[1]).String()
			h.blobs[d] = h.blobs[d][:len(h.blobs[d])-20]
		}, errdefs.ErrInvalidArgument, "where its manifest says"},
		{"layer with another content", func(h *hub, img *testImage) {
			d := digest.FromBytes(img.layers[1])
			h.blobs[d.String()] = slices.Clone(img.layers[1])
			h.blobs[d.String()][30] ^= 1
		}, errdefs.ErrInvalidArgument, "has digest"},
		{"size that lies", func(h *hub, img *testImage) {
			remake(img, func(m *ocispec.Manifest) { m.Layers[0].Size += 7 })
			h.add("1", img)
		}, errdefs.ErrInvalidArgument, "where its manifest says"},
		{"layer that is not the one of the configuration", func(h *hub, img *testImage) {
			remake(img, func(m *ocispec.Manifest) { m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0] })
			h.add("1", img)
		}, errdefs.ErrInvalidArgument, "cannot unpack layer"},
		{"too few layers", func(h *hub, img *testImage) {
			remake(img, func(m *ocispec.Manifest) { m.Layers = m.Layers[:1] })
			h.add("1", img)
		}, errdefs.ErrInvalidArgument, "has 2 layers and its manifest 1"},
		{"unknown layer type", func(h *hub, img *testImage) {
			remake(img, func(m *ocispec.Manifest) { m.Layers[0].MediaType = "application/x-thing" })
			h.add("1", img)
		}, errdefs.ErrInvalidArgument, `unknown media type "application/x-thing"`},
		{"no container image", func(h *hub, img *testImage) {
			remake(img, func(m *ocispec.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" })
			h.add("1", img)
		}, errdefs.ErrInvalidArgument, "not of a container image"},
		{"HTML", func(h *hub, img *testImage) {
			h.manifests["1"], h.types["1"] = []byte("<html>login</html>"), "text/html; charset=utf-8"
		}, errdefs.ErrInvalidArgument, "answered with a web page"},
		{"no JSON", func(h *hub, img *testImage) { h.manifests["1"] = []byte("hello") }, errdefs.ErrInvalidArgument, "not JSON"},
		{"huge manifest", func(h *hub, img *testImage) {
			h.manifests["1"] = make([]byte, registry.MaxManifest+1)
		}, errdefs.ErrInvalidArgument, "larger than 4 MiB"},
		{"schema 1", func(h *hub, img *testImage) {
			h.manifests["1"], h.types["1"] = []byte(`{"schemaVersion":1,"fsLayers":[]}`), registry.MediaTypeDockerSigned1
		}, errdefs.ErrInvalidArgument, "schema 1"},
		{"manifest by a digest that is not its own", func(h *hub, img *testImage) {
			x := img.descriptor()
			x.Platform = &host
			h.manifests[x.Digest.String()] = append(slices.Clone(img.manifest), ' ')
			h.manifests["1"], h.types["1"] = mustJSON(t, indexOf(x)), ocispec.MediaTypeImageIndex
		}, errdefs.ErrInvalidArgument, "with digest"},
		{"missing blob", func(h *hub, img *testImage) { delete(h.blobs, digest.FromBytes(img.layers[1]).String()) },
			errdefs.ErrNotFound, "answered 404"},
		{"refused", func(h *hub, img *testImage) {
			h.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/v2/" {
					return false
				}
				w.WriteHeader(403)
				fmt.Fprint(w, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`)
				return true
			}
		}, errdefs.ErrNotFound, "pull access denied for"},
		{"overloaded for good", func(h *hub, img *testImage) {
			h.before = func(w http.ResponseWriter, r *http.Request) bool {
				w.WriteHeader(503)
				return r.URL.Path != "/v2/"
			}
		}, errdefs.ErrUnavailable, "503"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, h := newRig(t), newHub(t)
			img := good()
			h.add("1", img)
			c.mangle(h, img)
			err := r.Pull(t.Context(), h.host()+"/web:1", PullOptions{})
			if err == nil || !strings.Contains(err.Error(), c.text) || !errors.Is(err, c.class) {
				t.Errorf("got: %v", err)
			}
			r.wantNothing()
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		r := newRig(t)
		err := r.Pull(t.Context(), "127.0.0.1:1/web:1", PullOptions{})
		if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "cannot reach registry 127.0.0.1:1") {
			t.Errorf("got: %v", err)
		}
	})
	t.Run("bad name", func(t *testing.T) {
		r := newRig(t)
		for _, ref := range []string{"", "UPPER", "a:b:c", "x@sha256:12", strings.Repeat("a", 64)} {
			if err := r.Pull(t.Context(), ref, PullOptions{}); !errors.Is(err, errdefs.ErrInvalidArgument) ||
				!strings.Contains(err.Error(), "invalid re") {
				t.Errorf("%q: %v", ref, err)
			}
		}
	})
}

// An index that leads back to itself must end.
func TestDescendCycle(t *testing.T) {
	a := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("a"), Size: 1}
	b := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString("b"), Size: 1}
	docs := map[digest.Digest][]byte{a.Digest: mustJSON(t, indexOf(b)), b.Digest: mustJSON(t, indexOf(a))}
	_, _, err := descend(t.Context(), a, docs[a.Digest], forPlatform(host), func(_ context.Context, d ocispec.Descriptor) ([]byte, error) {
		return docs[d.Digest], nil
	})
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "refers to itself") {
		t.Errorf("got %v", err)
	}
}

// startRegistry runs Debian's docker-registry on loopback.
func startRegistry(t *testing.T) string {
	need(t, "docker-registry", "skopeo")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", dir, addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("docker-registry", "serve", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err == nil {
			resp.Body.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("docker-registry does not answer: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestPullPeers(t *testing.T) {
	addr := startRegistry(t)
	img := makeImage(t, host, map[string]string{"a": "1"}, map[string]string{"b": "2"})
	file := filepath.Join(t.TempDir(), "in.tar")
	if err := os.WriteFile(file, layoutOf(t, indexOf(named(img.descriptor(), "x:1")), img.blobs()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"oci", "v2s2"} {
		run(t, "skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--format", format,
			"oci-archive:"+file+":x:1", "docker://"+addr+"/peer/web:"+format)
		r := newRig(t)
		ref := addr + "/peer/web:" + format
		r.pull(ref)
		want := strings.TrimSpace(run(t, "skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", "docker://"+ref))
		got, err := r.Resolve(t.Context(), ref, nil)
		if err != nil || !slices.Equal(r.digests(ref), []string{addr + "/peer/web@" + want}) || len(got.Layers) != 2 {
			t.Errorf("%s: %+v, %v", format, got, err)
		}
	}
	r := newRig(t)
	if err := r.Pull(t.Context(), addr+"/peer/web", PullOptions{AllTags: true}); err != nil {
		t.Fatal(err)
	}
	if list, _ := r.List(t.Context(), ListOptions{}); len(list) != 1 || len(list[0].RepoTags) != 2 {
		t.Errorf("all tags: %+v", list)
	}
	if err := r.Pull(t.Context(), addr+"/peer/web:none", PullOptions{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("no such tag: %v", err)
	}
}
