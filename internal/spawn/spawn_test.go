package spawn

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// execve adds the end of a program: busybox sh -c script.
func execve(p *Program, script string) {
	p.Doing("execute", "/usr/bin/busybox")
	p.Sys(unix.SYS_EXECVE, p.Str("/usr/bin/busybox"), p.Strs([]string{"busybox", "sh", "-c", script}), p.Strs([]string{"PATH=/usr/bin:/bin"})).Last()
}

func start(t *testing.T, p *Program, a *Attr) *Child {
	t.Helper()
	c, err := p.Start(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wait(t *testing.T, c *Child) int {
	t.Helper()
	defer c.PidFD.Close()
	return reap(c.Pid).ExitStatus()
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := os.Stat("/usr/bin/busybox"); err != nil {
		t.Skip("needs busybox-static")
	}
}

func TestExitStatus(t *testing.T) {
	needRoot(t)
	p := &Program{}
	execve(p, "exit 42")
	if got := wait(t, start(t, p, &Attr{})); got != 42 {
		t.Errorf("exit status %d, want 42", got)
	}
}

func TestNoDescriptorLeaks(t *testing.T) {
	needRoot(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	leak, err := unix.Open("/", unix.O_RDONLY, 0) // on purpose not close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	p := &Program{}
	p.Sys(unix.SYS_DUP3, Int(int(w.Fd())), Int(1), Int(0))
	execve(p, "echo /proc/self/fd/*")
	c := start(t, p, &Attr{Keep: []int{int(w.Fd())}, Floor: 3})
	w.Close()
	buf := make([]byte, 4096)
	n, _ := r.Read(buf)
	wait(t, c)
	// 3 is the directory the shell reads, which ls through a glob shows.
	if got := strings.TrimSpace(string(buf[:n])); got != "/proc/self/fd/1 /proc/self/fd/3" && got != "/proc/self/fd/1" && got != "/proc/self/fd/0 /proc/self/fd/1" {
		t.Errorf("descriptors in the child: %s", got)
	}
}

func TestFailedStepIsASentence(t *testing.T) {
	p := &Program{}
	p.Doing("open", "the door", "at", "/nowhere")
	p.Sys(unix.SYS_OPENAT, Int(unix.AT_FDCWD), p.Str("/nowhere"), Int(0))
	_, err := p.Start(context.Background(), &Attr{})
	var e *Error
	if !errors.As(err, &e) || e.Errno != unix.ENOENT || !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("error %v", err)
	}
	if want := "cannot open the door at /nowhere: no such file or directory"; err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
}

func TestControlFlow(t *testing.T) {
	needRoot(t)
	p := &Program{}
	r, kept := p.NewReg(), p.NewReg()
	p.Set(r, Int(7))
	p.Sys(unix.SYS_EXECVE, p.Str("/etc/passwd"), p.Strs(nil), p.Strs(nil)).Ignore(unix.EACCES).KeepDenied(kept)
	bad, good, after := p.NewLabel(), p.NewLabel(), p.NewLabel()
	p.IfEqual(Val(r), Int(8), bad)
	p.IfEqual(Val(r), Int(7), good)
	p.Mark(bad)
	p.Fail(Int(int(unix.EXDEV)))
	p.Mark(good)
	p.CheckByte(p.Str("x"), 'x', unix.EIO)
	p.Sys(unix.SYS_CLOSE, Int(9999)).Else(after, unix.EBADF)
	p.Fail(Int(int(unix.EIO)))
	p.Mark(after)
	execve(p, "exit 0")
	c := start(t, p, &Attr{})
	wait(t, c)
	if c.Reg(r) != 7 || c.Reg(kept) != int64(unix.EACCES) {
		t.Errorf("registers %d %d", c.Reg(r), c.Reg(kept))
	}
}

func TestBarrierAndDescriptor(t *testing.T) {
	needRoot(t)
	p := &Program{}
	fd := p.NewReg()
	p.Sys(unix.SYS_OPENAT, Int(unix.AT_FDCWD), p.Str("/dev/zero"), Int(unix.O_CLOEXEC)).Save(fd)
	p.SendFD(Val(fd))
	p.Barrier(5)
	execve(p, "exit 3")
	var events []int
	c := start(t, p, &Attr{Barrier: func(c *Child, e int) error {
		events = append(events, e)
		if len(c.Files) != 1 {
			t.Error("no descriptor before the barrier")
		}
		return nil
	}})
	if wait(t, c) != 3 || len(events) != 1 || events[0] != 5 {
		t.Errorf("events %v", events)
	}
	defer c.Files[0].Close()
	var b [1]byte
	if n, err := c.Files[0].Read(b[:]); n != 1 || err != nil {
		t.Errorf("read of the descriptor: %d %v", n, err)
	}
}

func TestBarrierErrorKills(t *testing.T) {
	p := &Program{}
	p.Barrier(1)
	p.Sys(unix.SYS_PPOLL, Int(0), Int(0), Int(0), Int(0))
	boom := errors.New("boom")
	var pid int
	_, err := p.Start(context.Background(), &Attr{Barrier: func(c *Child, _ int) error { pid = c.Current(); return boom }})
	if err != boom {
		t.Fatalf("error %v", err)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("the child is still there: %v", err)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	p := &Program{}
	p.Fork()
	p.Barrier(1)
	p.Sys(unix.SYS_PPOLL, Int(0), Int(0), Int(0), Int(0))
	_, err := p.Start(ctx, &Attr{Barrier: func(*Child, int) error { cancel(); return nil }})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	if _, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
		t.Errorf("a child is left: %v", err)
	}
}

func TestForkIntoPidNamespace(t *testing.T) {
	needRoot(t)
	p := &Program{}
	p.Sys(unix.SYS_UNSHARE, Int(unix.CLONE_NEWPID))
	p.Fork()
	execve(p, "exit $$")
	c := start(t, p, &Attr{})
	if got := wait(t, c); got != 1 {
		t.Errorf("pid inside %d, want 1", got)
	}
}

func TestKilledChild(t *testing.T) {
	p := &Program{}
	p.Doing("sleep")
	p.Sys(unix.SYS_KILL, Int(0), Int(0))
	p.Barrier(1)
	p.Sys(unix.SYS_PPOLL, Int(0), Int(0), Int(0), Int(0))
	_, err := p.Start(context.Background(), &Attr{Barrier: func(c *Child, _ int) error {
		return unix.Kill(c.Current(), unix.SIGKILL)
	}})
	var d *DeathError
	if !errors.As(err, &d) || d.Status.Signal() != unix.SIGKILL {
		t.Fatalf("error %v", err)
	}
}

func TestMkpath(t *testing.T) {
	needRoot(t)
	cases := []struct{ name, link, target, path, made string }{
		{"plain", "", "", "/a/b/c", "a/b/c"},
		{"dangling absolute", "l", "/run/x", "/l/y", "run/x/y"},
		{"dangling relative", "l", "deep/er", "l/y/", "deep/er/y"},
		{"escape", "l", "../../../up", "/l/y", "up/y"},
		{"dots", "", "", "/a/../../b/./c", "b/c"},
	}
	for _, tc := range cases {
		for _, dir := range []bool{true, false} {
			top := t.TempDir()
			root := filepath.Join(top, "r", "o", "ot")
			if err := os.MkdirAll(root, 0o755); err != nil {
				t.Fatal(err)
			}
			if tc.link != "" {
				if err := os.Symlink(tc.target, filepath.Join(root, tc.link)); err != nil {
					t.Fatal(err)
				}
			}
			p := &Program{}
			fd := p.NewReg()
			p.Doing("open", root)
			p.Sys(unix.SYS_OPENAT, Int(unix.AT_FDCWD), p.Str(root), Int(unix.O_PATH|unix.O_CLOEXEC)).Save(fd)
			p.Doing("make", tc.path)
			p.Mkpath(fd, tc.path, dir)
			execve(p, "exit 0")
			wait(t, start(t, p, &Attr{}))
			fi, err := os.Lstat(filepath.Join(root, tc.made))
			if err != nil || fi.IsDir() != dir {
				t.Errorf("%s, dir %v: %v", tc.name, dir, err)
			}
			if entries, _ := os.ReadDir(top); len(entries) != 1 {
				t.Errorf("%s: something was made outside of the root: %v", tc.name, entries)
			}
		}
	}
}

func TestMkpathLoop(t *testing.T) {
	root := t.TempDir()
	if err := os.Symlink("l", filepath.Join(root, "l")); err != nil {
		t.Fatal(err)
	}
	p := &Program{}
	fd := p.NewReg()
	p.Sys(unix.SYS_OPENAT, Int(unix.AT_FDCWD), p.Str(root), Int(unix.O_PATH|unix.O_CLOEXEC)).Save(fd)
	p.Mkpath(fd, "l/x", true)
	if _, err := p.Start(context.Background(), &Attr{}); !errors.Is(err, unix.ELOOP) {
		t.Errorf("error %v", err)
	}
}

func TestStructSizes(t *testing.T) {
	if s := unsafe.Sizeof(page{}); s > 8192 {
		t.Errorf("the shared memory takes %d bytes, more than two pages", s)
	}
	if s := unsafe.Sizeof(cloneArgs{}); s != 88 {
		t.Errorf("clone_args has %d bytes, want 88", s)
	}
}

func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		p := &Program{}
		p.Sys(unix.SYS_EXECVE, p.Str("/usr/bin/busybox"), p.Strs([]string{"true"}), p.Strs(nil)).Last()
		c, err := p.Start(context.Background(), &Attr{})
		if err != nil {
			b.Fatal(err)
		}
		reap(c.Pid)
		c.PidFD.Close()
	}
}

// TestManyAtOnce starts from many goroutines while others make garbage: what a
// busy shim does.
func TestManyAtOnce(t *testing.T) {
	needRoot(t)
	deadline := time.Now().Add(2 * time.Second)
	done := make(chan error, 8)
	for range 8 {
		go func() {
			for i := 0; i < 40 && time.Now().Before(deadline); i++ {
				p := &Program{}
				_ = make([]byte, 1<<20)
				p.Sys(unix.SYS_EXECVE, p.Str("/usr/bin/busybox"), p.Strs([]string{"true"}), p.Strs(nil)).Last()
				c, err := p.Start(context.Background(), &Attr{Flags: unix.CLONE_NEWUTS})
				if err != nil {
					done <- err
					return
				}
				if s := reap(c.Pid); s.ExitStatus() != 0 {
					done <- errors.New("bad exit status")
					return
				}
				c.PidFD.Close()
			}
			done <- nil
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestBornInCgroup needs a cgroup v2 hierarchy, wherever it is mounted.
func TestBornInCgroup(t *testing.T) {
	needRoot(t)
	for _, top := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(top, &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		dir, err := os.MkdirTemp(top, "spawn-test-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.Remove(dir)
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		p := &Program{}
		p.Barrier(1)
		execve(p, "exit 0")
		wait(t, start(t, p, &Attr{Cgroup: f, Barrier: func(c *Child, _ int) error {
			procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
			if strings.TrimSpace(string(procs)) == "" {
				t.Error("the child is not in its cgroup")
			}
			return err
		}}))
		return
	}
	t.Skip("no cgroup v2 hierarchy is mounted")
}

// TestLiesOfAChild: who may trace the child of an exec can write to the page it
// shares with us.
func TestLiesOfAChild(t *testing.T) {
	p := &Program{}
	p.Sys(unix.SYS_GETPID).Last()
	for _, at := range []int32{-1, 1, 1 << 30} {
		if p.stepOf(&page{step: at}) != nil || p.ended(&Child{page: &page{step: at}}) == nil {
			t.Errorf("step %d was believed", at)
		}
	}
	c := &Child{page: &page{pid: 1}, pid: 1}
	if pidfd, _ := c.second(); pidfd >= 0 {
		t.Error("process 1 was taken for a child")
	}
	if got := p.stepOf(&page{}); got == nil || got.flags&flagLast == 0 {
		t.Error("the first step is not found")
	}
}

// deeper calls f with n more frames on the stack.
//
//go:noinline
func deeper(n int, f func()) {
	if n == 0 {
		f()
		return
	}
	deeper(n-1, f)
}

// The stack of who starts a process may have to grow, and with that to move, at
// any moment of it: a process whose descriptor is lost in that is one whose end
// nobody learns.
func TestStartFromEveryDepth(t *testing.T) {
	needRoot(t)
	Lean()
	for depth := range 400 {
		done := make(chan error)
		go deeper(depth, func() {
			p := &Program{}
			p.Sys(unix.SYS_EXECVE, p.Str("/usr/bin/busybox"), p.Strs([]string{"true"}), p.Strs(nil)).Last()
			c, err := p.Start(context.Background(), &Attr{})
			if err == nil {
				if err = unix.PidfdSendSignal(int(c.PidFD.Fd()), 0, nil, 0); err == unix.ESRCH {
					err = nil // it is one, of a process that is dead
				}
				reap(c.Pid)
				if err == nil {
					c.PidFD.Close()
				}
			}
			done <- err
		})
		if err := <-done; err != nil {
			t.Fatalf("at depth %d: %v", depth, err)
		}
	}
}
