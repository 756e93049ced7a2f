package container

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestRuntimeNames(t *testing.T) {
	none := &Manager{}
	some := &Manager{opts: Options{Defaults: Defaults{Runtimes: map[string]Runtime{
		"runc": {Path: "/sbin/runc", Args: []string{"--debug"}}, "other": {Path: "other"},
	}}}}
	for _, test := range []struct {
		m          *Manager
		name, path string // "" is the built-in one
		unknown    bool
	}{
		{m: none, name: ""},
		{m: none, name: "gantry"},
		{m: none, name: "runc"},
		{m: none, name: "io.containerd.runc.v2"},
		{m: none, name: "other", unknown: true},
		{m: some, name: "gantry"},
		{m: some, name: "runc", path: "/sbin/runc"},
		{m: some, name: "io.containerd.runc.v2"},
		{m: some, name: "other", path: "other"},
		{m: some, name: "Other", unknown: true},
	} {
		r, err := test.m.runtime(test.name)
		switch {
		case test.unknown:
			if !errdefs.IsInvalidArgument(err) || err.Error() != "unknown or invalid runtime name: "+test.name {
				t.Errorf("%s: %v", test.name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.path == "" && r != nil, test.path != "" && (r == nil || r.Path != test.path || r.Name != test.name):
			t.Errorf("%s is %+v", test.name, r)
		}
	}
}
