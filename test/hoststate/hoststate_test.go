// Package hoststate holds that script/hoststate sees what tests could leave on the
// host: a script that is blind to something finds every host as it was.
package hoststate

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// state is what the script prints, by kind.
func state(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.Command("../../script/hoststate").Output()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for line := range strings.Lines(string(out)) {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), ": ")
		kinds[kind] = rest
	}
	return kinds
}

// do runs a command that must work.
func do(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// leftover is something that can be left behind. leave makes it and returns how it
// shows, and what takes it away.
type leftover struct {
	kind, needs string
	leave       func(t *testing.T) (shows string, undo func())
}

func leftovers() map[string]leftover {
	id := fmt.Sprintf("g%06x", os.Getpid()&0xffffff) // like an engine's name
	list := map[string]leftover{
		"veth": {"interfaces", "ip", func(t *testing.T) (string, func()) {
			do(t, "ip", "link", "add", id+"-a", "type", "veth", "peer", "name", id+"-b")
			return id + "-a", func() { do(t, "ip", "link", "del", id+"-a") }
		}},
		"bridge": {"interfaces", "ip", func(t *testing.T) (string, func()) {
			do(t, "ip", "link", "add", id+"0", "type", "bridge")
			return id + "0", func() { do(t, "ip", "link", "del", id+"0") }
		}},
		"table": {"nftables", "nft", func(t *testing.T) (string, func()) {
			do(t, "nft", "add", "table", "ip", id)
			return id, func() { do(t, "nft", "delete", "table", "ip", id) }
		}},
		"named network namespace": {"named network namespaces", "", func(t *testing.T) (string, func()) {
			// As ip netns does it, but without the mount of the directory on itself,
			// which that leaves behind.
			path := filepath.Join("/run/netns", id)
			made := os.Mkdir("/run/netns", 0o755) == nil
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return id, func() {
				os.Remove(path)
				if made {
					os.Remove("/run/netns")
				}
			}
		}},
		"second mount in one place": {"mounts", "", func(t *testing.T) (string, func()) {
			dir := t.TempDir()
			for range 2 {
				if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
					t.Fatal(err)
				}
			}
			return dir + "*2", func() { unix.Unmount(dir, 0); unix.Unmount(dir, 0) }
		}},
		"loop device": {"loop devices", "losetup", func(t *testing.T) (string, func()) {
			file := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
				t.Fatal(err)
			}
			device := do(t, "losetup", "-f", "--show", file)
			return file, func() { do(t, "losetup", "-d", device) }
		}},
		"process of ours": {"processes", "", func(t *testing.T) (string, func()) {
			return sleeper(t, "gantry-shim", "")
		}},
	}
	for _, path := range []string{"/tmp/gantry-" + id, "/run/" + id, "/var/lib/" + id, "/dev/shm/" + id} {
		list["file "+path] = leftover{"files", "", func(t *testing.T) (string, func()) {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return path, func() { os.Remove(path) }
		}}
	}
	hierarchies, _ := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil { // only v2
		hierarchies = []string{"/sys/fs/cgroup/cgroup.procs"}
	}
	for _, procs := range hierarchies {
		dir := filepath.Join(filepath.Dir(procs), id)
		list["cgroup "+dir] = leftover{"cgroups", "", func(t *testing.T) (string, func()) {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			return dir, func() { os.Remove(dir) }
		}}
		if strings.Contains(procs, "cpuset") {
			continue // takes no process before it has processors and memory
		}
		inside := dir + "-shim"
		list["process in "+inside] = leftover{"processes in our cgroups", "", func(t *testing.T) (string, func()) {
			if err := os.Mkdir(inside, 0o755); err != nil {
				t.Fatal(err)
			}
			shows, undo := sleeper(t, "lonely", inside)
			return shows, func() { undo(); os.Remove(inside) }
		}}
	}
	return list
}

// sleeper is a process of that name, in a cgroup if one is given.
func sleeper(t *testing.T, name, cgroup string) (shows string, undo func()) {
	t.Helper()
	// The name is given by itself, as the program may look at what it is called.
	cmd := exec.Command("/bin/sh", "-c", `printf %s "$1" >/proc/$$/comm; [ -z "$2" ] || echo $$ >"$2/cgroup.procs"; echo; read x`, "sh", name, cgroup)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	undo = func() { in.Close(); cmd.Wait() }
	if n, _ := out.Read(make([]byte, 1)); n == 0 || errOut.Len() > 0 {
		undo()
		t.Errorf("a process cannot be put into %s: %s", cgroup, &errOut)
	}
	return fmt.Sprintf("%d %s", cmd.Process.Pid, name), undo
}

// What a person would lose: the word that a test run has left something on their
// machine.
func TestSees(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to leave something behind")
	}
	shown := map[string]string{} // the kind of what shows how
	t.Run("all", func(t *testing.T) {
		for name, l := range leftovers() {
			if _, err := exec.LookPath(l.needs); err != nil && l.needs != "" {
				t.Logf("no %s: %s is not installed", name, l.needs)
				continue
			}
			shows, undo := l.leave(t)
			t.Cleanup(undo)
			shown[shows] = l.kind
		}
		state := state(t)
		for shows, kind := range shown {
			if !strings.Contains(state[kind], shows) {
				t.Errorf("%s does not show among the %s: %s", shows, kind, state[kind])
			}
		}
	})
	state := state(t)
	for shows, kind := range shown {
		if strings.Contains(state[kind], shows) {
			t.Errorf("%s still shows among the %s when it is gone", shows, kind)
		}
	}
}
