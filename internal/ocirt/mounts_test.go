package ocirt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/mount"
)

// tree makes a directory on the host to be mounted: a file, a directory, and a
// tmpfs below it that the test unmounts again.
func tree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "file"), "content\n", 0o644)
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(sub, 0); err != nil {
			t.Error(err)
		}
	})
	writeFile(t, filepath.Join(sub, "inner"), "inner\n", 0o644)
	return dir
}

func TestMounts(t *testing.T) {
	cases := []struct {
		name   string
		mount  specs.Mount // source "TREE" is tree
		script string
		want   string
	}{
		{"bind", specs.Mount{Destination: "/mnt/x", Type: "bind", Source: "TREE", Options: []string{"bind"}},
			"cat /mnt/x/file; ls /mnt/x/sub; echo new > /mnt/x/new", "content"},
		{"rbind", specs.Mount{Destination: "/mnt/x", Type: "bind", Source: "TREE", Options: []string{"rbind"}},
			"cat /mnt/x/file /mnt/x/sub/inner", "content\ninner"},
		{"type bind without options is recursive", specs.Mount{Destination: "/mnt/x", Type: "bind", Source: "TREE"},
			"cat /mnt/x/sub/inner", "inner"},
		{"read-only", specs.Mount{Destination: "/mnt", Type: "none", Source: "TREE", Options: []string{"rbind", "ro"}},
			"touch /mnt/a 2>&1; touch /mnt/sub/a && echo sub is writable", "touch: /mnt/a: Read-only file system\nsub is writable"},
		{"recursively read-only", specs.Mount{Destination: "/mnt", Type: "none", Source: "TREE", Options: []string{"rbind", "rro"}},
			"touch /mnt/a 2>&1; touch /mnt/sub/a 2>&1", "touch: /mnt/a: Read-only file system\ntouch: /mnt/sub/a: Read-only file system"},
		{"file onto nothing", specs.Mount{Destination: "/some/where/f", Type: "bind", Source: "TREE/file", Options: []string{"bind"}},
			"cat /some/where/f; stat -c %F /some/where/f", "content\nregular file"},
		{"flags", specs.Mount{Destination: "/mnt", Source: "TREE", Options: []string{"bind", "nosuid", "nodev", "noexec", "noatime", "nodiratime"}},
			"grep ' /mnt ' /proc/self/mountinfo | cut -d' ' -f6", "rw,nosuid,nodev,noexec,noatime,nodiratime"},
		{"private by default", specs.Mount{Destination: "/mnt", Source: "TREE", Options: []string{"bind", "rprivate"}},
			"grep ' /mnt ' /proc/self/mountinfo | grep -c -e shared: -e master:", "0"},
		{"tmpfs", specs.Mount{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m", "mode=1750", "nosuid", "noexec"}},
			"stat -c %a /scratch; grep /scratch /proc/mounts", "1750\ntmpfs /scratch tmpfs rw,nosuid,noexec,relatime,size=1024k,mode=1750 0 0"},
		{"tmpfs keeps the mode", specs.Mount{Destination: "/home/joe", Type: "tmpfs", Source: "tmpfs"}, "stat -c %a /home/joe", "705"},
		{"tmpfs where nothing was", specs.Mount{Destination: "/home/new", Type: "tmpfs", Source: "tmpfs"}, "stat -c %a /home/new", "1777"},
		{"read-only tmpfs", specs.Mount{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}}, "touch /scratch/x 2>&1", "touch: /scratch/x: Read-only file system"},
		{"tmpcopyup", specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}},
			"grep -c joe /etc/passwd; readlink /etc/link; stat -c '%a %u:%g %n' /etc/d /etc/d/f; touch /etc/new && grep -c ' /etc tmpfs' /proc/mounts", "1\npasswd\n750 5:6 /etc/d\n4711 7:8 /etc/d/f\n1"},
		{"flags of a file system of its own", specs.Mount{Destination: "/mnt", Type: "overlay", Source: "overlay", Options: []string{"lowerdir=TREE:TREE/sub", "nosuid", "nodev", "noexec"}},
			"grep ' /mnt ' /proc/self/mountinfo | cut -d' ' -f6; cat /mnt/inner", "rw,nosuid,nodev,noexec,relatime\ninner"},
		{"part of a file system", specs.Mount{Destination: "/mnt/one/two", Type: "overlay", Source: "overlay", Options: []string{"lowerdir=TREE:TREE/sub", "X-mount.subdir=inner", "ro"}},
			"cat /mnt/one/two; grep ' /mnt/one/two ' /proc/self/mountinfo | cut -d' ' -f6", "inner\nro,relatime"},
		{"target is a symlink out", specs.Mount{Destination: "/esc/dir", Source: "TREE", Options: []string{"bind"}}, "cat /dir/file; cat /esc/dir/file", "content\ncontent"},
		{"target below a dangling link", specs.Mount{Destination: "/dangling/x", Source: "TREE", Options: []string{"bind"}}, "cat /run/made/x/file", "content"},
		{"remount", specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Options: []string{"remount", "ro"}}, "touch /dev/shm/x 2>&1", "touch: /dev/shm/x: Read-only file system"},
		{"sysfs is read-only", specs.Mount{Destination: "/x", Type: "tmpfs"}, "mkdir /sys/x 2>&1", "mkdir: can't create directory '/sys/x': Read-only file system"},
		{"cgroup v2", specs.Mount{Destination: "/cg", Type: "cgroup2", Source: "cgroup", Options: []string{"ro"}}, "test -e /cg/cgroup.procs && grep ' /cg ' /proc/mounts | cut -d' ' -f1-3", "cgroup /cg cgroup2"},
		{"proc bind of a file", specs.Mount{Destination: "/proc/uptime", Source: "TREE/file", Options: []string{"bind"}}, "cat /proc/uptime", "content"},
		{"overlay", specs.Mount{Destination: "/o", Type: "overlay", Source: "overlay", Options: []string{"lowerdir=TREE:TREE/sub"}}, "cat /o/file /o/inner", "content\ninner"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := newContainer(t, tc.script)
			prepareRoot(t, filepath.Join(c.Bundle, "rootfs"))
			dir := tree(t)
			tc.mount.Source = strings.ReplaceAll(tc.mount.Source, "TREE", dir)
			for i, o := range tc.mount.Options {
				tc.mount.Options[i] = strings.ReplaceAll(o, "TREE", dir)
			}
			c.Spec.Mounts = append(c.Spec.Mounts, tc.mount)
			got, _ := run(t, c)
			if strings.TrimSpace(got) != tc.want {
				t.Errorf("output:\n%s\nwant:\n%s", got, tc.want)
			}
		})
	}
}

// prepareRoot adds to a root what the mounts are aimed at.
func prepareRoot(t *testing.T, root string) {
	t.Helper()
	for link, target := range map[string]string{"esc": "../../../../../../..", "dangling": "/run/made", "etc/link": "passwd"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, "etc/d"), 0o750); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(root, "etc/d/f"), "x", 0o711)
	for _, e := range []error{
		os.Chown(filepath.Join(root, "etc/d"), 5, 6),
		os.Chown(filepath.Join(root, "etc/d/f"), 7, 8),
		os.Chmod(filepath.Join(root, "etc/d/f"), 0o711|os.ModeSetuid),
		os.Chmod(filepath.Join(root, "home/joe"), 0o705),
	} {
		if e != nil {
			t.Fatal(e)
		}
	}
}

func TestRoot(t *testing.T) {
	cases := []struct {
		name, script string
		set          func(*Container)
		want         string
	}{
		{"read-only", "touch /x 2>&1; touch /dev/shm/x && echo shm is writable", func(c *Container) { c.Spec.Root.Readonly = true }, "touch: /x: Read-only file system\nshm is writable"},
		{"bundle", "cat /etc/passwd | head -n1; touch /written", func(c *Container) {
			c.RootMounts, c.Spec.Root.Path = nil, "rootfs"
		}, "root:x:0:0::/root:/bin/sh"},
		{"no pivot", "ls / | head -n1; cat /proc/1/comm; true", func(c *Container) { c.NoPivot = true }, "bin\nsh"},
		{"mknod list", "stat -c '%n %t:%T %a %u:%g' /dev/foo /dev/sub/bar", func(c *Container) {
			mode, uid, gid := os.FileMode(0o640), uint32(3), uint32(4)
			c.Spec.Linux.Devices = []specs.LinuxDevice{
				{Path: "/dev/foo", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &uid, GID: &gid},
				{Path: "/dev/sub/bar", Type: "b", Major: 7, Minor: 0},
			}
		}, "/dev/foo 1:3 640 3:4\n/dev/sub/bar 7:0 666 0:0"},
		{"cgroup mount", "ls /sys/fs/cgroup | grep -c pids; touch /sys/fs/cgroup/pids/x 2>&1; mkdir /sys/fs/cgroup/pids/x 2>&1; grep -c $$ /sys/fs/cgroup/pids/cgroup.procs", nil,
			"1\ntouch: /sys/fs/cgroup/pids/x: Read-only file system\nmkdir: can't create directory '/sys/fs/cgroup/pids/x': Read-only file system\n1"},
		{"sysctl", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni /proc/sys/net/ipv4/conf/lo/forwarding", func(c *Container) {
			c.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmni": "77", "net/ipv4/conf/lo/forwarding": "1"}
		}, "1\n77\n1"},
		{"extra files", "cat <&3; cat <&4", func(c *Container) {
			for _, n := range []string{"a", "b"} {
				f, _ := os.CreateTemp(c.Bundle, n)
				_, _ = f.WriteString(n + "\n")
				_, _ = f.Seek(0, 0)
				c.ExtraFiles = append(c.ExtraFiles, f)
			}
		}, "a\nb"},
		{"time namespace", "test $(cut -d. -f1 /proc/uptime) -gt 1000000 && echo old", func(c *Container) {
			c.Spec.Linux.Namespaces = append(c.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
			c.Spec.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000}, "monotonic": {Secs: 5}}
		}, "old"},
		{"joined namespaces", "hostname; test -d /proc/3 && echo 1", func(c *Container) {
			c.Spec.Hostname = ""
			for i := range c.Spec.Linux.Namespaces {
				switch n := &c.Spec.Linux.Namespaces[i]; n.Type {
				case specs.PIDNamespace:
					n.Path = "/proc/self/ns/pid"
				case specs.UTSNamespace:
					n.Path = "/proc/self/ns/uts"
				case specs.IPCNamespace:
					n.Path = "/proc/self/ns/ipc"
				case specs.NetworkNamespace:
					n.Path = "/proc/self/ns/net"
				}
			}
		}, hostname() + "\n1"},
		{"no namespaces at all", "test $(readlink /proc/self/ns/mnt) = " + link("mnt") + " && ls / | head -n1; ls /dev | grep -c null; cat /proc/keys; f=/proc/sys/kernel/domainname; cat $f > $f", func(c *Container) {
			c.Spec.Hostname = ""
			c.Spec.Linux.Namespaces = nil
		}, "bin\n1\nsh: can't create /proc/sys/kernel/domainname: Read-only file system"},
		{"no namespaces but mount", "test $(readlink /proc/self/ns/net) = " + link("net") + " && echo host", func(c *Container) {
			c.Spec.Hostname = ""
			c.Spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
		}, "host"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := newContainer(t, tc.script)
			if tc.set != nil {
				tc.set(c)
			}
			out, _ := run(t, c)
			for _, f := range c.ExtraFiles {
				f.Close()
			}
			if strings.TrimSpace(out) != tc.want {
				t.Errorf("output:\n%s\nwant:\n%s", out, tc.want)
			}
		})
	}
}

func hostname() string { h, _ := os.Hostname(); return h }
func link(ns string) string {
	l, _ := os.Readlink("/proc/self/ns/" + ns)
	return "'" + l + "'"
}

// TestJoinContainer puts a second container into the namespaces of a first.
func TestJoinContainer(t *testing.T) {
	first := newContainer(t, "")
	p := background(t, first)
	c := newContainer(t, "hostname; cat /proc/1/comm; echo $$ | grep -vc '^1$'")
	c.Spec.Hostname = ""
	for i := range c.Spec.Linux.Namespaces {
		n := &c.Spec.Linux.Namespaces[i]
		if n.Type != specs.MountNamespace && n.Type != specs.CgroupNamespace {
			n.Path = filepath.Join("/proc", itoa(int64(p.Pid)), "ns", procName(string(n.Type)))
		}
	}
	expect(t, c, "box\nsleep\n1")
}

// TestNetNS gives the namespace as a descriptor.
func TestNetNS(t *testing.T) {
	p := background(t, newContainer(t, ""))
	path := filepath.Join("/proc", itoa(int64(p.Pid)), "ns/net")
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, _ := os.Readlink(path)
	c := newContainer(t, "readlink /proc/self/ns/net")
	c.NetNS = f
	expect(t, c, want)
}

// TestPropagation mounts on the host below a shared mount, and in containers.
func TestPropagation(t *testing.T) {
	host := t.TempDir()
	if err := unix.Mount("tmpfs", host, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for unix.Unmount(filepath.Join(host, "d"), 0) == nil {
		}
		if err := unix.Unmount(host, 0); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", host, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(host, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		option, root string
		reaches      bool
		idmap        bool
	}{{"rshared", "shared", true, false}, {"rslave", "slave", false, false}, {"rprivate", "private", false, false}, {"", "", false, false}, {"", "", false, true}} {
		t.Run(fmt.Sprint(tc), func(t *testing.T) {
			c := newContainer(t, "mount -t tmpfs tmpfs /mnt/d && touch /mnt/d/x && echo mounted; grep -c ' / / .*shared' /proc/self/mountinfo")
			l := append(c.Spec.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
			c.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: l, Effective: l, Permitted: l}
			m := specs.Mount{Destination: "/mnt", Type: "bind", Source: host, Options: []string{"rbind"}}
			if tc.option != "" {
				m.Options = append(m.Options, tc.option)
			}
			if tc.idmap { // made in the parent, where mounts still propagate
				m.UIDMappings = []specs.LinuxIDMapping{{Size: 65536}}
				m.GIDMappings = m.UIDMappings
			}
			c.Spec.Mounts = append(c.Spec.Mounts, m)
			c.Spec.Linux.RootfsPropagation = tc.root
			out, _ := run(t, c)
			shared := "0"
			if tc.root == "shared" {
				shared = "1"
			}
			if strings.TrimSpace(out) != "mounted\n"+shared {
				t.Errorf("output %q", out)
			}
			_, err := os.Stat(filepath.Join(host, "d/x"))
			if (err == nil) != tc.reaches {
				t.Errorf("the container's mount reached the host: %v, want %v", err == nil, tc.reaches)
			}
			_ = unix.Unmount(filepath.Join(host, "d"), 0)
		})
	}
}

// A container writes nothing by itself: where the disk is full it starts without
// the link to its mounts.
func TestMtab(t *testing.T) {
	c := newContainer(t, "readlink /etc/mtab")
	c.Mtab = true
	expect(t, c, "/proc/mounts")

	root := newRoot(t)
	etc := filepath.Join(root, "etc")
	if err := unix.Mount("tmpfs", etc, "tmpfs", 0, "nr_inodes=1"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(etc, 0)
	full := newContainer(t, "ls /etc; echo runs")
	full.RootMounts, full.Mtab = []mount.Mount{{Type: "bind", Source: root, Options: []string{"rbind"}}}, true
	expect(t, full, "runs")
}
