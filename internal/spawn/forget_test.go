package spawn

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A child that forgets has nothing of its parent's memory, and goes on.
func TestForget(t *testing.T) {
	truth, err := exec.LookPath("true")
	if err != nil {
		t.Skip("there is no program true")
	}
	// Put together, so that it is nowhere else; a few megabytes of it, large and
	// small.
	secret := strings.Join([]string{"what", "another", "container", "was", "told"}, "-")
	var known [][]byte
	for _, size := range []int{1, 100, 10_000, 1 << 20} {
		for range 3 {
			known = append(known, bytes.Repeat([]byte(secret), (size+len(secret))/len(secret)))
		}
	}
	for _, forgets := range []bool{false, true} {
		p := &Program{}
		for i := range 3 * blockSize / 1000 { // more than one chunk, and large ones
			p.Bytes(bytes.Repeat([]byte{byte(i)}, 1000))
		}
		p.Space(blockSize)
		if forgets {
			p.Forget()
		}
		p.Barrier(1)
		p.Sys(unix.SYS_EXECVE, p.Str(truth), p.Strs([]string{"true"}), p.Strs(nil)).Last()
		found := 0
		c, err := p.Start(t.Context(), &Attr{Barrier: func(c *Child, _ int) (err error) {
			found, err = search(c.Current(), secret)
			return err
		}})
		if err != nil {
			t.Fatal(err)
		}
		if status := reap(c.Pid); status.ExitStatus() != 0 {
			t.Errorf("the program ended with %d", status)
		}
		c.PidFD.Close()
		if forgets && found > 0 || !forgets && found == 0 {
			t.Errorf("forgets %v: the child knows the secret in %d places", forgets, found)
		}
	}
	if len(known) == 0 {
		t.Error(known)
	}
}

// search counts the places in the private memory of a process that have the text.
func search(pid int, text string) (found int, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer mem.Close()
	for _, s := range privateMemory(maps) {
		buf := make([]byte, s.to-s.from)
		n, _ := mem.ReadAt(buf, int64(s.from))
		found += bytes.Count(buf[:n], []byte(text))
	}
	return found, nil
}

func TestSubtract(t *testing.T) {
	page := uintptr(os.Getpagesize())
	got := subtract([]span{{0, 10 * page}, {20 * page, 30 * page}}, []span{{25 * page, 26 * page}, {2 * page, 3 * page}, {9 * page, 22 * page}})
	want := []span{{0, 2 * page}, {3 * page, 9 * page}, {22 * page, 25 * page}, {26 * page, 30 * page}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
