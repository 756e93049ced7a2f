package ocirt

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/mount"
)

const busybox = "/usr/bin/busybox"

// newRoot makes a root filesystem with busybox in it.
func newRoot(t testing.TB) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skip("needs busybox-static")
	}
	root := filepath.Join(t.TempDir(), "rootfs")
	for _, d := range []string{"bin", "etc", "dev", "proc", "sys", "tmp", "home/joe", "root"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(busybox, filepath.Join(root, "bin/busybox")); err != nil {
		data, err := os.ReadFile(busybox)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(root, "bin/busybox"), string(data), 0o755)
	}
	for _, n := range []string{"sh", "cat", "ls", "id", "true", "false", "echo", "sleep", "mount", "grep", "stat", "readlink", "touch", "mkdir", "hostname", "umount", "mknod", "stty", "tty", "wc", "head", "kill", "env", "pwd", "sort", "test", "chroot", "nproc", "date", "ps", "rm", "seq", "cut", "tr"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", n)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(root, "etc/passwd"), "root:x:0:0::/root:/bin/sh\njoe:x:1000:1000::/home/joe:/bin/sh\n", 0o644)
	return root
}

func writeFile(t testing.TB, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// overlayOn makes the mounts of a writable layer over root.
func overlayOn(t testing.TB, root string) []mount.Mount {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"lowerdir=" + root, "upperdir=" + dir + "/upper", "workdir=" + dir + "/work"}}}
}

var containers atomic.Int32

// defaultSpec is what an engine asks for by default.
func defaultSpec(script string) *specs.Spec {
	caps := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: "box",
		Process: &specs.Process{
			Args:         []string{"sh", "-c", script},
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Cwd:          "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Root: &specs.Root{},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=67108864"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.CgroupNamespace},
			},
			MaskedPaths:   []string{"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// newContainer is a container with the default specification.
func newContainer(t testing.TB, script string) *Container {
	t.Helper()
	root := newRoot(t)
	id := fmt.Sprintf("ocirt-test-%d-%d", os.Getpid(), containers.Add(1))
	c := &Container{ID: id, Spec: defaultSpec(script), RootMounts: overlayOn(t, root), Bundle: filepath.Dir(root)}
	c.Spec.Linux.CgroupsPath = "/" + id
	var err error
	if c.Base, err = base(); err != nil {
		t.Fatal(err)
	}
	return c
}

// base is what all containers here start from that can; others, with hooks or a
// user namespace, and all of gantry-oci's, start from a copy of the host's mounts.
var base = sync.OnceValues(func() (*os.File, error) { return NewBase(context.Background()) })

// wait reaps p and removes its cgroup.
func wait(t testing.TB, p *Process) unix.WaitStatus {
	t.Helper()
	defer p.PidFD.Close()
	var status unix.WaitStatus
	done := make(chan struct{})
	timer := time.AfterFunc(30*time.Second, func() {
		t.Errorf("process %d did not end", p.Pid)
		_ = unix.PidfdSendSignal(int(p.PidFD.Fd()), unix.SIGKILL, nil, 0)
	})
	go func() {
		defer close(done)
		for {
			if _, err := unix.Wait4(p.Pid, &status, 0, nil); err != unix.EINTR {
				return
			}
		}
	}()
	<-done
	timer.Stop()
	return status
}

// run runs the container to its end and returns what it wrote.
func run(t testing.TB, c *Container) (output string, code int) {
	t.Helper()
	output, code, err := tryRun(t, c)
	if err != nil {
		t.Fatalf("cannot start: %v", err)
	}
	return output, code
}

func tryRun(t testing.TB, c *Container) (string, int, error) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c.Stdout, c.Stderr = w, w
	p, err := Start(context.Background(), c)
	w.Close()
	if err != nil {
		return "", -1, err
	}
	if p.Console != nil {
		defer p.Console.Close()
	}
	var out bytes.Buffer
	if p.Console != nil {
		_, _ = io.Copy(&out, p.Console) // ends with EIO when the last process has closed it
	} else {
		_, _ = io.Copy(&out, r)
	}
	status := wait(t, p)
	if p.Cgroup != nil && c.Cgroup == nil {
		if err := p.Cgroup.Delete(); err != nil {
			t.Errorf("cgroup: %v", err)
		}
	}
	if status.Signaled() {
		return out.String(), 128 + int(status.Signal()), nil
	}
	return out.String(), status.ExitStatus(), nil
}

// expect runs script and compares its output.
func expect(t *testing.T, c *Container, want string) {
	t.Helper()
	got, code := run(t, c)
	if strings.TrimSpace(got) != strings.TrimSpace(want) || code != 0 {
		t.Errorf("exit status %d, output:\n%s\nwant:\n%s", code, got, want)
	}
}

// TestMain checks that the tests leave the host as they found it.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "ocirt-test-")
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Setenv("TMPDIR", dir)
	before := hostState(dir)
	code := m.Run()
	if f, err := base(); err == nil {
		f.Close()
	}
	if after := hostState(dir); after != before {
		fmt.Printf("the tests changed the host:\nbefore:\n%s\nafter:\n%s\n", before, after)
		code = 1
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// hostState is what a test could leave behind: mounts, descriptors, cgroups,
// children. Other tests may run at the same time, so of the mounts only those
// in places of ours count, and those a container would make.
func hostState(dir string) string {
	var s []string
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		at := strings.Fields(line)[4]
		if strings.HasPrefix(at, dir) || at == "/" || strings.HasPrefix(at, "/proc") || strings.HasPrefix(at, "/dev") || at == "/sys" {
			s = append(s, "mount "+at)
		}
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	for _, fd := range fds {
		// Opened once and kept: the host's procfs, /dev/null, the poller.
		target, err := os.Readlink("/proc/self/fd/" + fd.Name())
		if err != nil || target == "/proc" || target == "/dev/null" || strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "/sys/fs/cgroup/cpu/cpu.cfs_") {
			continue
		}
		s = append(s, "file "+target)
	}
	cgroups, _ := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/ocirt-test-%d-*", os.Getpid()))
	s = append(s, cgroups...)
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		s = append(s, "a child")
	}
	slices.Sort(s)
	return strings.Join(s, "\n")
}

func ioctl(fd int, req uintptr, arg *[80]byte) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(arg))); errno != 0 {
		return errno
	}
	return nil
}
