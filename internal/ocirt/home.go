package ocirt

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/mount"
)

// homeOf is the home directory of the process's user according to the
// /etc/passwd below root; "/" when it is not in there. It is only looked up when
// the environment has no HOME.
func homeOf(root *os.File, p *specs.Process) string {
	for _, e := range p.Env {
		if strings.HasPrefix(e, "HOME=") {
			return ""
		}
	}
	// First without opening it: the container may have put a device in its place,
	// and out here nothing keeps that from being used.
	place, err := mount.OpenIn(int(root.Fd()), "etc/passwd", unix.O_PATH)
	if err != nil {
		return "/"
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if unix.Fstat(place, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "/"
	}
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(place))
	if err != nil {
		return "/"
	}
	defer f.Close()
	return findHome(io.LimitReader(f, 1<<20), p.User.UID)
}

func findHome(passwd io.Reader, uid uint32) string {
	want := strconv.FormatUint(uint64(uid), 10)
	lines := bufio.NewScanner(passwd)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) >= 6 && fields[2] == want && strings.HasPrefix(fields[5], "/") {
			return fields[5]
		}
	}
	return "/"
}
