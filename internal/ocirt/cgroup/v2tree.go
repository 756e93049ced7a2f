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

// ForExec returns the cgroup a further process of a container is put in, given
// the container's first process. It is c itself, unless that process has divided
// it into cgroups of its own, as an init does: on v2 a cgroup with children that
// have controllers takes no processes. Then it is the one the first process is
// in, if that is below c.
func (c *Cgroup) ForExec(pid int) *Cgroup {
	h := c.lay.unified()
	if h == nil || c.lay.mode != Unified {
		return c
	}
	on, err := readFile(filepath.Join(h.mount, c.path, "cgroup.subtree_control"))
	if err != nil || strings.TrimSpace(on) == "" {
		return c
	}
	text, err := readFile("/proc/" + itoa(int64(pid)) + "/cgroup")
	if err != nil {
		return c
	}
	below := ownIn(text, "")
	if !strings.HasPrefix(below, c.path+"/") {
		return c
	}
	return newAt(c.lay, c.err, below)
}
