package thread

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// What a person would lose: a daemon that shows a container's mounts as its own,
// and takes the container's namespaces for its.
func TestNeverMain(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one goroutine after another, on the thread that is there
	met := false
	for range 2000 {
		onMain := make(chan bool)
		go func() { onMain <- isMain() }()
		met = <-onMain || met
		if err := Spend(func() error {
			if isMain() {
				return errors.New("the main thread was spent")
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if !met {
		t.Skip("no goroutine ever came to be on the main thread")
	}
}

func TestBorrow(t *testing.T) {
	ns := func(who string) string {
		name, err := os.Readlink("/proc/" + who + "/ns/uts")
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a namespace")
	}
	before := ns("self")
	failed := errors.New("failed")
	for _, restored := range []bool{true, false} {
		err := Borrow(func() (bool, error) {
			if !restored {
				if err := unix.Unshare(unix.CLONE_NEWUTS); err != nil {
					t.Error(err)
				}
			}
			return restored, failed
		})
		if !errors.Is(err, failed) {
			t.Errorf("error %v", err)
		}
	}
	for range 100 { // whatever thread these are on
		seen := make(chan string)
		go func() { seen <- ns("thread-self") }()
		if got := <-seen; got != before || ns("self") != before {
			t.Fatalf("a changed thread is in use: %s, not %s", got, before)
		}
	}
}

// What a person would lose: a daemon some of whose requests wait for an idle
// processor, because they are on a thread that did.
func TestUnhurried(t *testing.T) {
	policy := func() uint32 {
		attr, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		return attr.Policy
	}
	before := policy()
	for range 50 {
		Unhurried(func() {
			if policy() != unix.SCHED_BATCH {
				t.Error("hurried")
			}
			_ = Borrow(func() (bool, error) {
				if policy() != unix.SCHED_BATCH {
					t.Error("what is borrowed on the way is hurried")
				}
				return true, nil
			})
		})
	}
	for range 100 {
		seen := make(chan uint32)
		go func() { seen <- policy() }()
		if got := <-seen; got != before {
			t.Fatalf("a goroutine has policy %d, not %d", got, before)
		}
	}
}
