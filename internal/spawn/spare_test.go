package spawn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func nothing(*Program) error { return nil }

func spare(t *testing.T, flags uint64) *Spare {
	t.Helper()
	needRoot(t)
	s, err := NewSpare(context.Background(), &Attr{Flags: flags}, nothing)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Discard)
	return s
}

// A spare is what a child forked for the program would have been: it has the
// descriptors that are named, by their numbers, no other, and its namespaces.
func TestSpare(t *testing.T) {
	s := spare(t, unix.CLONE_NEWUTS|unix.CLONE_NEWPID)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// Numbers with gaps, and some that others come as.
	var keep []int
	for i := range 12 {
		fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 3+i*i)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		keep = append([]int{fd}, keep...)
	}
	last := keep[0]
	w.Close()
	p := s.In()
	p.Sys(unix.SYS_SETHOSTNAME, p.Str("spare"), Int(5))
	for i, fd := range keep {
		p.Sys(unix.SYS_WRITE, Int(fd), p.Str(fmt.Sprintf("%x", i)), Int(1))
	}
	p.Sys(unix.SYS_DUP3, Int(last), Int(1), Int(0))
	execve(p, "echo -n ' ' /proc/self/fd/*; hostname; echo $$; exit 7")
	c := start(t, p, &Attr{Flags: unix.CLONE_NEWUTS | unix.CLONE_NEWPID, Keep: keep, Floor: 3})
	for _, fd := range keep {
		unix.Close(fd)
	}
	if c.Pid != s.Pid() {
		t.Errorf("process %d, not the spare %d", c.Pid, s.Pid())
	}
	out, _ := io.ReadAll(r)
	if got := wait(t, c); got != 7 {
		t.Errorf("exit status %d, want 7", got)
	}
	// 0 or 3 is the directory the shell reads.
	got := strings.NewReplacer(" /proc/self/fd/0", "", " /proc/self/fd/3", "").Replace(string(out))
	if want := "0123456789ab  /proc/self/fd/1spare\n1\n"; strings.ReplaceAll(got, "fd/1\n", "fd/1") != want {
		t.Errorf("the program says %q, want %q", out, want)
	}
	if name, _ := os.Hostname(); name == "spare" {
		t.Error("the host has the name of the container")
	}
}

// The first program of a spare runs before it is needed.
func TestSpareRunsAhead(t *testing.T) {
	needRoot(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := NewSpare(context.Background(), &Attr{Keep: []int{int(w.Fd())}}, func(p *Program) error {
		p.Sys(unix.SYS_WRITE, Int(int(w.Fd())), p.Str("x"), Int(1))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Discard()
	w.Close()
	if out, err := io.ReadAll(r); string(out) != "x" || err != nil { // to the end: it has closed its end
		t.Errorf("the first program wrote %q, %v", out, err)
	}
	if _, err := NewSpare(context.Background(), &Attr{}, func(p *Program) error {
		p.Doing("open", "the door")
		p.Sys(unix.SYS_OPENAT, Int(unix.AT_FDCWD), p.Str("/nowhere"), Int(0))
		return nil
	}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a first program that fails: %v", err)
	}
}

// A failed step of the second program is told as ever.
func TestSpareFails(t *testing.T) {
	s := spare(t, 0)
	p := s.In()
	p.Doing("open", "the door", "at", "/nowhere")
	p.Sys(unix.SYS_OPENAT, Int(unix.AT_FDCWD), p.Str("/nowhere"), Int(0))
	_, err := p.Start(context.Background(), &Attr{})
	if want := "cannot open the door at /nowhere: no such file or directory"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
	if alive(s.Pid()) {
		t.Error("the child is still there")
	}
}

// The memory of a spare that was started is the next one's, and nothing of what was
// in it.
func TestSpareReusesMemory(t *testing.T) {
	DropSpareMemory()
	var first uintptr
	for round := range 3 {
		s := spare(t, 0)
		if round == 0 {
			first = s.mem.addr
		} else if s.mem.addr != first {
			t.Errorf("round %d has other memory", round)
		}
		p := s.In()
		secret := p.Str(strings.Repeat("secret", 1000))
		own := p.Space(6000)
		p.Sys(unix.SYS_GETRANDOM, own, Int(6000), Int(0))
		execve(p, "exit 3")
		c := start(t, p, &Attr{})
		if got := wait(t, c); got != 3 {
			t.Fatalf("exit status %d, want 3", got)
		}
		if len(spareMems.idle) != 1 {
			t.Fatalf("%d memories are kept", len(spareMems.idle))
		}
		for _, a := range []Arg{secret, own} {
			if seen := unsafe.Slice((*byte)(pointer(a.v)), 6000); !bytes.Equal(seen, make([]byte, 6000)) {
				t.Error("something of the program is left in the memory")
			}
		}
	}
	s := spare(t, 0)
	p := s.In()
	p.Doing("open", "the door")
	p.Sys(unix.SYS_OPENAT, Int(unix.AT_FDCWD), p.Str("/nowhere"), Int(0))
	if _, err := p.Start(context.Background(), &Attr{}); err == nil || len(spareMems.idle) != 0 {
		t.Errorf("after a failure (%v) %d memories are kept", err, len(spareMems.idle))
	}
	spare(t, 0).Discard()
	DropSpareMemory()
	if n := len(spareMems.idle); n != 0 {
		t.Errorf("%d memories are kept", n)
	}
}

// What a spare cannot do is left to a child that is forked, and the spare is
// gone then.
func TestNoSpare(t *testing.T) {
	for name, c := range map[string]struct {
		attr  Attr
		build func(*Program)
	}{
		"other namespaces": {Attr{Flags: unix.CLONE_NEWUTS}, nil},
		"large":            {Attr{}, func(p *Program) { p.Space(spareMem) }},
		"detaches":         {Attr{}, (*Program).Detaching},
		"cgroup":           {Attr{Cgroup: os.Stdin}, nil},
		"descriptor":       {Attr{Keep: []int{SpareKept}}, nil},
		"forgets": {Attr{}, func(p *Program) {
			p.Forget()
			if lean.Load() { // there is nothing to forget
				p.Detaching()
			}
		}},
	} {
		s := spare(t, 0)
		p := s.In()
		if c.build != nil {
			c.build(p)
		}
		execve(p, "exit 0")
		if _, err := p.Start(context.Background(), &c.attr); err != ErrNoSpare {
			t.Errorf("%s: %v", name, err)
		}
		if alive(s.Pid()) {
			t.Errorf("%s: the spare is still there", name)
		}
	}
}

// A spare that somebody killed is noticed before anything has happened.
func TestSpareKilled(t *testing.T) {
	s := spare(t, 0)
	unix.Kill(s.Pid(), unix.SIGKILL)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := unix.SendmsgN(s.ours, nil, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT); err != nil {
			break
		}
		var info [1]unix.PollFd
		info[0] = unix.PollFd{Fd: int32(s.ours), Events: unix.POLLRDHUP}
		if n, _ := unix.Poll(info[:], 0); n > 0 || time.Now().After(deadline) {
			break
		}
	}
	p := s.In()
	execve(p, "exit 0")
	if _, err := p.Start(context.Background(), &Attr{}); err != ErrNoSpare {
		t.Errorf("a spare that was killed: %v", err)
	}
}

// A spare knows nothing of what its parent knew when it was forked, other
// programs included, and has but its socket open.
func TestSpareKnowsNothing(t *testing.T) {
	needRoot(t)
	other := &Program{}
	secret := other.Str("the environment of another container")
	s := spare(t, 0)
	got := make([]byte, 16)
	local := []unix.Iovec{{Base: &got[0]}}
	local[0].SetLen(len(got))
	n, err := unix.ProcessVMReadv(s.Pid(), local, []unix.RemoteIovec{{Base: secret.v, Len: len(got)}}, 0)
	if err == nil && strings.Trim(string(got[:n]), "\x00") != "" {
		t.Errorf("the spare has the memory of another program: %q", got[:n])
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Pid()))
	if err != nil || len(fds) != 1 {
		t.Errorf("the spare has %d descriptors, %v", len(fds), err)
	}
	other.release()
}

// Nor does another child know what a spare is told.
func TestNobodyKnowsTheSpare(t *testing.T) {
	s := spare(t, 0)
	p := s.In()
	secret := p.Str("the environment of a container")
	q := &Program{}
	q.Barrier(1)
	execve(q, "exit 0")
	wait(t, start(t, q, &Attr{Barrier: func(c *Child, _ int) error {
		got := make([]byte, 16)
		local := []unix.Iovec{{Base: &got[0]}}
		local[0].SetLen(len(got))
		if n, err := unix.ProcessVMReadv(c.Current(), local, []unix.RemoteIovec{{Base: secret.v, Len: len(got)}}, 0); err != unix.EFAULT {
			t.Errorf("another child reads %q, %v", got[:max(n, 0)], err)
		}
		return nil
	}}))
	p.release()
}

// A spare ends with its parent, here with the last descriptor of its socket.
func TestSpareEndsWithParent(t *testing.T) {
	s := spare(t, 0)
	dup, err := unix.FcntlInt(uintptr(s.ours), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Shutdown(dup, unix.SHUT_RDWR)
	unix.Close(dup)
	if status := reap(s.Pid()); !status.Exited() {
		t.Errorf("status %v", status)
	}
	s.child.PidFD.Close()
	unix.Close(s.ours)
	s.ours = -1
}

func alive(pid int) bool { return unix.Kill(pid, 0) == nil }
