package serve

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
)

// asServer names the directory that this program serves instead of testing.
const asServer = "GANTRY_TEST_SERVE"

func TestMain(m *testing.M) {
	if root := os.Getenv(asServer); root != "" {
		d, err := directory.Open(root)
		if err == nil {
			var l net.Listener
			if l, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
				fmt.Println(l.Addr())
				err = http.Serve(l, New(Options{Depot: d}))
			}
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// child runs the registry as a process of its own.
func child(t *testing.T, root string) (p *peer, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asServer+"="+root)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		cmd.Process.Kill() // SIGKILL
		cmd.Wait()
	}
	t.Cleanup(kill)
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the registry does not start: %v", err)
	}
	return &peer{base: "http://" + strings.TrimSpace(address)}, kill
}

// pushed is what one client did: what was said to be there, and what was tried.
type pushed struct {
	mu       sync.Mutex
	blobs    map[digest.Digest][]byte // all that were tried
	acked    map[digest.Digest]bool   // with 201
	tags     map[string][]byte        // manifests that were answered with 201
	uploads  map[string]int           // paths of uploads, and the bytes that were answered with 202
	contents map[string][]byte        // what those uploads were of
}

// push uploads and tags until the registry dies.
func (s *pushed) push(p *peer, r *rand.Rand, client int) {
	for i := 0; ; i++ {
		data := make([]byte, 1+r.IntN(200_000))
		for k := range data {
			data[k] = byte(r.Uint32())
		}
		dgst := digest.FromBytes(data)
		s.mu.Lock()
		s.blobs[dgst] = data
		s.mu.Unlock()
		location, err := p.start("r")
		if err != nil {
			return
		}
		path := location[strings.Index(location, "/v2/"):]
		half := len(data) / 2
		a, err := p.do("PATCH", location, data[:half], "Content-Type", octets)
		if err != nil {
			return
		}
		if a.status == 202 {
			s.mu.Lock()
			s.uploads[path], s.contents[path] = half, data
			s.mu.Unlock()
		}
		if a, err = p.finish(location, dgst, data[half:]); err != nil || a.status != 201 {
			return
		}
		s.mu.Lock()
		s.acked[dgst] = true
		delete(s.uploads, path)
		s.mu.Unlock()
		body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"x/y","digest":%q,"size":%d},"layers":[]}`, ociManifest, dgst, len(data))
		tag := fmt.Sprintf("t%d-%d-%s", client, i, dgst.Encoded()[:8])
		if a, err = p.do("PUT", manifestPath("r", tag), body, "Content-Type", ociManifest); err != nil || a.status != 201 {
			return
		}
		s.mu.Lock()
		s.tags[tag] = body
		s.mu.Unlock()
	}
}

// hold looks at what is there after the death of the registry.
func (s *pushed) hold(t *testing.T, p *peer) {
	t.Helper()
	for dgst, data := range s.blobs {
		a, err := p.do("GET", blobPath("r", dgst), nil)
		switch {
		case err != nil:
			t.Fatal(err)
		case a.status == 404 && !s.acked[dgst]:
		case a.status != 200 || !bytes.Equal(a.body, data):
			t.Errorf("blob %s of %d bytes (acknowledged: %v) is answered %d with %d bytes", dgst, len(data), s.acked[dgst], a.status, len(a.body))
		}
	}
	for tag, body := range s.tags {
		if a, err := p.want(200, "GET", manifestPath("r", tag), nil); err != nil || !bytes.Equal(a.body, body) {
			t.Errorf("tag %s: %v", tag, err)
		}
	}
	for path, n := range s.uploads {
		data := s.contents[path]
		a, err := p.do("GET", path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a.status == 404 { // it was completed, and the answer was lost
			if _, err := p.want(200, "HEAD", blobPath("r", digest.FromBytes(data)), nil); err != nil {
				t.Errorf("an upload of which %d bytes were acknowledged is gone: %v", n, err)
			}
			continue
		}
		end := 0
		fmt.Sscanf(a.header.Get("Range"), "0-%d", &end)
		if n > 1 && end+1 < n {
			t.Errorf("an upload has %d bytes, %d were acknowledged", end+1, n)
			continue
		}
		if n <= 1 {
			continue // 0-0 says no and one byte
		}
		if a, err = p.finish(p.base+path, digest.FromBytes(data), data[end+1:]); err != nil || a.status != 201 {
			t.Errorf("a resumed upload: %v, %v", a, err)
		}
	}
}

// What a person would lose: an image whose push was reported done.
func TestKilledWhilePushing(t *testing.T) {
	rounds := 5
	if n, err := strconv.Atoi(os.Getenv("GANTRY_SOAK")); err == nil {
		rounds = 2 * n
	}
	t.Logf("%d rounds", rounds)
	root := t.TempDir()
	acked := 0
	for round := range rounds {
		s := &pushed{
			blobs: map[digest.Digest][]byte{}, acked: map[digest.Digest]bool{}, tags: map[string][]byte{},
			uploads: map[string]int{}, contents: map[string][]byte{},
		}
		p, kill := child(t, root)
		var all sync.WaitGroup
		for client := range 4 {
			all.Go(func() { s.push(p, rand.New(rand.NewPCG(uint64(round), uint64(client))), client) })
		}
		<-time.After(rand.N(300 * time.Millisecond)) // a random moment
		kill()
		all.Wait()
		p, kill = child(t, root)
		s.hold(t, p)
		kill()
		acked += len(s.acked)
	}
	t.Logf("%d blobs were acknowledged in %d rounds", acked, rounds)
	if acked == 0 {
		t.Error("nothing was acknowledged: the test shows nothing")
	}
}

// What a person would lose: a word about what is wrong, and a registry that works
// again when there is room.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("depot-test", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	d, err := directory.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() }) // before the unmount
	p := &peer{base: registry(t, func(o *Options) { o.Depot = d }).URL}
	location, err := p.start("r")
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 32<<20)
	full := func(a *answer, err error) {
		t.Helper()
		if err != nil || a.status != 507 || !strings.Contains(string(a.body), "storage of this registry is full") {
			t.Errorf("a full disk is answered %v, %v", a, err)
		}
	}
	full(p.finish(location, digest.FromBytes(big), big))
	// Not even a record fits now.
	small, large := []byte("small"), make([]byte, 20_000)
	for _, data := range [][]byte{small, large} {
		l, err := p.start("r")
		if err == nil {
			if a, err := p.finish(l, digest.FromBytes(data), data); err == nil && a.status == 201 {
				if _, err := p.want(200, "GET", blobPath("r", digest.FromBytes(data)), nil); err != nil {
					t.Error(err) // there was room for it after all, and it must be there
				}
			} else {
				full(a, err)
			}
		}
	}
	if _, err := p.want(204, "DELETE", location, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := p.tagged("r", "t"); err != nil {
		t.Errorf("after room was made: %v", err)
	}
	if _, err := p.want(200, "GET", manifestPath("r", "t"), nil); err != nil {
		t.Error(err)
	}
}

// half sends the head of a PATCH and the first bytes of its body, once the
// registry reads it.
func half(t *testing.T, p *peer, location string, data []byte, total int) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(p.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	path := location[strings.Index(location, "/v2/"):]
	if _, err := fmt.Fprintf(c, "PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", path, total); err != nil {
		t.Fatal(err)
	}
	const proceed = "HTTP/1.1 100 Continue\r\n\r\n"
	got := make([]byte, len(proceed))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != proceed {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	return c
}

// What a person would lose: the gigabytes that were sent before the connection
// broke, whether the registry has noticed that or not.
func TestCutConnectionResumes(t *testing.T) {
	for _, noticed := range []bool{true, false} {
		p := &peer{base: registry(t, nil).URL}
		data := bytes.Repeat([]byte("0123456789"), 100_000)
		location, err := p.start("r")
		if err != nil {
			t.Fatal(err)
		}
		c := half(t, p, location, data[:600_000], len(data))
		if noticed {
			c.(*net.TCPConn).CloseWrite()
			io.ReadAll(c) // the answer, after which nothing more is written
		}
		a, err := p.want(204, "GET", location, nil)
		if err != nil {
			t.Fatal(err)
		}
		end := 0
		if _, err := fmt.Sscanf(a.header.Get("Range"), "0-%d", &end); err != nil || end >= 600_000 || noticed && end != 599_999 {
			t.Fatalf("Range %q, %v", a.header.Get("Range"), err)
		}
		from := end + 1
		if end == 0 {
			from = 0 // nothing was taken yet: 0-0 says that too
		}
		if a, err = p.finish(location, digest.FromBytes(data), data[from:], "Content-Range", fmt.Sprintf("%d-%d", from, len(data)-1)); err != nil || a.status != 201 {
			t.Fatalf("going on from %d: %v, %v", from, a, err)
		}
		if a, err = p.want(200, "GET", blobPath("r", digest.FromBytes(data)), nil); err != nil || !bytes.Equal(a.body, data) {
			t.Errorf("other bytes came back: %v", err)
		}
	}
}

// What a person would lose: a minute of waiting, when the request that was cut
// off had not begun to read as the next one came.
func TestStoppedBeforeReading(t *testing.T) {
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	rq := &request{w: w, Request: httptest.NewRequest("PATCH", "/", strings.NewReader("late"))}
	s := New(Options{})
	rq.active().stop()
	if _, err := io.ReadAll(s.bodyOf(rq)); err != nil {
		t.Fatal(err)
	}
	if len(w.set) != 1 || !w.set[0].Before(time.Now()) {
		t.Errorf("deadlines %v: the request was given time again", w.set)
	}
}

// deadlines is a connection whose reads end as it was said.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetReadDeadline(until time.Time) error {
	d.set = append(d.set, until)
	return nil
}

// What a person would lose: a registry whose connections are all held by clients
// that send nothing.
func TestStalledClient(t *testing.T) {
	p := &peer{base: registry(t, func(o *Options) { o.Limits.Body = 50 * time.Millisecond }).URL}
	location, err := p.start("r")
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", strings.TrimPrefix(p.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// At once, so that the registry has what was sent before its patience ends.
	_, err = io.WriteString(c, "PATCH "+location[strings.Index(location, "/v2/"):]+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nand then")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c) // ends when the registry gives up
	if err != nil || !bytes.HasPrefix(got, []byte("HTTP/1.1 400 ")) {
		t.Errorf("%q, %v", got, err)
	}
	a, err := p.want(204, "GET", location, nil)
	if err := first(err, a.has("Range", "0-7")); err != nil {
		t.Error(err)
	}
}
