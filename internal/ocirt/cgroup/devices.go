package cgroup

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// perm is a set of accesses, as bits. The values are those of the kernel's
// BPF_DEVCG_ACC_*.
type perm uint8

const (
	permMknod perm = 1 << iota
	permRead
	permWrite
	permAll = permMknod | permRead | permWrite
)

func (p perm) String() string {
	var b strings.Builder
	for _, c := range []struct {
		bit  perm
		name byte
	}{{permRead, 'r'}, {permWrite, 'w'}, {permMknod, 'm'}} {
		if p&c.bit != 0 {
			b.WriteByte(c.name)
		}
	}
	return b.String()
}

// device names one device or several: wild stands for every number.
type device struct {
	kind         byte // 'b' or 'c'; 'a' only in a rule that covers everything
	major, minor int64
}

const wild = -1

func (d device) String() string {
	num := func(n int64) string {
		if n == wild {
			return "*"
		}
		return itoa(n)
	}
	return fmt.Sprintf("%c %s:%s", d.kind, num(d.major), num(d.minor))
}

// covers says that every device of o is one of d.
func (d device) covers(o device) bool {
	return d.kind == o.kind && (d.major == wild || d.major == o.major) && (d.minor == wild || d.minor == o.minor)
}

// meets says that some device is of both.
func (d device) meets(o device) bool {
	same := func(a, b int64) bool { return a == wild || b == wild || a == b }
	return d.kind == o.kind && same(d.major, o.major) && same(d.minor, o.minor)
}

// rule is one specs.LinuxDeviceCgroup, checked. Later rules win.
type rule struct {
	device
	allow bool
	perm  perm
}

// all says that the rule speaks of every access to every device.
func (r rule) all() bool { return r.kind == 'a' }

// defaultDevices are those every container may use, config-linux.md, "Default
// Devices", with the terminals behind /dev/ptmx. Making a node of any device is
// harmless as long as it cannot be opened. That of /dev/net/tun, which every
// runtime allows, is for programs that make their tunnels with CAP_NET_ADMIN.
func defaultDevices() []rule {
	allow := func(kind byte, major, minor int64, p perm) rule {
		return rule{device{kind, major, minor}, true, p}
	}
	return []rule{
		allow('c', wild, wild, permMknod),
		allow('b', wild, wild, permMknod),
		allow('c', 1, 3, permAll),      // null
		allow('c', 1, 5, permAll),      // zero
		allow('c', 1, 7, permAll),      // full
		allow('c', 1, 8, permAll),      // random
		allow('c', 1, 9, permAll),      // urandom
		allow('c', 5, 0, permAll),      // tty
		allow('c', 5, 1, permAll),      // console
		allow('c', 5, 2, permAll),      // ptmx
		allow('c', 136, wild, permAll), // pts/*
		allow('c', 10, 200, permAll),   // net/tun
	}
}

// parseRules checks the rules of a spec. The result starts from "deny all".
func parseRules(list []specs.LinuxDeviceCgroup) ([]rule, error) {
	rules := []rule{{device: device{'a', wild, wild}, perm: permAll}}
	for _, d := range list {
		r, err := parseRule(d)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r...)
	}
	return append(rules, defaultDevices()...), nil
}

func parseRule(d specs.LinuxDeviceCgroup) ([]rule, error) {
	r := rule{device: device{major: wild, minor: wild}, allow: d.Allow}
	for _, c := range []byte(d.Access) {
		switch c {
		case 'r':
			r.perm |= permRead
		case 'w':
			r.perm |= permWrite
		case 'm':
			r.perm |= permMknod
		default:
			return nil, errs.InvalidArgument("invalid device access %q: must be some of r, w and m", d.Access)
		}
	}
	for _, n := range []struct {
		from *int64
		to   *int64
	}{{d.Major, &r.major}, {d.Minor, &r.minor}} {
		if n.from == nil {
			continue
		}
		if *n.from < wild || *n.from > 1<<31-1 {
			return nil, errs.InvalidArgument("invalid device number %d", *n.from)
		}
		*n.to = *n.from
	}
	switch d.Type {
	case "c", "u":
		r.kind = 'c'
	case "b":
		r.kind = 'b'
	case "", "a":
		if r.perm == 0 {
			r.perm = permAll
		}
		if r.major == wild && r.minor == wild && r.perm == permAll {
			r.kind = 'a'
			break
		}
		b, c := r, r
		b.kind, c.kind = 'b', 'c'
		return []rule{b, c}, nil
	default:
		return nil, errs.InvalidArgument("invalid device type %q: must be a, b, c or u", d.Type)
	}
	if r.perm == 0 {
		return nil, nil
	}
	return []rule{r}, nil
}

// applyDevices makes the rules the whole truth about the cgroup. A machine that
// cannot restrict devices is an error unless the rules allow everything: a
// container with CAP_MKNOD would else have the disks of the host. In a user
// namespace nobody may, and there device nodes open nothing anyway.
func (c *Cgroup) applyDevices(list []specs.LinuxDeviceCgroup, fresh bool) error {
	rules, err := parseRules(list)
	if err != nil {
		return err
	}
	want, wantErr := canonical(rules)
	open := wantErr == nil && want.allow && want.empty()
	dir, v2 := c.dir("devices")
	switch {
	case dir == "" && open:
		return nil
	case dir == "":
		if inUserNamespace() {
			return nil
		}
		return errs.NotImplemented("cannot restrict devices: this machine has no devices controller")
	case v2:
		if fresh && open {
			return nil
		}
		err = setDeviceProgram(dir, deviceProgram(rules))
	case wantErr != nil:
		return wantErr
	default:
		err = c.devicesV1(dir, want)
	}
	if err != nil && errors.Is(err, unix.EPERM) && inUserNamespace() {
		return nil
	}
	return err
}

// inUserNamespace says that this process does not run in the initial user
// namespace.
func inUserNamespace() bool {
	s, err := readFile("/proc/self/uid_map")
	return err == nil && !slices.Equal(strings.Fields(s), []string{"0", "0", "4294967295"})
}

// deviceSet is what v1 can express: a default and exceptions to it.
type deviceSet struct {
	allow  bool
	except map[device]perm
	order  []device // the exceptions as they came: the kernel lists them so
}

// add makes an exception.
func (s *deviceSet) add(d device, p perm) {
	if _, ok := s.except[d]; !ok {
		s.order = append(s.order, d)
	}
	s.except[d] |= p
}

// canonical reduces rules, in which later ones win, to what v1 can express. It
// fails where v1 would silently allow more than the rules do: v1 cannot take one
// device out of a wildcard.
func canonical(rules []rule) (*deviceSet, error) {
	s := &deviceSet{except: map[device]perm{}}
	for _, r := range rules {
		switch {
		case r.all():
			s = &deviceSet{allow: r.allow, except: map[device]perm{}}
		case r.allow != s.allow:
			s.add(r.device, r.perm)
		default:
			for d, p := range s.except {
				if p&r.perm == 0 || !r.device.meets(d) {
					continue
				}
				if !r.device.covers(d) {
					return nil, errs.InvalidArgument("cannot set device rule %q: an earlier rule for %q covers more than it, and cgroup v1 cannot take a device out of a wildcard", r.device, d)
				}
				s.except[d] = p &^ r.perm
			}
		}
	}
	return s, nil
}

// empty says that there are no exceptions.
func (s *deviceSet) empty() bool {
	for _, p := range s.except {
		if p != 0 {
			return false
		}
	}
	return true
}

// parseDeviceList reads devices.list. Of a cgroup that allows everything the
// kernel does not show the exceptions.
func parseDeviceList(s string) *deviceSet {
	set := &deviceSet{except: map[device]perm{}}
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) != 3 || len(f[0]) != 1 {
			continue
		}
		if f[0] == "a" {
			return &deviceSet{allow: true}
		}
		d := device{kind: f[0][0], major: wild, minor: wild}
		major, minor, _ := strings.Cut(f[1], ":")
		if n, err := parseUint(major); err == nil && major != "*" {
			d.major = int64(n)
		}
		if n, err := parseUint(minor); err == nil && minor != "*" {
			d.minor = int64(n)
		}
		var p perm
		for _, c := range f[2] {
			switch c {
			case 'r':
				p |= permRead
			case 'w':
				p |= permWrite
			case 'm':
				p |= permMknod
			}
		}
		set.add(d, p)
	}
	return set
}

// devicesV1 brings the cgroup from what it allows now to what it should, without
// ever denying in between what both allow.
func (c *Cgroup) devicesV1(dir string, want *deviceSet) error {
	s, err := readFile(filepath.Join(dir, "devices.list"))
	if err != nil {
		return fmt.Errorf("cannot read the device rules: %w", err)
	}
	have := parseDeviceList(s)
	if have.allow && want.allow && want.empty() {
		return nil
	}
	if want.allow || have.allow {
		file := "devices.deny"
		if want.allow {
			file = "devices.allow"
		}
		if err := c.put("devices", file, "a"); err != nil {
			return err
		}
		have = &deviceSet{allow: want.allow}
	}
	add, remove := "devices.allow", "devices.deny"
	if want.allow {
		add, remove = remove, add
	}
	if err := c.putMissing(add, want, have); err != nil {
		return err
	}
	return c.putMissing(remove, have, want)
}

// putMissing writes to file the exceptions a has and b has not. The kernel takes
// one with each write.
func (c *Cgroup) putMissing(file string, a, b *deviceSet) error {
	var missing []string
	for _, d := range a.order {
		if p := a.except[d] &^ b.except[d]; p != 0 {
			missing = append(missing, d.String()+" "+p.String())
		}
	}
	if len(missing) == 0 {
		return nil
	}
	dir, _ := c.dir("devices")
	w, err := openControl(filepath.Join(dir, file))
	if err != nil {
		return refused(err, "devices", file, missing[0])
	}
	defer w.close()
	for _, value := range missing {
		if err := w.write(value); err != nil {
			return refused(err, "devices", file, value)
		}
	}
	return nil
}
