package cgroup

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Support says which limits this machine can set: what `docker info` shows.
type Support struct {
	Memory, Swap, Reservation, OOMKillDisable, Swappiness, KernelMemoryTCP bool
	CPUShares, CPUQuota, CPURealtime, Cpuset                               bool
	Pids, Freezer, Devices, Hugetlb                                        bool
	BlkioWeight, BlkioWeightDevice, BlkioThrottle                          bool
}

// Supported looks at the files the kernel offers.
func Supported() Support {
	l, err := machine()
	if err != nil {
		return Support{}
	}
	return l.support()
}

// support looks into one existing directory per hierarchy. On v2 the root lacks
// the limits, so that a child of it is looked at.
func (l *layout) support() Support {
	c := &Cgroup{path: "/", lay: l}
	file := func(controller, v1, v2 string) bool {
		dir, unified := c.dir(controller)
		switch {
		case dir == "":
			return false
		case !unified:
			return v1 != "" && exists(filepath.Join(dir, v1))
		case v2 == "":
			return false
		}
		return fileInChild(dir, v2)
	}
	return Support{
		Memory:            file("memory", "memory.limit_in_bytes", "memory.max"),
		Swap:              file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
		Reservation:       file("memory", "memory.soft_limit_in_bytes", "memory.low"),
		OOMKillDisable:    file("memory", "memory.oom_control", ""),
		Swappiness:        file("memory", "memory.swappiness", ""),
		KernelMemoryTCP:   file("memory", "memory.kmem.tcp.limit_in_bytes", ""),
		CPUShares:         file("cpu", "cpu.shares", "cpu.weight"),
		CPUQuota:          file("cpu", "cpu.cfs_quota_us", "cpu.max"),
		CPURealtime:       file("cpu", "cpu.rt_runtime_us", ""),
		Cpuset:            file("cpuset", "cpuset.cpus", "cpuset.cpus"),
		Pids:              file("pids", "cgroup.procs", "pids.max"),
		Freezer:           file("freezer", "cgroup.procs", "cgroup.freeze"),
		Devices:           file("devices", "devices.list", "cgroup.procs"),
		Hugetlb:           file("hugetlb", "cgroup.procs", "cgroup.procs"),
		BlkioWeight:       file("blkio", "blkio.weight", "io.weight") || file("blkio", "blkio.bfq.weight", "io.bfq.weight"),
		BlkioWeightDevice: file("blkio", "blkio.weight_device", "io.weight") || file("blkio", "blkio.bfq.weight_device", "io.bfq.weight"),
		BlkioThrottle:     file("blkio", "blkio.throttle.read_bps_device", "io.max"),
	}
}

// fileInChild says whether a v2 directory or any child of it has a file. A
// machine without any child yet offers what a scratch child of ours would have:
// one is made and removed.
func fileInChild(dir, file string) bool {
	if exists(filepath.Join(dir, file)) {
		return true
	}
	enableControllers(dir)
	probe := filepath.Join(dir, "gantry-probe-"+itoa(int64(os.Getpid())))
	if unix.Mkdir(probe, 0o755) != nil {
		return false
	}
	defer unix.Rmdir(probe)
	return exists(filepath.Join(probe, file))
}

// Warnings are sentences for `info` about limits that cannot be set here, in
// the words of Docker's.
func Warnings() []string {
	s := Supported()
	v1 := Detect() != Unified
	var w []string
	for _, x := range []struct {
		ok   bool
		text string
	}{
		{s.Memory, "No memory limit support"},
		{s.Swap || !s.Memory, "No swap limit support"},
		{s.OOMKillDisable || !v1 || !s.Memory, "No oom kill disable support"},
		{s.CPUQuota, "No cpu cfs quota support"},
		{s.CPUShares, "No cpu shares support"},
		{s.Cpuset, "No cpuset support"},
		{s.Pids, "No pids limit support"},
		{s.BlkioThrottle || !v1, "No blkio throttle support"},
		{s.BlkioThrottle || v1, "No io.max support"},
		{s.Devices, "No device restriction support"},
	} {
		if !x.ok {
			w = append(w, "WARNING: "+x.text)
		}
	}
	return w
}

// Own returns the path of the cgroup this process is in, in the hierarchy of a
// controller ("" for v2's), relative to its mount point, from proc_pid_cgroup(5).
func Own(controller string) (string, error) {
	text, err := readFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	return ownIn(text, controller), nil
}

func ownIn(text, controller string) string {
	for line := range strings.Lines(text) {
		f := strings.SplitN(strings.TrimRight(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for ctl := range strings.SplitSeq(f[1], ",") {
			if ctl == controller {
				return f[2]
			}
		}
	}
	return "/"
}
