package cgroup

import (
	"path/filepath"
	"slices"
	"strings"
)

// enableControllers hands every controller of a v2 directory down to its
// children. What cannot be handed down is left: who asks for its limits gets
// the error when the file is missing there.
func enableControllers(dir string) {
	have, err := readFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return
	}
	control := filepath.Join(dir, "cgroup.subtree_control")
	on, err := readFile(control)
	if err != nil {
		return
	}
	enabled := strings.Fields(on)
	var missing []string
	for _, ctl := range strings.Fields(have) {
		if !slices.Contains(enabled, ctl) {
			missing = append(missing, "+"+ctl)
		}
	}
	if len(missing) == 0 || writeFile(control, strings.Join(missing, " ")) == nil {
		return
	}
	// One that is refused must not keep the others away.
	for _, ctl := range missing {
		_ = writeFile(control, ctl)
	}
}
