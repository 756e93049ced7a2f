package ociruntime

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openPty returns both ends of a new terminal.
func openPty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminals on this machine:", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// In the foreground the container's terminal is the caller's: its size, its input
// and its changes of size.
func TestRunTerminal(t *testing.T) {
	b := newBench(t, "sh", "-c", "trap 'stty size; exit 3' WINCH; stty size; read -r x; echo got $x; while :; do sleep 0.01; done")
	if err := os.Symlink("busybox", b.bundle+"/rootfs/bin/stty"); err != nil {
		t.Fatal(err)
	}
	b.spec.Process.Terminal = true
	b.write()
	master, slave := openPty(t)
	size := func(rows, cols uint16) {
		t.Helper()
		if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
			t.Fatal(err)
		}
	}
	size(33, 77)
	cmd := b.command("run", "c")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(master)
	expect := func(want string) {
		t.Helper()
		for {
			line, err := in.ReadString('\n')
			if strings.TrimSpace(line) == want {
				return
			}
			if err != nil {
				t.Fatalf("%q did not come: %v", want, err)
			}
		}
	}
	expect("33 77")
	if _, err := master.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	expect("got hello")
	size(44, 88)
	expect("44 88")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("exit code %d, want 3", code)
	}
}
