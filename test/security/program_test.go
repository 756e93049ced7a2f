package security

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An image may have its container execute /proc/self/exe, which is still the
// shim then, and keep it open until nobody runs it any more (CVE-2019-5736). It
// must not be writable through that, whoever is root there.
func TestProgramOfTheShimCannotBeWritten(t *testing.T) {
	shim, err := engine.Shim(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer shim.Close()
	info, err := shim.Info(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{info.Pid, info.NetPid} {
		// Not by opening it: while it runs that fails anyway.
		if err := unix.Access(fmt.Sprintf("/proc/%d/exe", pid), unix.W_OK); !errors.Is(err, unix.EROFS) {
			t.Errorf("the program of process %d can be written to: %v", pid, err)
		}
	}
	if !strings.HasPrefix(info.Binary, engine.Bin+"/") {
		t.Errorf("the shim says that it is %s", info.Binary)
	}
	gantry(t, "run", "--rm", "busybox", "sh", "-c", "printf '#!/proc/self/exe version\\n' >/tmp/x; chmod +x /tmp/x; /tmp/x; true")
}
