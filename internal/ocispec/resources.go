package ocispec

import (
	"github.com/moby/moby/api/types/blkiodev"
	api "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// resources adds the limits to the device rules that are there already.
func resources(s *specs.Spec, in *Input) error {
	r, err := UpdatedResources(in.HostConfig)
	if err != nil {
		return err
	}
	r.Devices = s.Linux.Resources.Devices
	s.Linux.Resources = r
	return nil
}

// UpdatedResources returns the limits of a container without its device rules,
// which an update leaves as they are.
func UpdatedResources(h *api.HostConfig) (*specs.LinuxResources, error) {
	io, err := blockIO(&h.Resources)
	if err != nil {
		return nil, err
	}
	r := &specs.LinuxResources{Memory: memory(&h.Resources), CPU: cpu(&h.Resources), BlockIO: io}
	if h.PidsLimit != nil {
		limit := *h.PidsLimit
		if limit <= 0 {
			limit = -1
		}
		r.Pids = &specs.LinuxPids{Limit: &limit}
	}
	return r, nil
}

func memory(r *api.Resources) *specs.LinuxMemory {
	m := &specs.LinuxMemory{}
	if r.Memory > 0 {
		m.Limit = &r.Memory
	}
	if r.MemoryReservation > 0 {
		m.Reservation = &r.MemoryReservation
	}
	if r.MemorySwap != 0 && (r.Memory > 0 || r.MemorySwap > 0) {
		m.Swap = &r.MemorySwap
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness >= 0 {
		swappiness := uint64(*r.MemorySwappiness)
		m.Swappiness = &swappiness
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller = r.OomKillDisable
	}
	if *m == (specs.LinuxMemory{}) {
		return nil
	}
	return m
}

// cpuPeriod is the period --cpus is a share of, in microseconds.
const cpuPeriod = 100_000

func cpu(r *api.Resources) *specs.LinuxCPU {
	c := &specs.LinuxCPU{Cpus: r.CpusetCpus, Mems: r.CpusetMems}
	if r.CPUShares > 0 {
		shares := uint64(r.CPUShares)
		c.Shares = &shares
	}
	if r.NanoCPUs > 0 {
		period, quota := uint64(cpuPeriod), r.NanoCPUs*cpuPeriod/1e9
		c.Period, c.Quota = &period, &quota
	}
	if r.CPUPeriod != 0 {
		period := uint64(r.CPUPeriod)
		c.Period = &period
	}
	if r.CPUQuota != 0 {
		c.Quota = &r.CPUQuota
	}
	if r.CPURealtimePeriod != 0 {
		period := uint64(r.CPURealtimePeriod)
		c.RealtimePeriod = &period
	}
	if r.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime = &r.CPURealtimeRuntime
	}
	if *c == (specs.LinuxCPU{}) {
		return nil
	}
	return c
}

func blockIO(r *api.Resources) (*specs.LinuxBlockIO, error) {
	b := &specs.LinuxBlockIO{}
	set := false
	if r.BlkioWeight > 0 {
		b.Weight, set = &r.BlkioWeight, true
	}
	for _, d := range r.BlkioWeightDevice {
		major, minor, err := deviceNumber(d.Path)
		if err != nil {
			return nil, err
		}
		weighted := specs.LinuxWeightDevice{Weight: &d.Weight}
		weighted.Major, weighted.Minor = major, minor
		b.WeightDevice, set = append(b.WeightDevice, weighted), true
	}
	for _, throttle := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice}, {r.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice}, {r.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range throttle.from {
			major, minor, err := deviceNumber(d.Path)
			if err != nil {
				return nil, err
			}
			limited := specs.LinuxThrottleDevice{Rate: d.Rate}
			limited.Major, limited.Minor = major, minor
			*throttle.to, set = append(*throttle.to, limited), true
		}
	}
	if !set {
		return nil, nil
	}
	return b, nil
}

func deviceNumber(path string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, 0, invalid("cannot limit the device %s: %w", path, err)
	}
	return int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev))), nil
}
