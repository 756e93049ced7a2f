package ocirt

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/spawn"
)

func FuzzFindHome(f *testing.F) {
	f.Add([]byte("root:x:0:0::/root:/bin/sh\n"), uint32(0))
	f.Add([]byte("::::::\n\x00:0:0:0:0:/\n"), uint32(0))
	f.Fuzz(func(t *testing.T, passwd []byte, uid uint32) {
		if home := findHome(bytes.NewReader(passwd), uid); !strings.HasPrefix(home, "/") {
			t.Errorf("home %q", home)
		}
	})
}

func FuzzStartTime(f *testing.F) {
	f.Add([]byte("1 (a) b) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 77 1 1\n"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, stat []byte) { _, _ = parseStartTime(stat) })
}

func TestStartTime(t *testing.T) {
	got, err := parseStartTime([]byte("1 (a) b) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 77 1 1\n"))
	if err != nil || got != 77 {
		t.Errorf("%d, %v", got, err)
	}
}

// FuzzSpec compiles whatever specification there is; nothing is started, and
// nothing may panic.
func FuzzSpec(f *testing.F) {
	seed, err := json.Marshal(defaultSpec("true"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"process":{"args":["x"],"cwd":"/","rlimits":[{"type":"RLIMIT_CPU"}],"scheduler":{"policy":"SCHED_RR"},"ioPriority":{"class":"x"}},"linux":{"sysctl":{"net..":"\u0000"},"personality":{"domain":"LINUX32"},"memoryPolicy":{"mode":"MPOL_BIND","nodes":"0-9999"}},"mounts":[{"destination":"x","options":["rro","ratime",""]}]}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		var spec specs.Spec
		if json.Unmarshal(config, &spec) != nil {
			return
		}
		c := &Container{ID: "fuzz", Spec: &spec, Bundle: "/nonexistent"}
		if checkSpec(c) != nil {
			return
		}
		b := newBuilder(&spawn.Program{}, &spec, spec.Process, nil)
		defer b.close()
		var err error
		if b.ns, err = parseNamespaces(spec.Linux.Namespaces, nil); err != nil || b.checkNamespaces() != nil {
			return
		}
		for i := range spec.Mounts { // nothing of the host is opened
			parseOptions(spec.Mounts[i].Options)
			spec.Mounts[i].Type, spec.Mounts[i].Source, spec.Mounts[i].Options = "tmpfs", "", nil
		}
		if b.early() == nil && b.setNames() == nil && b.planMounts() == nil && b.mountAll() == nil && b.makeDevices() == nil {
			b.restrictPaths()
			b.enterAsRoot()
			if b.setSysctls() == nil && b.finish() == nil {
				b.execute()
			}
		}
	})
}
