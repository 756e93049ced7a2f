package spawn

import (
	"bytes"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readIn starts a child and reads the memory of secret in it.
func readIn(t *testing.T, secret []byte) (got []byte, err error) {
	t.Helper()
	p := &Program{}
	p.Barrier(1)
	execve(p, "exit 0")
	got = make([]byte, len(secret))
	c := start(t, p, &Attr{Barrier: func(c *Child, _ int) error {
		local := []unix.Iovec{{Base: &got[0]}}
		local[0].SetLen(len(got))
		remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&secret[0])), Len: len(secret)}}
		_, err = unix.ProcessVMReadv(c.Current(), local, remote, 0)
		return nil
	}})
	wait(t, c)
	return got, err
}

// What a person would lose: a process that enters a container before it has
// dropped its privileges, as exec's does, would carry what its parent knows of
// all other containers.
func TestLeanChildHasNoHeap(t *testing.T) {
	needRoot(t)
	if withC {
		t.Skip("built with the C library, where children are copies: CGO_ENABLED=0 is how programs are built")
	}
	secret := bytes.Repeat([]byte("the password of another container "), 4096)
	if !lean.Load() {
		if got, err := readIn(t, secret); err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("a child that is not lean does not show the heap, so that this test shows nothing: %v", err)
		}
	}
	Lean()
	if got, err := readIn(t, secret); err != unix.EFAULT {
		t.Errorf("the heap is there in the child: %v, %.20q", err, got)
	}
	// Nor is the data segment.
	global = [16]byte{1, 2, 3}
	if got, err := readIn(t, global[:]); err != unix.EFAULT {
		t.Errorf("the data segment is there in the child: %v, %x", err, got)
	}
	// Nor is another program, whether its memory is new or was used before.
	for range 2 * maxIdle {
		other := &Program{}
		told := other.Str("the environment of another container")
		got := make([]byte, 16)
		p := &Program{}
		p.Barrier(1)
		execve(p, "exit 0")
		wait(t, start(t, p, &Attr{Barrier: func(c *Child, _ int) error {
			local := []unix.Iovec{{Base: &got[0]}}
			local[0].SetLen(len(got))
			if n, err := unix.ProcessVMReadv(c.Current(), local, []unix.RemoteIovec{{Base: told.v, Len: len(got)}}, 0); err != unix.EFAULT {
				t.Errorf("another program is there in the child: %q, %v", got[:max(n, 0)], err)
			}
			return nil
		}}))
		defer other.release()
	}
	// What the heap grows by is not there either.
	more := make([][]byte, 0, 64)
	for range cap(more) {
		more = append(more, bytes.Repeat([]byte("another secret "), 1<<16))
	}
	if got, err := readIn(t, more[len(more)-1]); err != unix.EFAULT {
		t.Errorf("new heap is there in the child: %v, %.20q", err, got)
	}
	// And programs still run, also large ones.
	p := &Program{}
	for range 3000 {
		p.Sys(unix.SYS_GETPID)
	}
	p.Sys(unix.SYS_EXECVE, p.Str("/usr/bin/busybox"), p.Strs([]string{"true"}), p.Strs(nil)).Last()
	wait(t, start(t, p, &Attr{}))
}

var global [16]byte

func TestRuntimeMemory(t *testing.T) {
	maps := "00400000-00600000 r-xp 00000000 08:01 1 /bin/x\n" +
		"00600000-00700000 rw-p 00200000 08:01 1 /bin/x\n" +
		"00700000-00740000 rw-p 00000000 00:00 0 \n" + // the rest of the data segment
		"c000000000-c000400000 rw-p 00000000 00:00 0 \n" +
		"c000400000-c004000000 ---p 00000000 00:00 0 [anon: Go: heap reservation]\n" +
		"7f0000000000-7f0000010000 rw-s 00000000 00:01 5 /dev/zero (deleted)\n" +
		"7f1000000000-7f1000010000 rw-p 00000000 00:00 0 \n" +
		"7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]\n"
	got := runtimeMemory([]byte(maps))
	want := []block{{0x600000, 0x100000}, {0x700000, 0x40000}, {0xc000000000, 0x400000}, {0xc000400000, 0x3c00000}, {0x7f1000000000, 0x10000}, {0x7ffd00000000, 0x21000}}
	if len(got) != len(want) {
		t.Fatalf("%x", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%x, want %x", got[i], want[i])
		}
	}
}
