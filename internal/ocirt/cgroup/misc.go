package cgroup

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/errs"
)

// applyPids sets the limit of config-linux.md, "PIDs". Zero means not given, as
// Docker has it; a negative number means no limit.
func (c *Cgroup) applyPids(res *specs.LinuxResources) error {
	if res.Pids == nil || value(res.Pids.Limit) == 0 {
		return nil
	}
	limit := *res.Pids.Limit
	if limit < 0 {
		if dir, _ := c.dir("pids"); dir == "" {
			return nil
		}
	}
	return c.put("pids", "pids.max", limitV2(limit))
}

// applyHugetlb sets the limits of config-linux.md, "Huge page limits". The limit
// on reservations, where the kernel has it, is what keeps a process from dying
// of SIGBUS on first touch.
func (c *Cgroup) applyHugetlb(res *specs.LinuxResources) error {
	for _, l := range res.HugepageLimits {
		_, v2 := c.dir("hugetlb")
		file, rsvd := "hugetlb."+l.Pagesize+".limit_in_bytes", "hugetlb."+l.Pagesize+".rsvd.limit_in_bytes"
		if v2 {
			file, rsvd = "hugetlb."+l.Pagesize+".max", "hugetlb."+l.Pagesize+".rsvd.max"
		}
		limit := strconv.FormatUint(l.Limit, 10)
		if err := c.put("hugetlb", file, limit); err != nil {
			return err
		}
		if c.has("hugetlb", rsvd) {
			if err := c.put("hugetlb", rsvd, limit); err != nil {
				return err
			}
		}
	}
	return nil
}

// applyNetwork sets class and priorities of config-linux.md, "Network". v2 has
// neither controller.
func (c *Cgroup) applyNetwork(res *specs.LinuxResources) error {
	n := res.Network
	if n == nil {
		return nil
	}
	if id := value(n.ClassID); id != 0 {
		if err := c.put("net_cls", "net_cls.classid", strconv.FormatUint(uint64(id), 10)); err != nil {
			return err
		}
	}
	for _, p := range n.Priorities {
		if err := c.put("net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority)); err != nil {
			return err
		}
	}
	return nil
}

// applyRdma sets the limits of config-linux.md, "RDMA".
func (c *Cgroup) applyRdma(res *specs.LinuxResources) error {
	for _, dev := range slices.Sorted(maps.Keys(res.Rdma)) {
		line := dev
		if h := res.Rdma[dev].HcaHandles; h != nil {
			line += fmt.Sprintf(" hca_handle=%d", *h)
		}
		if o := res.Rdma[dev].HcaObjects; o != nil {
			line += fmt.Sprintf(" hca_object=%d", *o)
		}
		if err := c.put("rdma", "rdma.max", line); err != nil {
			return err
		}
	}
	return nil
}

// applyUnified writes the files of config-linux.md, "Unified", which only a v2
// hierarchy has. It comes after all else, so it wins.
func (c *Cgroup) applyUnified(res *specs.LinuxResources) error {
	if len(res.Unified) == 0 {
		return nil
	}
	h := c.lay.unified()
	if h == nil {
		return errs.NotImplemented("cannot set %s: this machine has no cgroup v2", slices.Sorted(maps.Keys(res.Unified))[0])
	}
	dir := filepath.Join(h.mount, c.path)
	for _, key := range slices.Sorted(maps.Keys(res.Unified)) {
		if strings.ContainsAny(key, "/\x00") || !strings.Contains(key, ".") || strings.HasPrefix(key, "cgroup.procs") || strings.HasPrefix(key, "cgroup.threads") {
			return errs.InvalidArgument("invalid cgroup v2 file %q", key)
		}
		controller, _, _ := strings.Cut(key, ".")
		// A file such as io.max takes one device per write.
		for line := range strings.SplitSeq(strings.TrimRight(res.Unified[key], "\n"), "\n") {
			if err := putIn(dir, controller, key, line); err != nil {
				return err
			}
		}
	}
	return nil
}
