// Command registrybench measures the registry beside Debian's docker-registry,
// in the same run on the same machine, and prints a Markdown table. Nothing is
// asserted: machines are noisy.
//
//	registrybench [-clients 16] [-for 3s] [-large 1024] [-dir DIR]
//
// Ours runs as this program's own child with the argument "serve", so that what
// is measured is the protocol and the storage.
package main

import (
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "serve" {
		fail(serveOurs(os.Args[2], os.Args[3]))
		return
	}
	b := &bench{}
	flag.IntVar(&b.clients, "clients", 16, "connections at once")
	flag.DurationVar(&b.length, "for", 3*time.Second, "how long each rate is measured")
	flag.Int64Var(&b.large, "large", 1024, "size of the large blob in MiB")
	flag.StringVar(&b.dir, "dir", "", "where the registries keep their data (a temporary directory)")
	flag.Parse()
	fail(b.run())
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "registrybench:", err)
		os.Exit(1)
	}
}

func serveOurs(root, address string) error {
	d, err := directory.Open(root)
	if err != nil {
		return err
	}
	return http.ListenAndServe(address, serve.New(serve.Options{Depot: d}))
}

// bench is one run.
type bench struct {
	clients int
	length  time.Duration
	large   int64 // MiB
	dir     string
}

func (b *bench) run() error {
	if b.dir == "" {
		dir, err := os.MkdirTemp("", "registrybench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		b.dir = dir
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ours, err := b.measure("gantry", func(root, address string) *exec.Cmd {
		return exec.Command(self, "serve", root, address)
	})
	if err != nil {
		return err
	}
	theirs := map[string]float64{}
	if _, err := exec.LookPath("docker-registry"); err != nil {
		fmt.Fprintln(os.Stderr, "docker-registry is not installed: apt-get install docker-registry")
	} else if theirs, err = b.measure("docker-registry", b.dockerRegistry); err != nil {
		return err
	}
	fmt.Printf("| %d clients | gantry | docker-registry | ratio |\n| --- | ---: | ---: | ---: |\n", b.clients)
	for _, name := range b.names() {
		fmt.Printf("| %s | %.0f | %.0f | %.1f |\n", name, ours[name], theirs[name], ours[name]/theirs[name])
	}
	return nil
}

// dockerRegistry runs Debian's registry as its package configures it, without
// its log of requests.
func (b *bench) dockerRegistry(root, address string) *exec.Cmd {
	config := filepath.Join(b.dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  cache:\n    blobdescriptor: inmemory\n  filesystem:\n    rootdirectory: %s\n  delete:\n    enabled: true\nhttp:\n  addr: %s\n", root, address)
	fail(os.WriteFile(config, []byte(text), 0o600))
	return exec.Command("docker-registry", "serve", config)
}

// measure starts a registry, measures it, and ends it.
func (b *bench) measure(name string, command func(root, address string) *exec.Cmd) (map[string]float64, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	root := filepath.Join(b.dir, name)
	defer os.RemoveAll(root)
	cmd := command(root, address)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if err := await(address); err != nil {
		return nil, err
	}
	l := &load{bench: b, address: address, results: map[string]float64{}}
	if err := l.all(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	l.results[memory] = peak(cmd.Process.Pid)
	return l.results, nil
}

// peak is the largest anonymous memory of a process now, in MiB: files it has
// mapped are the page cache's.
func peak(pid int) float64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(data)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "RssAnon: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	return 0
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// await waits until the registry answers; only a connection can tell.
func await(address string) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}
