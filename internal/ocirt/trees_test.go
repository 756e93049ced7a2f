package ocirt

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// dockerSpec gives a container what engines give most.
func dockerSpec(c *Container) {
	dropNamespace(c.Spec, specs.NetworkNamespace)
	c.Spec.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev", "relatime"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=64m"}},
	}
}

// sameAs normalises what a container says of itself: numbers of mounts and
// devices, their order, and names of the test.
var (
	mountIDs = regexp.MustCompile(`(?m)^(mnt )\d+ \d+ \d+:\d+ `)
	own      = regexp.MustCompile(`/\S*ocirt-test-\S*`)
)

func sameAs(c *Container, out string) string {
	lines := strings.Split(strings.ReplaceAll(out, c.ID, "ID"), "\n")
	n := 0
	for n < len(lines) && strings.HasPrefix(lines[n], "mnt ") {
		lines[n] = mountIDs.ReplaceAllString(lines[n], "$1")
		n++
	}
	slices.Sort(lines[:n])
	out = strings.Join(lines, "\n")
	return own.ReplaceAllString(out, "PATH")
}

// look prints what a container can see of its file systems, in order.
const look = `
sed 's/^/mnt /' /proc/self/mountinfo
ls -lR /dev | grep -v '^total' | sed 's/[A-Z][a-z][a-z] *[0-9]* *[0-9:]* / /'
ls -l /sys/fs/cgroup | sed 's/[A-Z][a-z][a-z] *[0-9]* *[0-9:]* / /'
for f in /proc/kcore /proc/keys /proc/timer_list /proc/latency_stats; do head -c 1 $f 2>&1 | wc -c; done
ls -A /proc/acpi /proc/asound /proc/scsi /sys/firmware 2>&1
echo x > /proc/sys/kernel/domainname; cat /proc/sys/kernel/domainname; mkdir /sys/fs/cgroup/pids/x; touch /sys/fs/cgroup/x
echo x > /dev/null && head -c 3 /dev/zero | wc -c; touch /dev/shm/x && ls /dev/shm; mknod /dev/x c 1 3; ls /dev/mqueue
ls -d /proc/[0-9]*; cat /proc/1/cgroup | sed 's/.*://' | sort -u; df -k /dev /dev/shm | awk '{print $2, $6}'
stat -c '%n %a %u %g %t %T' /dev/null /dev/pts/ptmx /dev/tty /proc /dev /dev/shm /sys/fs/cgroup; umount /proc/kcore; echo done
`

// A container whose trees were made ahead cannot be told from one whose are its
// own: there are the same mounts with the same options, and they are as empty or
// closed.
func TestTreesAreTheSame(t *testing.T) {
	for name, change := range map[string]func(*Container){
		"most": func(*Container) {},
		"devices": func(c *Container) {
			c.Spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229}}
		},
		"nothing masked":  func(c *Container) { c.Spec.Linux.MaskedPaths, c.Spec.Linux.ReadonlyPaths = nil, nil },
		"shm":             func(c *Container) { c.Spec.Mounts[6].Options[4] = "size=1m" },
		"writable cgroup": func(c *Container) { c.Spec.Mounts[4].Options[0], c.Spec.Mounts[3].Options[3] = "rw", "rw" },
		"read-only root":  func(c *Container) { c.Spec.Root = &specs.Root{Readonly: true} },
		"bind elsewhere": func(c *Container) {
			c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{Destination: "/mnt/x", Type: "bind", Source: "/usr", Options: []string{"rbind", "ro"}})
		},
		// Those have no trees, but a process that has left the host's mounts.
		"bind in /dev": func(c *Container) {
			c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{Destination: "/dev/y", Type: "bind", Source: "/dev/null", Options: []string{"bind"}})
		},
		"tmpfs as it comes": func(c *Container) { c.Spec.Mounts[6].Options = []string{"nosuid"} },
		"no mqueue":         func(c *Container) { c.Spec.Mounts = append(c.Spec.Mounts[:5:5], c.Spec.Mounts[6]) },
		"no cgroup":         func(c *Container) { c.Spec.Mounts = append(c.Spec.Mounts[:4:4], c.Spec.Mounts[5:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			alone := newContainer(t, look)
			dockerSpec(alone)
			change(alone)
			want, _ := run(t, alone)
			ahead := newContainer(t, look)
			dockerSpec(ahead)
			change(ahead)
			s := withSpare(t, ahead)
			pid := s.Pid()
			got, _ := run(t, ahead)
			if unix.Kill(pid, 0) == nil {
				t.Error("the spare's process was not used")
			}
			if got, want := sameAs(ahead, got), sameAs(alone, want); got != want || !strings.HasSuffix(got, "done\n") {
				t.Errorf("with trees made ahead:\n%s\nwithout:\n%s", got, want)
			}
		})
	}
}

// Trees of another kind than the container's are not used.
func TestOtherTrees(t *testing.T) {
	c := newContainer(t, "df -k /dev/shm | awk 'NR > 1 {print $2}'; cat /proc/keys | wc -c")
	dockerSpec(c)
	s, err := NewSpare(t.Context(), c.Base, "/"+c.ID+"-spare", c.Spec)
	if err != nil {
		t.Fatal(err)
	}
	c.Spare = func(string, *specs.Spec) *Spare { return s }
	c.Spec = defaultSpec(c.Spec.Process.Args[2])
	dockerSpec(c)
	c.Spec.Linux.CgroupsPath = "/" + c.ID
	c.Spec.Mounts[6].Options[4] = "size=2m"
	expect(t, c, "2048\n0")
}

// A terminal is opened through the container's own devpts.
func TestTerminalInSpare(t *testing.T) {
	c := newContainer(t, "tty; echo $(ls /dev/pts); ls -l /dev/console | cut -c1; echo x > /dev/console")
	dockerSpec(c)
	c.Spec.Process.Terminal = true
	withSpare(t, c)
	out, code := run(t, c)
	if want := "/dev/pts/0\r\n0 ptmx\r\nc\r\nx\r\n"; out != want || code != 0 {
		t.Errorf("exit status %d, %q, want %q", code, out, want)
	}
}
