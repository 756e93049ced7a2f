package netns_test

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/network/netns"
	"github.com/gantry-containers/gantry/internal/network/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func inode(t testing.TB, f *os.File) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func current(t testing.TB) uint64 {
	t.Helper()
	f, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return inode(t, f)
}

// No goroutine may ever find itself in a container's namespace: the threads
// that were there must be back, or gone.
func TestThreadsComeBack(t *testing.T) {
	home := current(t)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			ns, err := netns.New(nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer ns.Close()
			err = netns.Do(ns, func() error {
				if unix.Gettid() == unix.Getpid() {
					t.Error("the main thread, which is the process to others, is in another namespace")
				}
				if got := current(t); got != inode(t, ns) || got == home {
					t.Errorf("inside is %d, want %d", got, inode(t, ns))
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if got := current(t); got != home {
				t.Errorf("a goroutine is in namespace %d, not %d", got, home)
			}
		})
	}
	wg.Wait()
}

func TestNewIsEmpty(t *testing.T) {
	want := errors.New("from setup")
	ns, err := netns.New(func() error {
		links, err := net.Interfaces()
		if err != nil || len(links) == 0 || links[0].Name != "lo" || links[0].Flags&net.FlagUp != 0 {
			t.Errorf("interfaces %v, %v", links, err)
		}
		return want
	})
	if ns != nil || err != want {
		t.Errorf("got %v, %v", ns, err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := netns.Do(null, func() error { t.Error("it ran"); return nil }); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		ns, err := netns.New(nil)
		if err != nil {
			b.Fatal(err)
		}
		ns.Close()
	}
}
