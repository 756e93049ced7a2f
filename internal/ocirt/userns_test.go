package ocirt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// inUserNamespace gives a container a user namespace and its root to its root.
func inUserNamespace(t *testing.T, c *Container) {
	t.Helper()
	c.Spec.Linux.Namespaces = append(c.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings = maps, maps
	for _, o := range c.RootMounts[0].Options {
		if upper, ok := strings.CutPrefix(o, "upperdir="); ok {
			if err := os.Chown(upper, 100000, 100000); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestUserNamespace(t *testing.T) {
	cases := []struct{ name, script, want string }{
		{"root", "id -u; cat /proc/self/uid_map | tr -s ' '", "0\n 0 100000 65536"},
		{"devices", "echo x > /dev/null && stat -c %t:%T /dev/zero", "1:5"},
		{"files", "touch /x && stat -c %u /x", "0"},
		{"mounts", "for d in proc sys dev dev/pts dev/shm dev/mqueue sys/fs/cgroup; do grep -q \" /$d \" /proc/mounts || echo no $d; done", ""},
		{"capabilities", "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"},
		{"pid", "echo $$", "1"},
		{"hostname", "hostname", "box"},
		{"sysctl", "cat /proc/sys/net/ipv4/ip_forward", "1"},
		{"mask", "cat /proc/keys; ls /sys/firmware", ""},
		{"bind", "cat /mnt/secret", "secret"},
		{"user", "id -u", "1000"},
		{"oom", "cat /proc/self/oom_score_adj", "300"},
		{"idmap", "stat -c %u /mnt/secret", "0"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			c := newContainer(t, tc.script)
			inUserNamespace(t, c)
			switch tc.name {
			case "sysctl":
				c.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			case "user":
				c.Spec.Process.User.UID = 1000
			case "oom":
				adj := 300
				c.Spec.Process.OOMScoreAdj = &adj
			case "bind", "idmap":
				dir := t.TempDir() // its parent is closed to others
				writeFile(t, filepath.Join(dir, "secret"), "secret\n", 0o644)
				m := specs.Mount{Destination: "/mnt", Type: "bind", Source: dir, Options: []string{"rbind"}}
				if tc.name == "idmap" {
					m.Options = append(m.Options, "idmap")
				}
				c.Spec.Mounts = append(c.Spec.Mounts, m)
			}
			got, _ := run(t, c)
			if strings.TrimSpace(got) != strings.TrimSpace(tc.want) {
				t.Errorf("output:\n%s\nwant:\n%s", got, tc.want)
			}
		})
	}
	t.Run("exec", func(t *testing.T) {
		c := newContainer(t, "")
		inUserNamespace(t, c)
		p := background(t, c)
		proc := *c.Spec.Process
		proc.Args = []string{"sh", "-c", "id -u; readlink /proc/self/ns/user; grep CapEff /proc/self/status"}
		out, _, err := execIn(t, c, p, &proc)
		ns, _ := os.Readlink("/proc/" + itoa(int64(p.Pid)) + "/ns/user")
		if err != nil || out != "0\n"+ns+"\nCapEff:\t00000000a80425fb\n" {
			t.Errorf("output %q, error %v", out, err)
		}
		// A second container joins the first one's user namespace by its path.
		c2 := newContainer(t, "id -u; readlink /proc/self/ns/user")
		c2.Spec.Linux.Namespaces = append(c2.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: "/proc/" + itoa(int64(p.Pid)) + "/ns/user"})
		expect(t, c2, "0\n"+ns)
	})
	t.Run("terminal", func(t *testing.T) {
		c := newContainer(t, "tty; stat -c %u $(tty)")
		inUserNamespace(t, c)
		c.Spec.Process.Terminal = true
		out, _ := run(t, c)
		if got := strings.Fields(out); len(got) != 2 || got[0] != "/dev/pts/0" || got[1] != "0" {
			t.Errorf("output %q", out)
		}
	})
}

func TestIDMappedMount(t *testing.T) {
	c := newContainer(t, "stat -c %u:%g /mnt/f")
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "f"), "", 0o644)
	maps := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 4000, Size: 10}}
	c.Spec.Mounts = append(c.Spec.Mounts, specs.Mount{Destination: "/mnt", Source: dir, Options: []string{"bind", "idmap"}, UIDMappings: maps, GIDMappings: maps})
	expect(t, c, "4000:4000")
}
