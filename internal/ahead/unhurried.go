package ahead

import (
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/thread"
)

// unhurried runs f when nobody else wants the processor: what is made ahead must
// not be in the way of the start it is not for. Who forks in f wants the
// policy of the process for the child.
func unhurried(f func()) {
	_ = thread.Borrow(func() (restored bool, _ error) {
		own, err := unix.SchedGetAttr(0, 0)
		if err != nil || unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0) != nil {
			f()
			return true, nil
		}
		f()
		return unix.SchedSetAttr(0, own, 0) == nil, nil
	})
}
