package container

import (
	"testing"

	api "github.com/moby/moby/api/types/container"
)

// Cgroups are made ahead in the engine's own parent only: in one that a user
// names they would be found by whoever owns it.
func TestCgroupParent(t *testing.T) {
	for _, tc := range []struct {
		container, engine, path string
		own                     bool
	}{
		{"", "", "/g1/ID", true},
		{"", "/ours", "/ours/ID", false},
		{"theirs", "/ours", "/theirs/ID", false},
		{"/g1", "", "/g1/ID", false},
	} {
		m := &Manager{opts: Options{Instance: "g1", Defaults: Defaults{CgroupParent: tc.engine}}}
		rec := &Record{ID: "ID", HostConfig: &api.HostConfig{Resources: api.Resources{CgroupParent: tc.container}}}
		if _, own := m.cgroupParent(rec); own != tc.own || m.cgroupPath(rec) != tc.path {
			t.Errorf("%q of an engine with %q: %s, own is %v", tc.container, tc.engine, m.cgroupPath(rec), own)
		}
	}
}
