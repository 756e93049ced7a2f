package ocispec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func build(t *testing.T, change func(*Input)) *specs.Spec {
	t.Helper()
	s, err := tryBuild(change)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryBuild(change func(*Input)) (*specs.Spec, error) {
	in := &Input{
		ID: "id", Args: []string{"sh"}, Config: &api.Config{}, Hostname: "box", OwnNetwork: true, CgroupPath: "/gantry/id",
		HostConfig: &api.HostConfig{
			NetworkMode: "bridge", IpcMode: "private", CgroupnsMode: "private", ShmSize: 64 << 20,
			MaskedPaths: MaskedPaths(), ReadonlyPaths: ReadonlyPaths(),
		},
	}
	if change != nil {
		change(in)
	}
	return Build(in)
}

func find(s *specs.Spec, destination string) *specs.Mount {
	for i := range s.Mounts {
		if s.Mounts[i].Destination == destination {
			return &s.Mounts[i]
		}
	}
	return nil
}

// The defaults are what stands between a container and the host.
func TestDefaultsAreStrict(t *testing.T) {
	s := build(t, nil)
	want := []string{"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT"}
	got := slices.Sorted(slices.Values(s.Process.Capabilities.Bounding))
	if !slices.Equal(got, want) {
		t.Errorf("capabilities: %v", got)
	}
	if c := s.Process.Capabilities; len(c.Inheritable) != 0 || len(c.Ambient) != 0 {
		t.Errorf("inheritable %v, ambient %v", c.Inheritable, c.Ambient)
	}
	if s.Linux.Seccomp == nil || s.Linux.Seccomp.DefaultAction != specs.ActErrno {
		t.Errorf("seccomp: %+v", s.Linux.Seccomp)
	}
	for _, path := range []string{"/proc/kcore", "/sys/firmware", "/proc/keys", "/sys/devices/virtual/powercap"} {
		if !slices.Contains(s.Linux.MaskedPaths, path) {
			t.Errorf("%s is not masked", path)
		}
	}
	if !slices.Contains(find(s, "/sys").Options, "ro") || !slices.Contains(find(s, "/sys/fs/cgroup").Options, "ro") {
		t.Error("/sys is writable")
	}
	if first := s.Linux.Resources.Devices[0]; first.Allow || first.Access != "rwm" || first.Type != "" {
		t.Errorf("devices are not denied first: %+v", first)
	}
	kinds := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range s.Linux.Namespaces {
		kinds[ns.Type] = true
	}
	for _, kind := range []specs.LinuxNamespaceType{"mount", "uts", "pid", "ipc", "network", "cgroup"} {
		if !kinds[kind] {
			t.Errorf("no new %s namespace", kind)
		}
	}
}

func TestPrivilegedHasEverything(t *testing.T) {
	s := build(t, func(in *Input) { in.HostConfig.Privileged = true })
	if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths) != 0 || len(s.Linux.ReadonlyPaths) != 0 {
		t.Error("a privileged container is confined")
	}
	if r := s.Linux.Resources.Devices; len(r) != 1 || !r[0].Allow {
		t.Errorf("device rules: %+v", r)
	}
	if !slices.Contains(find(s, "/sys").Options, "rw") {
		t.Error("/sys is read-only")
	}
	if !slices.Contains(s.Process.Capabilities.Effective, "CAP_SYS_ADMIN") {
		t.Error("no CAP_SYS_ADMIN")
	}
}

func TestCapabilities(t *testing.T) {
	for _, test := range []struct {
		add, drop  []string
		has, hasNo string
	}{
		{[]string{"sys_ptrace"}, nil, "CAP_SYS_PTRACE", "CAP_SYS_ADMIN"},
		{[]string{"CAP_NET_ADMIN"}, []string{"all"}, "CAP_NET_ADMIN", "CAP_CHOWN"},
		{[]string{"ALL"}, []string{"MKNOD"}, "CAP_SYS_ADMIN", "CAP_MKNOD"},
		{nil, []string{"chown"}, "CAP_KILL", "CAP_CHOWN"},
	} {
		got, err := Capabilities(test.add, test.drop, false)
		if err != nil || !slices.Contains(got, test.has) || slices.Contains(got, test.hasNo) {
			t.Errorf("add %v drop %v: %v %v", test.add, test.drop, got, err)
		}
	}
	if err := ValidateCapabilities([]string{"CAP_NONSENSE"}, nil); err == nil {
		t.Error("CAP_NONSENSE is no capability")
	}
}

func TestMounts(t *testing.T) {
	s := build(t, func(in *Input) {
		in.Mounts = []Mount{
			{Type: mount.TypeBind, Source: "/b", Destination: "/a/b/c", RW: true},
			{Type: mount.TypeBind, Source: "/a", Destination: "/a", Propagation: mount.PropagationRShared, RW: true},
			{Type: mount.TypeBind, Source: "/r", Destination: "/r"},
			{Type: mount.TypeBind, Source: "/n", Destination: "/n", Bind: mount.BindOptions{ReadOnlyNonRecursive: true}},
			{Type: mount.TypeTmpfs, Destination: "/t", RW: true, Tmpfs: mount.TmpfsOptions{SizeBytes: 1 << 20, Mode: 0o700}},
			{Type: mount.TypeBind, Source: "/shm", Destination: "/dev/shm", RW: true},
		}
		in.HostConfig.Tmpfs = map[string]string{"/run": "size=1m,exec"}
	})
	if find(s, "/dev/shm").Source != "/shm" {
		t.Error("the user's /dev/shm lost against ours")
	}
	if o := find(s, "/r").Options; !slices.Contains(o, "rro") {
		t.Errorf("/r: %v", o)
	}
	if o := find(s, "/n").Options; !slices.Contains(o, "ro") || slices.Contains(o, "rro") {
		t.Errorf("/n: %v", o)
	}
	if o := strings.Join(find(s, "/t").Options, " "); !strings.Contains(o, "size=1048576 mode=700") || !strings.Contains(o, "nosuid") {
		t.Errorf("/t: %v", o)
	}
	if s.Linux.RootfsPropagation != "shared" {
		t.Errorf("root propagation %q", s.Linux.RootfsPropagation)
	}
	at := func(d string) int {
		return slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == d })
	}
	if at("/a") > at("/a/b/c") {
		t.Error("a mount comes before its parent")
	}
}

func TestDevices(t *testing.T) {
	s := build(t, func(in *Input) {
		in.HostConfig.Devices = []api.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/nix", CgroupPermissions: "r"}}
		in.HostConfig.DeviceCgroupRules = []string{"c 42:* rw"}
	})
	if d := s.Linux.Devices; len(d) != 1 || d[0].Path != "/dev/nix" || d[0].Major != 1 || d[0].Minor != 3 {
		t.Errorf("devices: %+v", d)
	}
	rules := s.Linux.Resources.Devices
	last := rules[len(rules)-1]
	if *last.Major != 42 || last.Minor != nil || last.Access != "rw" {
		t.Errorf("rule: %+v", last)
	}
	for _, bad := range []string{"", "x 1:2 r", "c 1 r", "c 1:2 q", "c 1:2:3 r", "c a:1 r", "c 1:2"} {
		if ValidateDeviceRule(bad) == nil {
			t.Errorf("%q was allowed", bad)
		}
	}
	for _, bad := range []string{"/dev/there-is-none", "/etc/hostname"} {
		_, err := tryBuild(func(in *Input) { in.HostConfig.Devices = []api.DeviceMapping{{PathOnHost: bad}} })
		if err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestCDIDevices(t *testing.T) {
	_, err := tryBuild(func(in *Input) {
		in.HostConfig.DeviceRequests = []api.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"example.com/none=0"}}}
	})
	if err == nil || !strings.Contains(err.Error(), "example.com/none=0") {
		t.Errorf("an unknown CDI device: %v", err)
	}
}

func TestResources(t *testing.T) {
	r, err := UpdatedResources(&api.HostConfig{Resources: api.Resources{NanoCPUs: 1_500_000_000, Memory: 64 << 20, MemorySwap: -1, PidsLimit: new(int64)}})
	if err != nil {
		t.Fatal(err)
	}
	if *r.CPU.Quota != 150_000 || *r.CPU.Period != 100_000 || *r.Memory.Limit != 64<<20 || *r.Memory.Swap != -1 || *r.Pids.Limit != -1 {
		t.Errorf("cpu %+v memory %+v pids %+v", r.CPU, r.Memory, r.Pids)
	}
	if empty, err := UpdatedResources(&api.HostConfig{}); err != nil || empty.CPU != nil || empty.Memory != nil || empty.BlockIO != nil || empty.Pids != nil {
		t.Errorf("no limits became %+v %v", empty, err)
	}
}

func TestSecurityOptions(t *testing.T) {
	profile := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`
	s := build(t, func(in *Input) { in.HostConfig.SecurityOpt = []string{"no-new-privileges", "seccomp=" + profile} })
	if !s.Process.NoNewPrivileges || s.Linux.Seccomp.DefaultAction != specs.ActAllow {
		t.Errorf("nnp %v seccomp %+v", s.Process.NoNewPrivileges, s.Linux.Seccomp)
	}
	file := filepath.Join(t.TempDir(), "profile.json")
	os.WriteFile(file, []byte(profile), 0o600)
	s = build(t, func(in *Input) { in.SeccompProfile = file })
	if s.Linux.Seccomp.DefaultAction != specs.ActAllow {
		t.Error("the engine's profile was not used")
	}
	s = build(t, func(in *Input) { in.HostConfig.SecurityOpt = []string{"seccomp=unconfined", "systempaths=unconfined"} })
	if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths) != 0 {
		t.Error("unconfined is confined")
	}
	for _, bad := range []string{"nonsense", "seccomp={", "no-new-privileges=perhaps", "x=y", "systempaths=confined"} {
		if ValidateSecurityOpt([]string{bad}) == nil {
			t.Errorf("%q was allowed", bad)
		}
	}
}

func TestUsers(t *testing.T) {
	passwd := []byte("root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n")
	group := []byte("root:x:0:\nwww:x:34:\nextra:x:50:web\nadmin:x:60:root\n")
	for _, test := range []struct {
		spec   string
		more   []string
		uid    uint32
		gid    uint32
		groups []uint32
		home   string
	}{
		{"", nil, 0, 0, []uint32{0, 60}, "/root"},
		{"web", nil, 33, 34, []uint32{34, 50}, "/srv"},
		{"web:extra", nil, 33, 50, []uint32{50}, "/srv"},
		{"33", nil, 33, 34, []uint32{34, 50}, "/srv"},
		{"1000:1001", nil, 1000, 1001, []uint32{1001}, "/"},
		{"web", []string{"admin", "70"}, 33, 34, []uint32{34, 50, 60, 70}, "/srv"},
	} {
		u, err := ResolveUser(test.spec, passwd, group, test.more)
		if err != nil {
			t.Errorf("%q: %v", test.spec, err)
			continue
		}
		slices.Sort(u.Groups)
		if u.UID != test.uid || u.GID != test.gid || !slices.Equal(u.Groups, test.groups) || u.Home != test.home {
			t.Errorf("%q: %+v", test.spec, u)
		}
	}
	if _, err := ResolveUser("nobody-there", passwd, group, nil); err == nil {
		t.Error("an unknown user was found")
	}
	if u, err := ResolveUser("5", nil, nil, nil); err != nil || u.UID != 5 {
		t.Errorf("an image without /etc/passwd: %+v %v", u, err)
	}
}

func TestEnvironment(t *testing.T) {
	s := build(t, func(in *Input) {
		in.Config.Env, in.Config.Tty, in.User.Home = []string{"PATH=/mine", "A=b=c", "TERM"}, true, "/root"
	})
	want := []string{"PATH=/mine", "HOSTNAME=box", "A=b=c", "HOME=/root"}
	if !slices.Equal(s.Process.Env, want) {
		t.Errorf("%q", s.Process.Env)
	}
}
