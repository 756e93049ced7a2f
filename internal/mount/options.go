package mount

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// param is one option that the file system itself understands.
type param struct {
	key, value string
	flag       bool // given without "="
}

// parsed is a Mount taken apart for the kernel.
type parsed struct {
	flags     uintptr // MS_* of mount(2)
	attrs     uint64  // MOUNT_ATTR_* of fsmount(2) and mount_setattr(2)
	bind      bool
	recursive bool
	params    []param
	subdir    string // see Subdir
}

// flagOf gives the mount(2) and fsmount(2) bits of a generic option.
func flagOf(option string) (flags uintptr, attrs uint64, ok bool) {
	switch option {
	case "ro":
		return unix.MS_RDONLY, unix.MOUNT_ATTR_RDONLY, true
	case "nosuid":
		return unix.MS_NOSUID, unix.MOUNT_ATTR_NOSUID, true
	case "nodev":
		return unix.MS_NODEV, unix.MOUNT_ATTR_NODEV, true
	case "noexec":
		return unix.MS_NOEXEC, unix.MOUNT_ATTR_NOEXEC, true
	case "noatime":
		return unix.MS_NOATIME, unix.MOUNT_ATTR_NOATIME, true
	case "nodiratime":
		return unix.MS_NODIRATIME, unix.MOUNT_ATTR_NODIRATIME, true
	case "rw", "suid", "dev", "exec", "relatime", "private", "rprivate", "defaults":
		return 0, 0, true
	}
	return 0, 0, false
}

func (m Mount) parse() parsed {
	p := parsed{bind: m.Type == "bind"}
	for _, option := range m.Options {
		switch option {
		case "bind":
			p.bind = true
			continue
		case "rbind":
			p.bind, p.recursive = true, true
			continue
		}
		if flags, attrs, ok := flagOf(option); ok {
			p.flags |= flags
			p.attrs |= attrs
			continue
		}
		if dir, ok := strings.CutPrefix(option, Subdir); ok {
			p.subdir = dir
			continue
		}
		key, value, found := strings.Cut(option, "=")
		p.params = append(p.params, param{key, value, !found})
	}
	return p
}

// Legacy is what mount(2) needs for a Mount.
type Legacy struct {
	// Dir is the directory to be in when calling, because Data names
	// directories relative to it; empty when it makes no difference.
	Dir   string
	Flags uintptr
	Data  string
}

// Legacy turns a mount into the arguments of mount(2). The data of that call
// must fit one page together with its terminating zero; when the directories of
// an overlay are too long for it they are made relative to the one they share.
// It fails with ErrInvalidArgument when even that is too long.
func (m Mount) Legacy() (Legacy, error) {
	p := m.parse()
	l := Legacy{Flags: p.flags}
	if p.bind {
		l.Flags |= unix.MS_BIND
		if p.recursive {
			l.Flags |= unix.MS_REC
		}
		return l, nil
	}
	limit := os.Getpagesize() - 1
	if l.Data = join(p.params); len(l.Data) <= limit {
		return l, nil
	}
	l.Dir = shorten(p.params)
	if l.Data = join(p.params); len(l.Data) > limit {
		return Legacy{}, errs.InvalidArgument("cannot mount %s: its options take %d bytes, the kernel accepts %d", m.Type, len(l.Data), limit)
	}
	return l, nil
}

func join(params []param) string {
	parts := make([]string, len(params))
	for i, p := range params {
		parts[i] = p.key
		if !p.flag {
			parts[i] += "=" + p.value
		}
	}
	return strings.Join(parts, ",")
}

// shorten rewrites lowerdir relative to the deepest directory that all lower
// directories share, and returns that directory.
func shorten(params []param) string {
	for i, p := range params {
		if p.key != "lowerdir" {
			continue
		}
		lower := SplitLower(p.value)
		base := filepath.Dir(lower[0])
		for _, dir := range lower {
			for base != "/" && !strings.HasPrefix(dir, base+"/") {
				base = filepath.Dir(base)
			}
		}
		for j, dir := range lower {
			lower[j] = EscapeLower(strings.TrimPrefix(strings.TrimPrefix(dir, base), "/"))
		}
		params[i].value = strings.Join(lower, ":")
		return base
	}
	return ""
}
