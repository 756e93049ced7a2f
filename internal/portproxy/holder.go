package portproxy

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Holder finds which process has a socket that keeps others from listening on
// the address, and returns "process PID (COMMAND)"; "" when none can be seen.
// It looks in the network namespace of the process. It reads all of /proc, so
// it is for explaining a failure.
func Holder(proto string, addr netip.AddrPort) string {
	for _, table := range []string{proto, proto + "6"} {
		if inode := socketInode("/proc/thread-self/net/"+table, proto, addr); inode != "" {
			if who := socketOwner(inode); who != "" {
				return who
			}
		}
	}
	return ""
}

// socketInode searches one of the tables of proc_net(5).
func socketInode(table, proto string, addr netip.AddrPort) string {
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		local, state, inode, ok := parseSocket(lines.Text())
		if !ok || inode == "0" || proto == "tcp" && state != "0A" {
			continue
		}
		// A socket on [::] may take IPv4 as well.
		same := local.Addr() == addr.Addr() || local.Addr().IsUnspecified() || addr.Addr().IsUnspecified()
		if same && local.Port() == addr.Port() {
			return inode
		}
	}
	return ""
}

// parseSocket reads a line of /proc/net/tcp and its like. Each 32-bit word of
// an address is printed in the byte order of the machine.
func parseSocket(line string) (local netip.AddrPort, state, inode string, ok bool) {
	f := strings.Fields(line)
	if len(f) < 10 {
		return local, "", "", false
	}
	ip, port, _ := strings.Cut(f[1], ":")
	b, err := hex.DecodeString(ip)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err != nil || err2 != nil || len(b) != 4 && len(b) != 16 {
		return local, "", "", false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	a, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), f[3], f[9], true
}

// socketOwner searches the descriptors of all processes.
func socketOwner(inode string) string {
	want := "socket:[" + inode + "]"
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return ""
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		dir := filepath.Join("/proc", p.Name())
		fds, _ := os.ReadDir(dir + "/fd")
		for _, fd := range fds {
			if link, _ := os.Readlink(dir + "/fd/" + fd.Name()); link == want {
				comm, _ := os.ReadFile(dir + "/comm")
				return fmt.Sprintf("process %d (%s)", pid, strings.TrimSpace(string(comm)))
			}
		}
	}
	return ""
}
