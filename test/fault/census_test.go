package fault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// census counts what containers have on the host and in the roots.
type census struct {
	Containers, Snapshots, Volumes, Cgroups, Spares, Links, Elements, Tasks, ShimDirs int

	IOFiles, NetFiles int
}

// images counts what images have on the disk.
type images struct{ Blobs, Layers, Ingest int }

func (f *fixture) images() images {
	i := images{
		Layers: entries(filepath.Join(f.DataRoot(), "*", "layers")),
		Ingest: entries(filepath.Join(f.DataRoot(), "ingest")) + entries(filepath.Join(f.DataRoot(), "*", "tmp")),
	}
	filepath.WalkDir(filepath.Join(f.DataRoot(), "blobs"), func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			i.Blobs++
		}
		return nil
	})
	return i
}

// census counts. The daemon runs.
func (f *fixture) census() census {
	f.Helper()
	info := f.shimInfo()
	c := census{
		Containers: entries(filepath.Join(f.DataRoot(), "containers")),
		Snapshots:  entries(filepath.Join(f.DataRoot(), "*", "snapshots")),
		Volumes:    entries(filepath.Join(f.DataRoot(), "volumes")),
		ShimDirs:   entries(filepath.Join(f.ExecRoot(), "containers")),
		Tasks:      len(f.held()),
		Links:      f.links(),
		Elements:   f.elements(),
		IOFiles:    f.ioFiles(),
		NetFiles:   len(files(info.NetPid)),
	}
	var spares map[string]int
	c.Cgroups, spares = f.cgroups()
	c.Spares = len(spares)
	return c
}

// cgroups counts the directories of containers' cgroups, and those of each spare.
func (f *fixture) cgroups() (n int, spares map[string]int) {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + f.Instance() + "/*")
	more, _ := filepath.Glob("/sys/fs/cgroup/" + f.Instance() + "/*")
	spares = map[string]int{}
	for _, dir := range append(dirs, more...) {
		switch s, err := os.Stat(dir); {
		case err != nil || !s.IsDir():
		case isSpare(dir):
			spares[filepath.Base(dir)]++
		default:
			n++
		}
	}
	return n, spares
}

// isSpare says whether a path is that of a cgroup made ahead or of a file in one.
func isSpare(path string) bool { return strings.Contains(path, "-shim-spare-") }

// ioFiles counts the descriptors of the io role, without those of its spares: two
// of the process in each, and of some a mount of each directory of the cgroup.
func (f *fixture) ioFiles() int {
	f.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", f.shimInfo().Pid)
	list, _ := os.ReadDir(dir)
	n, mounts := len(list), 0
	for _, e := range list {
		if to, _ := os.Readlink(filepath.Join(dir, e.Name())); to == "/" {
			mounts++
		}
	}
	_, spares := f.cgroups()
	for _, dirs := range spares {
		taken := min(mounts, dirs)
		mounts -= taken
		n -= taken + 2
	}
	return n
}

// entries counts what is in the directories that match.
func entries(pattern string) int {
	dirs, _ := filepath.Glob(pattern)
	n := 0
	for _, dir := range dirs {
		list, _ := os.ReadDir(dir)
		n += len(list)
	}
	return n
}

// links counts the interfaces of containers on the bridge.
func (f *fixture) links() int {
	list, _ := net.Interfaces()
	n := 0
	for _, l := range list {
		if strings.HasPrefix(l.Name, f.Instance()+"-") {
			n++
		}
	}
	return n
}

var element = regexp.MustCompile(`(tcp|udp) \. `)

// elements counts published ports in the engine's table.
func (f *fixture) elements() int {
	out, _ := exec.Command("nft", "list", "table", "ip", f.Instance()).Output()
	return len(element.FindAll(out, -1))
}

// clean fails unless, with all containers and images removed, there is what there was
// before the first.
func (f *fixture) clean() {
	f.Helper()
	for name, n := range f.worked {
		if n == 0 {
			f.Errorf("%s never worked", name)
		}
	}
	f.eventually(func() string {
		ids, err := f.try("ps", "-aq", "--no-trunc")
		if err != nil {
			return err.Error()
		}
		if ids == "" {
			return ""
		}
		if _, err := f.try(append([]string{"rm", "-f", "-v"}, strings.Fields(ids)...)...); err != nil {
			return err.Error()
		}
		return "containers are left: " + ids
	})
	f.eventually(func() string {
		now := f.census()
		want := census{Links: f.before.Links, IOFiles: f.before.IOFiles, NetFiles: f.before.NetFiles}
		// Spare networks and cgroups come and go.
		now.Links, want.Links = max(now.Links, 3), max(want.Links, 3)
		now.Spares, want.Spares = max(now.Spares, 2), 2
		// The shim keeps a few of the daemon's idle connections.
		now.IOFiles, want.IOFiles = max(now.IOFiles-idle, 0), max(want.IOFiles, 0)
		if now.IOFiles < want.IOFiles {
			now.IOFiles = want.IOFiles
		}
		if now.NetFiles < want.NetFiles {
			now.NetFiles = want.NetFiles
		}
		if now != want {
			return fmt.Sprintf("left behind: before %+v, now %+v; net has %v", want, now, files(f.shimInfo().NetPid))
		}
		return ""
	})
	f.eventually(func() string {
		ids, err := f.try("images", "-aq", "--no-trunc")
		if err != nil {
			return err.Error()
		}
		if ids != "" {
			if _, err := f.try(append([]string{"rmi", "-f"}, strings.Fields(ids)...)...); err != nil {
				return err.Error()
			}
		}
		if now := f.images(); now != (images{}) {
			return fmt.Sprintf("left behind of images: %+v", now)
		}
		return ""
	})
}

// files tells what the descriptors of the net role are, without the pipes it
// has both ends of: it splices through those and keeps a few.
func files(pid int) []string {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	count := map[string]int{}
	for _, l := range links {
		to, _ := os.Readlink(l)
		count[to]++
	}
	var list []string
	for to, n := range count {
		if !strings.HasPrefix(to, "pipe:") || n == 1 {
			list = append(list, to)
		}
	}
	return list
}

// idle is how many more connections to the shim the daemon may keep for later.
const idle = 9

// api is a client of the daemon's socket whose connections nobody shares.
func (f *fixture) api() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", f.Socket)
		},
	}}
}

// get decodes an answer of the API into v.
func (f *fixture) get(path string, v any) error {
	return f.do(http.MethodGet, path, nil, v)
}

// do sends body as JSON and decodes the answer into v.
func (f *fixture) do(method, path string, body, v any) error {
	c := f.api()
	c.Timeout = patience
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	q, err := http.NewRequest(method, "http://engine"+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/json")
	r, err := c.Do(q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if r.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, r.Status, b)
	}
	return json.Unmarshal(b, v)
}

// resources is what the daemon says it uses itself.
type resources struct{ NGoroutines, NFd int }

func (f *fixture) resources() resources {
	f.Helper()
	var r resources
	if err := f.get("/info", &r); err != nil {
		f.Fatal(err)
	}
	return r
}

// settled waits until the daemon and the shim use no more than before.
func (f *fixture) settled(before resources, shimFiles int) {
	f.Helper()
	f.eventually(func() string {
		now, files := f.resources(), f.ioFiles()
		if now.NGoroutines > before.NGoroutines+slack || now.NFd > before.NFd+slack || files > shimFiles+idle {
			return fmt.Sprintf("leaked: before %+v and %d descriptors in the shim, now %+v and %d", before, shimFiles, now, files)
		}
		return ""
	})
}

// slack allows for idle connections to the shim.
const slack = 9

// prober asks something again and again and notes for how long it got no answer.
type prober struct {
	stop, done chan struct{}
	worst      time.Duration
	failures   int
	answers    int
	last       error
}

func probe(ask func() error) *prober {
	p := &prober{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		good := time.Now()
		for {
			select {
			case <-p.stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			asked := time.Now()
			if err := ask(); err != nil {
				p.failures++
				p.last = err
				p.worst = max(p.worst, time.Since(good))
				continue
			}
			p.answers++
			if p.failures > 0 {
				p.worst = max(p.worst, asked.Sub(good))
			}
			good = time.Now()
		}
	}()
	return p
}

func (p *prober) end() *prober {
	close(p.stop)
	<-p.done
	return p
}
