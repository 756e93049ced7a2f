package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadLayout(t *testing.T) {
	v2root := t.TempDir()
	if err := os.WriteFile(filepath.Join(v2root, "cgroup.controllers"), []byte("hugetlb memory\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, mountinfo string
		mode            Mode
		where           map[string]string // controller → mount point, "" for none
	}{
		{
			name: "unified", mode: Unified,
			mountinfo: "31 23 0:28 / " + v2root + " rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n",
			where:     map[string]string{"memory": v2root, "devices": v2root, "freezer": v2root, "cpu": ""},
		}, {
			name: "legacy with co-mounted controllers at odd places", mode: Legacy,
			mountinfo: "32 31 0:29 / /cg\\040roups/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
				"33 31 0:31 /docker/abc /mnt/memory rw shared:1 master:2 - cgroup cgroup rw,xattr,memory\n" +
				"34 31 0:32 / /sys/fs/cgroup/systemd rw - cgroup systemd rw,xattr,name=systemd\n" +
				"35 31 0:33 / /proc rw - proc proc rw\n",
			where: map[string]string{"cpu": "/cg roups/cpu,cpuacct", "cpuacct": "/cg roups/cpu,cpuacct", "memory": "/mnt/memory", "name=systemd": "/sys/fs/cgroup/systemd", "pids": ""},
		}, {
			name: "hybrid: v2 holds what v1 has not", mode: Hybrid,
			mountinfo: "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,pids\n" +
				"33 31 0:30 / " + v2root + " rw - cgroup2 cgroup2 rw\n",
			where: map[string]string{"pids": "/sys/fs/cgroup/memory", "hugetlb": v2root, "devices": ""},
		}, {
			name: "v2 with only a named v1 hierarchy beside it", mode: Unified,
			mountinfo: "32 31 0:29 / /x rw - cgroup cgroup rw,name=elogind\n" +
				"33 31 0:30 / " + v2root + " rw - cgroup2 cgroup2 rw\n",
			where: map[string]string{"memory": v2root},
		}, {
			name: "the conventional of two mounts", mode: Legacy,
			mountinfo: "32 31 0:29 / /var/lib/x/memory rw - cgroup cgroup rw,memory\n" +
				"33 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			where: map[string]string{"memory": "/sys/fs/cgroup/memory"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l, err := readLayout(strings.NewReader(tc.mountinfo))
			if err != nil {
				t.Fatal(err)
			}
			if l.mode != tc.mode {
				t.Errorf("mode %v, want %v", l.mode, tc.mode)
			}
			for ctl, want := range tc.where {
				got := ""
				if h := l.find(ctl); h != nil {
					got = h.mount
				}
				if got != want {
					t.Errorf("%s is at %q, want %q", ctl, got, want)
				}
			}
		})
	}
}

func FuzzReadLayout(f *testing.F) {
	f.Add("32 31 0:29 / /sys/fs/cgroup/cpu\\134 rw - cgroup cgroup rw,cpu,cpuacct\n")
	f.Add("33 31 0:30 / /nowhere rw - cgroup2 cgroup2 rw\n")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := readLayout(strings.NewReader(s))
		if err == nil && l == nil {
			t.Fatal("neither layout nor error")
		}
	})
}

func TestNewRefusesTheRoot(t *testing.T) {
	for _, p := range []string{"", "/", "..", "/a/.."} {
		if err := New(p).Create(nil); err == nil {
			t.Errorf("path %q was accepted", p)
		}
	}
	if got := New("../../x").Path(); got != "/x" {
		t.Errorf("path that climbs is %q, want /x", got)
	}
}

func TestOwn(t *testing.T) {
	const text = "9:name=systemd:/\n4:memory:/a/b:c\n1:cpu,cpuacct:/d\n0::/e\n"
	for ctl, want := range map[string]string{"memory": "/a/b:c", "cpuacct": "/d", "": "/e", "pids": "/"} {
		if got := ownIn(text, ctl); got != want {
			t.Errorf("own cgroup of %q is %q, want %q", ctl, got, want)
		}
	}
}

func TestControllersSorted(t *testing.T) {
	c := Controllers()
	if len(c) == 0 {
		t.Skip("no cgroups mounted here")
	}
	if !slices.IsSorted(c) || slices.ContainsFunc(c, func(s string) bool { return strings.Contains(s, "=") }) {
		t.Errorf("controllers are %v", c)
	}
}
