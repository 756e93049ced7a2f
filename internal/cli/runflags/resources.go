package runflags

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/pflag"
)

// resources are limits and shares of the machine.
type resources struct {
	blkioWeight                             uint16
	weightDevice                            parsed[*blkiodev.WeightDevice]
	readBps, writeBps, readIOps, writeIOps  parsed[*blkiodev.ThrottleDevice]
	cpuPeriod, cpuQuota, rtPeriod, rtQuota  int64
	cpuShares                               int64
	cpus                                    CPUs
	cpusetCpus, cpusetMems                  string
	memory, memoryReservation, kernelMemory Bytes
	memorySwap                              SwapBytes
	swappiness                              int64
	oomKillDisable                          bool
	oomScoreAdj                             int
	pidsLimit                               int64
	shmSize                                 Bytes
	ulimits                                 parsed[*units.Ulimit]
	cgroupParent                            string
}

// windowsOnly is a flag of another system's containers, known only to be refused
// with a reason.
type windowsOnly struct{}

func (windowsOnly) Set(string) error { return errors.New("only Windows containers have it") }
func (windowsOnly) String() string   { return "" }
func (windowsOnly) Type() string     { return "value" }

func (r *resources) add(fs *pflag.FlagSet) {
	r.addCPU(fs)
	r.addMemory(fs)
	r.addBlkio(fs)
	fs.Int64Var(&r.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	r.ulimits = parsed[*units.Ulimit]{name: "ulimit", parse: units.ParseUlimit}
	fs.Var(&r.ulimits, "ulimit", "Ulimit options")
	fs.StringVar(&r.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")

	for _, name := range []string{"cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"} {
		fs.Var(windowsOnly{}, name, "Windows only")
		hide(fs, name)
	}
}

func (r *resources) addCPU(fs *pflag.FlagSet) {
	fs.Int64Var(&r.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&r.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&r.rtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&r.rtQuota, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.Int64VarP(&r.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Var(&r.cpus, "cpus", "Number of CPUs")
	fs.StringVar(&r.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&r.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
}

func (r *resources) addMemory(fs *pflag.FlagSet) {
	fs.VarP(&r.memory, "memory", "m", "Memory limit")
	fs.Var(&r.memoryReservation, "memory-reservation", "Memory soft limit")
	fs.Var(&r.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&r.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.Var(&r.kernelMemory, "kernel-memory", "Kernel memory limit (deprecated: engines ignore it)")
	fs.BoolVar(&r.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&r.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Var(&r.shmSize, "shm-size", "Size of /dev/shm")
	hide(fs, "kernel-memory")
}

func (r *resources) addBlkio(fs *pflag.FlagSet) {
	r.weightDevice = parsed[*blkiodev.WeightDevice]{name: "list", parse: parseWeight}
	bps := parsed[*blkiodev.ThrottleDevice]{name: "list", parse: parseBps}
	iops := parsed[*blkiodev.ThrottleDevice]{name: "list", parse: parseIOps}
	r.readBps, r.writeBps, r.readIOps, r.writeIOps = bps, bps, iops, iops
	fs.Uint16Var(&r.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Var(&r.weightDevice, "blkio-weight-device", "Block IO weight (relative device weight)")
	fs.Var(&r.readBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	fs.Var(&r.readIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	fs.Var(&r.writeBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	fs.Var(&r.writeIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
}

func (r *resources) apply(c *Container) error {
	if r.swappiness != -1 && (r.swappiness < 0 || r.swappiness > 100) {
		return fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", r.swappiness)
	}
	h := c.HostConfig
	h.OomScoreAdj = r.oomScoreAdj
	h.ShmSize = int64(r.shmSize)
	h.Resources = container.Resources{
		CgroupParent:         r.cgroupParent,
		Memory:               int64(r.memory),
		MemoryReservation:    int64(r.memoryReservation),
		MemorySwap:           int64(r.memorySwap),
		MemorySwappiness:     &r.swappiness,
		OomKillDisable:       &r.oomKillDisable,
		NanoCPUs:             int64(r.cpus),
		CPUShares:            r.cpuShares,
		CPUPeriod:            r.cpuPeriod,
		CPUQuota:             r.cpuQuota,
		CPURealtimePeriod:    r.rtPeriod,
		CPURealtimeRuntime:   r.rtQuota,
		CpusetCpus:           r.cpusetCpus,
		CpusetMems:           r.cpusetMems,
		PidsLimit:            &r.pidsLimit,
		BlkioWeight:          r.blkioWeight,
		BlkioWeightDevice:    r.weightDevice.values,
		BlkioDeviceReadBps:   r.readBps.values,
		BlkioDeviceWriteBps:  r.writeBps.values,
		BlkioDeviceReadIOps:  r.readIOps.values,
		BlkioDeviceWriteIOps: r.writeIOps.values,
		Ulimits:              lastUlimits(r.ulimits.values),
	}
	return nil
}

// lastUlimits keeps the last of each name, in the order of names.
func lastUlimits(in []*units.Ulimit) []*units.Ulimit {
	byName := map[string]*units.Ulimit{}
	for _, u := range in {
		byName[u.Name] = u
	}
	out := make([]*units.Ulimit, 0, len(byName))
	for _, u := range byName {
		out = append(out, u)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func deviceAndValue(v string) (device, value string, err error) {
	device, value, ok := strings.Cut(v, ":")
	if !ok || device == "" {
		return "", "", fmt.Errorf("bad format: %s", v)
	}
	if !strings.HasPrefix(device, "/dev/") {
		return "", "", fmt.Errorf("bad format for device path: %s", v)
	}
	return device, value, nil
}

func parseWeight(v string) (*blkiodev.WeightDevice, error) {
	device, value, err := deviceAndValue(v)
	if err != nil {
		return nil, err
	}
	w, err := strconv.ParseUint(value, 10, 16)
	if err != nil || w > 0 && (w < 10 || w > 1000) {
		return nil, fmt.Errorf("invalid weight for device: %s", v)
	}
	return &blkiodev.WeightDevice{Path: device, Weight: uint16(w)}, nil
}

func parseBps(v string) (*blkiodev.ThrottleDevice, error) {
	device, value, err := deviceAndValue(v)
	if err != nil {
		return nil, err
	}
	rate, err := units.RAMInBytes(value)
	if err != nil || rate < 0 {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", v)
	}
	return &blkiodev.ThrottleDevice{Path: device, Rate: uint64(rate)}, nil
}

func parseIOps(v string) (*blkiodev.ThrottleDevice, error) {
	device, value, err := deviceAndValue(v)
	if err != nil {
		return nil, err
	}
	rate, err := strconv.ParseUint(value, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", v)
	}
	return &blkiodev.ThrottleDevice{Path: device, Rate: rate}, nil
}
