package network

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// hostPatience is how long an engine waits for others that make bridges. It then
// goes on: anybody on the machine could keep that lock.
const hostPatience = 3 * time.Second

// lockHost keeps the other engines of this network namespace from looking for a
// free subnet until the returned function is called: the one that is found is taken
// only with the bridge. The lock is the namespace's own file, which all engines see,
// whatever their roots, and goes with the process.
func lockHost() (unlock func()) {
	f, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return func() {}
	}
	for end := time.Now().Add(hostPatience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK && err != unix.EINTR {
			break
		}
	}
	return func() { f.Close() }
}
