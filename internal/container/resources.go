package container

import (
	"fmt"
	"runtime"

	api "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

const minMemory = 6 << 20 // what a container needs to start at all

// validateResources refuses limits that contradict themselves. A limit whose
// controller this machine does not have is taken out, with a warning, as Docker
// does: an image that asks for it must still start.
func (m *Manager) validateResources(r *api.Resources, update bool) (warnings []string, err error) {
	if r.MemorySwappiness != nil && *r.MemorySwappiness == -1 {
		r.MemorySwappiness = nil
	}
	if err := validateMemory(r, update); err != nil {
		return nil, err
	}
	if err := validateCPU(r); err != nil {
		return nil, err
	}
	if r.BlkioWeight != 0 && m.can().BlkioWeight && (r.BlkioWeight < 10 || r.BlkioWeight > 1000) {
		return nil, errs.InvalidArgument("Range of blkio weight is from 10 to 1000")
	}
	if err := validateCpuset(r, m.can()); err != nil {
		return nil, err
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
	return append(warnings, dropUnsupported(r, m.can())...), nil
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
	case r.CPUShares < 0:
		return errs.InvalidArgument("invalid CPU shares (%d): value must be a positive integer", r.CPUShares)
	case r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1000000):
		return errs.InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case r.CPUQuota > 0 && r.CPUQuota < 1000:
		return errs.InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	return nil
}

func dropUnsupported(r *api.Resources, can cgroup.Support) (warnings []string) {
	// drop says what was asked for in vain, and takes it out.
	drop := func(asked, supported bool, warning string, clear func()) {
		if asked && !supported {
			warnings = append(warnings, warning)
			clear()
		}
	}
	const gone = "Your kernel does not support %s or the cgroup is not mounted. %s discarded."
	text := func(what, thing string) string { return fmt.Sprintf(gone, what, thing) }
	drop(r.Memory > 0, can.Memory, text("memory limit capabilities", "Limitation"), func() { r.Memory, r.MemorySwap = 0, -1 })
	drop(r.Memory > 0 && r.MemorySwap > 0, can.Swap,
		"Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
		func() { r.MemorySwap = -1 })
	drop(r.MemoryReservation > 0, can.Reservation, text("memory soft limit capabilities", "Limitation"), func() { r.MemoryReservation = 0 })
	drop(r.MemorySwappiness != nil, can.Swappiness, text("memory swappiness capabilities", "Memory swappiness"), func() { r.MemorySwappiness = nil })
	drop(r.OomKillDisable != nil && *r.OomKillDisable, can.OOMKillDisable,
		"Your kernel does not support OomKillDisable. OomKillDisable discarded.", func() { r.OomKillDisable = nil })
	drop(r.PidsLimit != nil && *r.PidsLimit > 0, can.Pids, text("PIDs limit capabilities", "PIDs limit"), func() { r.PidsLimit = nil })
	drop(r.CPUShares > 0, can.CPUShares, text("CPU shares", "Shares"), func() { r.CPUShares = 0 })
	drop(r.CPUPeriod != 0 || r.CPUQuota != 0 || r.NanoCPUs > 0, can.CPUQuota,
		"Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.", func() { r.CPUPeriod, r.CPUQuota, r.NanoCPUs = 0, 0, 0 })
	drop(r.CpusetCpus != "" || r.CpusetMems != "", can.Cpuset, text("cpuset", "Cpuset"), func() { r.CpusetCpus, r.CpusetMems = "", "" })
	drop(r.BlkioWeight > 0, can.BlkioWeight, text("Block I/O weight", "Weight"), func() { r.BlkioWeight = 0 })
	drop(len(r.BlkioWeightDevice) > 0, can.BlkioWeightDevice, text("Block I/O weight_device", "Weight-device"), func() { r.BlkioWeightDevice = nil })
	drop(len(r.BlkioDeviceReadBps)+len(r.BlkioDeviceWriteBps)+len(r.BlkioDeviceReadIOps)+len(r.BlkioDeviceWriteIOps) > 0, can.BlkioThrottle,
		text("Block I/O limits", "Block I/O limits"), func() {
			r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps, r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = nil, nil, nil, nil
		})
	return warnings
}
