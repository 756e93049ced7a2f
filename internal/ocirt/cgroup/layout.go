package cgroup

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Mode says which versions of cgroup this machine uses.
type Mode int

const (
	// Legacy is v1 alone: one or more controllers per hierarchy.
	Legacy Mode = iota
	// Hybrid is v1 with a v2 hierarchy beside it that holds the rest.
	Hybrid
	// Unified is v2 alone.
	Unified
)

func (m Mode) String() string {
	switch m {
	case Legacy:
		return "legacy"
	case Hybrid:
		return "hybrid"
	case Unified:
		return "unified"
	}
	return "unknown"
}

// Version is what Docker reports: "2" for Unified, "1" for the others.
func (m Mode) Version() string {
	if m == Unified {
		return "2"
	}
	return "1"
}

// hierarchy is one mounted tree of cgroups.
type hierarchy struct {
	mount       string   // where it is mounted
	controllers []string // as the kernel calls them; "name=systemd" for a named one
	v2          bool
}

// layout is what the machine looks like. It never changes after it was read:
// nobody remounts cgroups under running containers.
type layout struct {
	mode        Mode
	hierarchies []hierarchy
}

// machine is the layout of this machine, read once on first use.
var machine = sync.OnceValues(func() (*layout, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLayout(f)
})

// Detect says which versions of cgroup this machine uses.
func Detect() Mode {
	l, err := machine()
	if err != nil {
		return Legacy
	}
	return l.mode
}

// Controllers lists the controllers that can limit or observe a cgroup here,
// sorted. On v2 "devices" and "freezer" are listed although they are not
// controllers there but always present.
func Controllers() []string {
	l, err := machine()
	if err != nil {
		return nil
	}
	var all []string
	for _, h := range l.hierarchies {
		for _, c := range h.controllers {
			if !strings.HasPrefix(c, "name=") {
				all = append(all, c)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// MountPoint returns the directory at which the hierarchy of a controller is
// mounted, and whether it is v2. An empty controller asks for the v2 hierarchy
// itself. The directory is "" where there is none.
func MountPoint(controller string) (dir string, v2 bool) {
	l, err := machine()
	if err != nil {
		return "", false
	}
	if controller == "" {
		if h := l.unified(); h != nil {
			return h.mount, true
		}
		return "", false
	}
	if h := l.find(controller); h != nil {
		return h.mount, h.v2
	}
	return "", false
}

// isV1Controller says whether a word among the options of a v1 mount names a
// controller; the others are options.
func isV1Controller(s string) bool {
	switch s {
	case "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory",
		"misc", "net_cls", "net_prio", "perf_event", "pids", "rdma":
		return true
	}
	return strings.HasPrefix(s, "name=")
}

// readLayout reads proc_pid_mountinfo(5).
func readLayout(r io.Reader) (*layout, error) {
	l := &layout{}
	seen := map[string]int{} // device number → index in l.hierarchies
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		dev, h, ok := parseMount(sc.Text())
		if !ok {
			continue
		}
		if i, dup := seen[dev]; dup {
			// The same tree mounted again: the conventional place wins.
			if old := l.hierarchies[i].mount; !strings.HasPrefix(old, "/sys/fs/cgroup") && strings.HasPrefix(h.mount, "/sys/fs/cgroup") {
				l.hierarchies[i].mount = h.mount
			}
			continue
		}
		seen[dev] = len(l.hierarchies)
		l.hierarchies = append(l.hierarchies, h)
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	l.classify()
	return l, nil
}

// parseMount returns the device number and the hierarchy of one mountinfo line
// when it is one of a cgroup file system.
func parseMount(line string) (dev string, h hierarchy, ok bool) {
	left, right, found := strings.Cut(line, " - ")
	if !found {
		return "", h, false
	}
	l, r := strings.Fields(left), strings.Fields(right)
	if len(l) < 6 || len(r) < 3 {
		return "", h, false
	}
	h.mount = unescape(l[4])
	switch r[0] {
	case "cgroup2":
		h.v2 = true
	case "cgroup":
		for o := range strings.SplitSeq(r[2], ",") {
			if isV1Controller(o) {
				h.controllers = append(h.controllers, o)
			}
		}
		if len(h.controllers) == 0 {
			return "", h, false
		}
	default:
		return "", h, false
	}
	return l[2], h, true
}

// unescape undoes the octal escapes the kernel puts into mount paths.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && isOctal(s[i+1]) && isOctal(s[i+2]) && isOctal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func isOctal(c byte) bool { return c >= '0' && c <= '7' }

// classify finds the mode and the controllers of the v2 hierarchy.
func (l *layout) classify() {
	h := l.unified()
	if h == nil {
		l.mode = Legacy
		return
	}
	b, _ := readFile(filepath.Join(h.mount, "cgroup.controllers"))
	h.controllers = strings.Fields(b)
	l.mode = Unified
	for i := range l.hierarchies {
		o := &l.hierarchies[i]
		if !o.v2 && slices.ContainsFunc(o.controllers, func(c string) bool { return !strings.HasPrefix(c, "name=") }) {
			l.mode = Hybrid
		}
	}
	if l.mode == Unified {
		// Always there on v2, though not in cgroup.controllers.
		h.controllers = append(h.controllers, "devices", "freezer")
	}
}

// find returns the hierarchy that holds a controller, or nil.
func (l *layout) find(controller string) *hierarchy {
	for i := range l.hierarchies {
		if slices.Contains(l.hierarchies[i].controllers, controller) {
			return &l.hierarchies[i]
		}
	}
	return nil
}

// unified returns the v2 hierarchy, or nil.
func (l *layout) unified() *hierarchy {
	for i := range l.hierarchies {
		if l.hierarchies[i].v2 {
			return &l.hierarchies[i]
		}
	}
	return nil
}

// v2Name is how v2 spells a controller, given its v1 name.
func v2Name(controller string) string {
	switch controller {
	case "blkio":
		return "io"
	case "cpuacct":
		return "cpu"
	}
	return controller
}
