//go:build linux

package catch

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var all = []os.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP, unix.SIGCONT}

// Signals end processes: each test is one of its own.
func TestMain(m *testing.M) {
	helpers := map[string]func(){"storm": storm, "reset": reset, "again": again, "blocked": blocked}
	if f := helpers[os.Getenv("GANTRY_CATCH_TEST")]; f != nil {
		f()
		return
	}
	os.Exit(m.Run())
}

func helper(name string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "GANTRY_CATCH_TEST="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// expect sends a signal to this process and waits for it, once.
func expect(ch <-chan os.Signal, s os.Signal) {
	unix.Kill(os.Getpid(), s.(syscall.Signal))
	for {
		select {
		case got := <-ch:
			if got == unix.SIGURG { // the runtime's
				continue
			}
			if got != s {
				fmt.Printf("%v came instead of %v\n", got, s)
			}
		case <-time.After(10 * time.Second):
			fmt.Printf("%v did not come\n", s)
		}
		return
	}
}

// storm sends many, at whatever the runtime is doing.
func storm() {
	stop := make(chan bool)
	for i := range 4 {
		go func() {
			var kept [][]byte
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				kept = append(kept, make([]byte, 1000))
				if n%100 == 0 {
					kept = nil
				}
				if n%1000 == 0 && i == 0 {
					runtime.GC()
				}
				deep(n % 200)
				unix.Nanosleep(&unix.Timespec{Nsec: 1000}, nil)
			}
		}()
	}
	ch := make(chan os.Signal, 10)
	Notify(ch, all...)
	for over := time.Now().Add(time.Second); time.Now().Before(over); {
		for _, s := range all {
			expect(ch, s)
		}
	}
	close(stop)
}

func deep(n int) int {
	if n == 0 {
		return 0
	}
	return deep(n-1) + 1
}

// What a person sends comes, and nothing is broken by it.
func TestSignals(t *testing.T) {
	if out, err := helper("storm").Output(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

func reset() {
	ch := make(chan os.Signal, 10)
	Notify(ch, all...)
	expect(ch, unix.SIGTERM)
	Reset()
	unix.Kill(os.Getpid(), unix.SIGTERM)
	time.Sleep(10 * time.Second)
}

// Signals nobody takes any more do what they do to any command.
func TestReset(t *testing.T) {
	cmd := helper("reset")
	out, err := cmd.Output()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); len(out) > 0 || !ws.Signaled() || ws.Signal() != unix.SIGTERM {
		t.Errorf("%v: %s", err, out)
	}
}

func again() {
	ch := make(chan os.Signal, 10)
	Notify(ch, all...)
	signal.Notify(ch)
	for range 100 {
		for _, s := range all {
			expect(ch, s)
		}
	}
	expect(ch, unix.SIGALRM)
	signal.Reset()
	Reset()
	Notify(ch, all...)
	for _, s := range all {
		expect(ch, s)
	}
	for len(ch) > 0 {
		if s := <-ch; s != unix.SIGURG {
			fmt.Printf("%v came twice\n", s)
		}
	}
}

// When os/signal takes over all there are, each still comes once.
func TestWithOSSignal(t *testing.T) {
	if out, err := helper("again").Output(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

func blocked() {
	if os.Getenv("GANTRY_CATCH_BLOCKED") == "" {
		runtime.LockOSThread()
		set := unix.Sigset_t{}
		set.Val[0] = 1 << (unix.SIGUSR1 - 1) // the runtime unblocks what ends a process
		if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "GANTRY_CATCH_BLOCKED=1")))
		return
	}
	ch := make(chan os.Signal, 10)
	Notify(ch, all...)
	expect(ch, unix.SIGUSR1)
}

// A signal that was blocked when the program began comes as well, as with os/signal.
func TestBlocked(t *testing.T) {
	if out, err := helper("blocked").Output(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}
