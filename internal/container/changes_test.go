package container

import (
	"reflect"
	"testing"

	"github.com/gantry-containers/gantry/internal/snapshot"
)

// A diff holds what the user changed: not the places the engine and the runtime
// made to mount on.
func TestChangesWithoutOwn(t *testing.T) {
	made := func(paths ...string) (list []snapshot.Change) {
		for _, p := range paths {
			list = append(list, snapshot.Change{Kind: snapshot.Added, Path: p})
		}
		return list
	}
	etc := snapshot.Change{Kind: snapshot.Modified, Path: "/etc", Entries: true}
	mode := snapshot.Change{Kind: snapshot.Modified, Path: "/etc"}
	own := append(made("/.dockerenv", "/dev", "/dev/pts", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/proc", "/sys"), etc)
	for _, test := range []struct {
		name    string
		changes []snapshot.Change
		want    []snapshot.Change
	}{
		{"nothing of the user", own, []snapshot.Change{}},
		{"a file of the user", append(made("/etc/mine"), own...), append(made("/etc/mine"), etc)},
		{"something elsewhere", append(made("/root/mine"), own...), made("/root/mine")},
		{"removed with the image's file", []snapshot.Change{{Kind: snapshot.Deleted, Path: "/etc/hosts"}}, []snapshot.Change{{Kind: snapshot.Deleted, Path: "/etc/hosts"}}},
		{"only what the directory holds", []snapshot.Change{etc}, []snapshot.Change{etc}},
		{"the mode of the directory as well", append(made("/etc/hosts"), mode), []snapshot.Change{mode}},
		{"the mode of a place to mount on", append(made("/etc/hosts"), snapshot.Change{Kind: snapshot.Modified, Path: "/dev"}), []snapshot.Change{{Kind: snapshot.Modified, Path: "/dev"}}},
	} {
		if got := withoutOwn(append([]snapshot.Change{}, test.changes...)); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestCpusetList(t *testing.T) {
	online, _ := parseCpuset("0-3,5,6-7")
	for list, want := range map[string]bool{"0": true, "0-3": true, "5-7": true, "3,5": true, "4": false, "3-5": false, "8": false, "0-99": false} {
		spans, ok := parseCpuset(list)
		if !ok {
			t.Errorf("%s was not understood", list)
		}
		within := true
		for _, s := range spans {
			within = within && s.within(online)
		}
		if within != want {
			t.Errorf("%s: %v", list, within)
		}
	}
	for _, list := range []string{"", "a", "1-", "3-1", "1,,2", "-1", "99999999"} {
		if _, ok := parseCpuset(list); ok {
			t.Errorf("%q was understood", list)
		}
	}
}
