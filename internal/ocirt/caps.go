package ocirt

import (
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/spawn"
)

// capSets are the capability sets of a process as bit masks.
type capSets struct {
	bounding, effective, permitted, inheritable, ambient uint64
}

// ownCaps are the capabilities this process itself may hand on, and the number
// of the last one the kernel knows.
var ownCaps = sync.OnceValue(func() (own struct {
	permitted, bounding uint64
	last                int
}) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&hdr, &data[0]) == nil {
		own.permitted = uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32
	}
	for own.last < 63 {
		set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(own.last), 0, 0, 0)
		if err != nil {
			break
		}
		own.bounding |= uint64(set) << own.last
		own.last++
	}
	own.last--
	return own
})

// capabilities translates the sets of the process. What this machine cannot
// grant is left out, as the specification asks ("runtimes SHOULD NOT fail").
func (b *builder) capabilities() capSets {
	c := b.process.Capabilities
	if c == nil {
		c = &specs.LinuxCapabilities{}
	}
	own := ownCaps()
	grant, bound := own.permitted, own.bounding
	if b.ns.has(unix.CLONE_NEWUSER) { // where one has all of them
		grant, bound = 1<<(own.last+1)-1, 1<<(own.last+1)-1
	}
	s := capSets{
		bounding:    capMask(c.Bounding) & bound,
		effective:   capMask(c.Effective) & grant,
		permitted:   capMask(c.Permitted) & grant,
		inheritable: capMask(c.Inheritable) & grant,
		ambient:     capMask(c.Ambient) & grant,
	}
	s.effective &= s.permitted
	s.ambient &= s.permitted & s.inheritable
	return s
}

func capMask(names []string) (mask uint64) {
	for _, name := range names {
		if n := capNumber(name); n >= 0 {
			mask |= 1 << n
		}
	}
	return mask
}

// capNumber is the number of CAP_NAME; -1 when there is none.
func capNumber(name string) int {
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "CAP_") {
		return -1
	}
	names := [...]string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
		"SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
		"IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
		"SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
		"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
		"WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
	}
	for i, n := range names {
		if name[len("CAP_"):] == n {
			return i
		}
	}
	return -1
}

// boundCapabilities drops from the bounding set, while that is still allowed.
func (b *builder) boundCapabilities(c capSets) {
	b.Doing("drop", "capabilities")
	own := ownCaps()
	for i := range own.last + 1 {
		if c.bounding&(1<<i) == 0 {
			b.Sys(unix.SYS_PRCTL, spawn.Int(unix.PR_CAPBSET_DROP), spawn.Int(i), spawn.Int(0), spawn.Int(0), spawn.Int(0))
		}
	}
}

// setCapabilities sets the other sets, after the user was changed.
func (b *builder) setCapabilities(c capSets) {
	b.Doing("set", "the capabilities")
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		data[i] = unix.CapUserData{
			Effective:   uint32(c.effective >> (32 * i)),
			Permitted:   uint32(c.permitted >> (32 * i)),
			Inheritable: uint32(c.inheritable >> (32 * i)),
		}
	}
	b.Sys(unix.SYS_CAPSET, b.Struct(unsafe.Pointer(&hdr), unsafe.Sizeof(hdr)), b.Struct(unsafe.Pointer(&data), unsafe.Sizeof(data)))
	b.Sys(unix.SYS_PRCTL, spawn.Int(unix.PR_SET_KEEPCAPS), spawn.Int(0), spawn.Int(0), spawn.Int(0), spawn.Int(0))
	b.Sys(unix.SYS_PRCTL, spawn.Int(unix.PR_CAP_AMBIENT), spawn.Int(unix.PR_CAP_AMBIENT_CLEAR_ALL), spawn.Int(0), spawn.Int(0), spawn.Int(0))
	for i := range 64 {
		if c.ambient&(1<<i) != 0 {
			b.Sys(unix.SYS_PRCTL, spawn.Int(unix.PR_CAP_AMBIENT), spawn.Int(unix.PR_CAP_AMBIENT_RAISE), spawn.Int(i), spawn.Int(0), spawn.Int(0))
		}
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
