package container

import (
	"runtime"
	"slices"

	api "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

const minMemory = 6 << 20 // what a container needs to start at all

// validateResources refuses limits that contradict themselves. A limit whose
// controller this machine does not have is taken out, with a warning, as Docker
// does: an image that asks for it must still start.
func validateResources(r *api.Resources, update bool) (warnings []string, err error) {
	if r.MemorySwappiness != nil && *r.MemorySwappiness == -1 {
		r.MemorySwappiness = nil
	}
	if err := validateMemory(r, update); err != nil {
		return nil, err
	}
	if err := validateCPU(r); err != nil {
		return nil, err
	}
	if r.BlkioWeight != 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return nil, errs.InvalidArgument("Range of blkio weight is from 10 to 1000")
	}
	if r.IOMaximumBandwidth != 0 || r.IOMaximumIOps != 0 {
		return nil, errs.InvalidArgument("Invalid QoS settings: linux does not support Maximum IO Bandwidth or Maximum IO IOps")
	}
	if r.OomKillDisable != nil && *r.OomKillDisable && r.Memory == 0 {
		warnings = append(warnings, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	if r.CPUPercent > 0 {
		warnings = append(warnings, "linux does not support CPU percent. Percent discarded.")
		r.CPUPercent = 0
	}
	return append(warnings, dropUnsupported(r)...), nil
}

func validateMemory(r *api.Resources, update bool) error {
	switch {
	case r.Memory != 0 && r.Memory < minMemory:
		return errs.InvalidArgument("Minimum memory limit allowed is 6MB")
	case r.Memory > 0 && r.MemorySwap > 0 && r.MemorySwap < r.Memory:
		return errs.InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
	case r.Memory == 0 && r.MemorySwap > 0 && !update:
		return errs.InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
	case r.MemorySwappiness != nil && (*r.MemorySwappiness < 0 || *r.MemorySwappiness > 100):
		return errs.InvalidArgument("Invalid value: %v, valid memory swappiness range is 0-100", *r.MemorySwappiness)
	case r.MemoryReservation > 0 && r.MemoryReservation < minMemory:
		return errs.InvalidArgument("Minimum memory reservation allowed is 6MB")
	case r.Memory > 0 && r.MemoryReservation > 0 && r.Memory < r.MemoryReservation:
		return errs.InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
	}
	return nil
}

func validateCPU(r *api.Resources) error {
	cpus := runtime.NumCPU()
	switch {
	case r.NanoCPUs > 0 && r.CPUPeriod > 0:
		return errs.InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case r.NanoCPUs > 0 && r.CPUQuota > 0:
		return errs.InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case r.NanoCPUs < 0 || r.NanoCPUs > int64(cpus)*1e9:
		return errs.InvalidArgument("range of CPUs is from 0.01 to %[1]d.00, as there are only %[1]d CPUs available", cpus)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return errs.InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return errs.InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	return nil
}

func dropUnsupported(r *api.Resources) (warnings []string) {
	have := cgroup.Controllers()
	lacks := func(controllers ...string) bool {
		for _, c := range controllers {
			if slices.Contains(have, c) {
				return false
			}
		}
		return true
	}
	warn := func(s string) { warnings = append(warnings, s) }
	if lacks("memory") && (r.Memory > 0 || r.MemoryReservation > 0 || r.MemorySwappiness != nil) {
		warn("Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.")
		r.Memory, r.MemorySwap, r.MemoryReservation, r.MemorySwappiness = 0, 0, 0, nil
	}
	if cgroup.Detect() == cgroup.Unified {
		if r.MemorySwappiness != nil {
			warn("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.")
			r.MemorySwappiness = nil
		}
		if r.OomKillDisable != nil && *r.OomKillDisable {
			warn("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
			r.OomKillDisable = nil
		}
	}
	if lacks("pids") && r.PidsLimit != nil && *r.PidsLimit > 0 {
		warn("Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.")
		r.PidsLimit = nil
	}
	if lacks("cpu") && (r.CPUShares > 0 || r.CPUPeriod != 0 || r.CPUQuota != 0 || r.NanoCPUs > 0) {
		warn("Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.")
		r.CPUShares, r.CPUPeriod, r.CPUQuota, r.NanoCPUs = 0, 0, 0, 0
	}
	if lacks("cpuset") && (r.CpusetCpus != "" || r.CpusetMems != "") {
		warn("Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.")
		r.CpusetCpus, r.CpusetMems = "", ""
	}
	if lacks("blkio", "io") && (r.BlkioWeight > 0 || len(r.BlkioWeightDevice)+len(r.BlkioDeviceReadBps)+len(r.BlkioDeviceWriteBps)+
		len(r.BlkioDeviceReadIOps)+len(r.BlkioDeviceWriteIOps) > 0) {
		warn("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
		r.BlkioWeight, r.BlkioWeightDevice = 0, nil
		r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = nil, nil, nil, nil
	}
	return warnings
}
