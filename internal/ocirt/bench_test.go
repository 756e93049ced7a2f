package ocirt

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkStart is a whole container: create the cgroup, start true, reap it,
// remove the cgroup.
func BenchmarkStart(b *testing.B) {
	for _, bench := range []struct {
		name   string
		cgroup bool
	}{{"cgroup", true}, {"nocgroup", false}} {
		b.Run(bench.name, func(b *testing.B) {
			c := newContainer(b, "")
			c.Spec.Process.Args = []string{"/bin/true"}
			b.ReportAllocs()
			for b.Loop() {
				p, err := startBench(c, bench.cgroup)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = unix.Wait4(p.Pid, nil, 0, nil)
				p.PidFD.Close()
				if p.Cgroup != nil {
					_ = p.Cgroup.Delete()
				}
			}
		})
	}
}

func startBench(c *Container, cg bool) (*Process, error) {
	if cg {
		return Start(context.Background(), c)
	}
	root, err := openRoot(c)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return start(context.Background(), c, &madeCgroup{}, root)
}

// BenchmarkExec is a further process in a container.
func BenchmarkExec(b *testing.B) {
	c := newContainer(b, "sleep 1000")
	p, err := Start(context.Background(), c)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = unix.Kill(p.Pid, unix.SIGKILL)
		_, _ = unix.Wait4(p.Pid, nil, 0, nil)
		p.PidFD.Close()
		_ = p.Cgroup.Delete()
	}()
	proc := *c.Spec.Process
	proc.Args = []string{"/bin/true"}
	for b.Loop() {
		e := &Exec{Pid: p.Pid, Spec: c.Spec, Process: &proc, Cgroup: p.Cgroup}
		x, err := e.Start(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		_, _ = unix.Wait4(x.Pid, nil, 0, nil)
		x.PidFD.Close()
	}
}

// BenchmarkOthers is the same container through the runtimes of the machine.
func BenchmarkOthers(b *testing.B) {
	for _, name := range []string{"crun", "runc"} {
		b.Run(name, func(b *testing.B) {
			path, err := exec.LookPath(name)
			if err != nil {
				b.Skip(name + " is not installed")
			}
			c := newContainer(b, "")
			c.Spec.Process.Args = []string{"/bin/true"}
			c.Spec.Root.Path = filepath.Join(c.Bundle, "rootfs")
			config, err := json.Marshal(c.Spec)
			if err != nil {
				b.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(c.Bundle, "config.json"), config, 0o644); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if out, err := exec.Command(path, "run", "-b", c.Bundle, c.ID).CombinedOutput(); err != nil {
					b.Skipf("%s: %v: %s", name, err, out)
				}
			}
		})
	}
}

// BenchmarkSpare is a spare that is not used.
func BenchmarkSpare(b *testing.B) {
	c := newContainer(b, "")
	dockerSpec(c)
	for b.Loop() {
		s, err := NewSpare(b.Context(), c.Base, "/"+c.ID+"-spare", c.Spec)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Discard(); err != nil {
			b.Fatal(err)
		}
	}
}
