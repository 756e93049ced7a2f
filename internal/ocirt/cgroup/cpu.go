package cgroup

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// defaultPeriod is the kernel's CFS period, in microseconds.
const defaultPeriod = 100000

// applyCPU sets the limits of config-linux.md, "CPU", except the cpuset.
func (c *Cgroup) applyCPU(res *specs.LinuxResources) error {
	cpu := res.CPU
	if cpu == nil || !asksCPU(cpu) {
		return nil
	}
	dir, v2 := c.dir("cpu")
	if dir == "" {
		return errs.NotImplemented("cannot limit CPU time: this machine has no cpu controller")
	}
	// The weight of an idle cgroup cannot be set: leave idle first, enter it last.
	if value(cpu.Idle) == 0 {
		if err := c.setIdle(cpu.Idle); err != nil {
			return err
		}
	}
	if shares := value(cpu.Shares); shares != 0 {
		if err := c.setShares(shares, dir, v2); err != nil {
			return err
		}
	}
	set := c.bandwidthV1
	if v2 {
		set = c.bandwidthV2
	}
	if err := set(cpu, dir); err != nil {
		return err
	}
	if value(cpu.Idle) != 0 {
		return c.setIdle(cpu.Idle)
	}
	return nil
}

func asksCPU(cpu *specs.LinuxCPU) bool {
	return value(cpu.Shares) != 0 || value(cpu.Quota) != 0 || value(cpu.Period) != 0 || cpu.Burst != nil ||
		value(cpu.RealtimeRuntime) != 0 || value(cpu.RealtimePeriod) != 0 || cpu.Idle != nil
}

func (c *Cgroup) setIdle(idle *int64) error {
	if idle == nil {
		return nil
	}
	return c.put("cpu", "cpu.idle", itoa(*idle))
}

func (c *Cgroup) setShares(shares uint64, dir string, v2 bool) error {
	if v2 {
		return c.put("cpu", "cpu.weight", strconv.FormatUint(sharesToWeight(shares), 10))
	}
	if err := c.put("cpu", "cpu.shares", strconv.FormatUint(shares, 10)); err != nil {
		return err
	}
	// The kernel clamps silently; who asked should know.
	got, err := readUint(filepath.Join(dir, "cpu.shares"))
	switch {
	case err != nil:
		return err
	case got < shares:
		return errs.InvalidArgument("invalid CPU shares %d: the maximum is %d", shares, got)
	case got > shares:
		return errs.InvalidArgument("invalid CPU shares %d: the minimum is %d", shares, got)
	}
	return nil
}

// sharesToWeight converts v1 shares (2 to 262144, default 1024) into a v2 weight
// (1 to 10000, default 100) by the quadratic in log2(shares) that meets all
// three points and that the OCI runtimes agreed on in 2025.
func sharesToWeight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (c *Cgroup) bandwidthV1(cpu *specs.LinuxCPU, _ string) error {
	if err := c.realtimeV1(cpu); err != nil {
		return err
	}
	period, quota := value(cpu.Period), value(cpu.Quota)
	// Of period, quota and burst the kernel checks each against the other two, so
	// one order cannot suit both raising and lowering: what is refused as
	// inconsistent is tried again after the others.
	writes := make([]func() error, 0, 3)
	if period != 0 {
		writes = append(writes, func() error {
			return c.put("cpu", "cpu.cfs_period_us", strconv.FormatUint(period, 10))
		})
	}
	if cpu.Burst != nil {
		writes = append(writes, func() error {
			return c.put("cpu", "cpu.cfs_burst_us", strconv.FormatUint(*cpu.Burst, 10))
		})
	}
	if quota != 0 {
		writes = append(writes, func() error { return c.put("cpu", "cpu.cfs_quota_us", itoa(quota)) })
	}
	return settle(writes)
}

// settle runs writes that depend on each other until all succeeded or a round
// brought nothing.
func settle(writes []func() error) error {
	for len(writes) > 0 {
		var again []func() error
		var first error
		for _, w := range writes {
			err := w()
			if err == nil {
				continue
			}
			if !errors.Is(err, unix.EINVAL) {
				return err
			}
			if first == nil {
				first = err
			}
			again = append(again, w)
		}
		if len(again) == len(writes) {
			return first
		}
		writes = again
	}
	return nil
}

func (c *Cgroup) realtimeV1(cpu *specs.LinuxCPU) error {
	var writes []func() error
	if p := value(cpu.RealtimePeriod); p != 0 {
		writes = append(writes, func() error { return c.put("cpu", "cpu.rt_period_us", strconv.FormatUint(p, 10)) })
	}
	if r := value(cpu.RealtimeRuntime); r != 0 {
		writes = append(writes, func() error { return c.put("cpu", "cpu.rt_runtime_us", itoa(r)) })
	}
	return settle(writes)
}

func (c *Cgroup) bandwidthV2(cpu *specs.LinuxCPU, dir string) error {
	if value(cpu.RealtimePeriod) != 0 || value(cpu.RealtimeRuntime) != 0 {
		return errs.NotImplemented("cannot limit realtime CPU time: cgroup v2 has no such limit")
	}
	period, quota := value(cpu.Period), value(cpu.Quota)
	var writes []func() error
	if cpu.Burst != nil {
		writes = append(writes, func() error {
			return c.put("cpu", "cpu.max.burst", strconv.FormatUint(*cpu.Burst, 10))
		})
	}
	if period != 0 || quota != 0 {
		// What is not asked for stays as it is: cpu.max holds both.
		nowQuota, nowPeriod := "max", strconv.Itoa(defaultPeriod)
		if s, err := readFile(filepath.Join(dir, "cpu.max")); err == nil {
			if f := strings.Fields(s); len(f) == 2 {
				nowQuota, nowPeriod = f[0], f[1]
			}
		}
		if quota > 0 {
			nowQuota = itoa(quota)
		} else if quota < 0 {
			nowQuota = "max"
		}
		if period != 0 {
			nowPeriod = strconv.FormatUint(period, 10)
		}
		writes = append(writes, func() error { return c.put("cpu", "cpu.max", nowQuota+" "+nowPeriod) })
	}
	return settle(writes)
}

// applyCpuset sets the CPUs and memory nodes of config-linux.md, "CPU".
func (c *Cgroup) applyCpuset(res *specs.LinuxResources) error {
	if res.CPU == nil {
		return nil
	}
	if res.CPU.Cpus != "" {
		if err := c.put("cpuset", "cpuset.cpus", res.CPU.Cpus); err != nil {
			return err
		}
	}
	if res.CPU.Mems != "" {
		return c.put("cpuset", "cpuset.mems", res.CPU.Mems)
	}
	return nil
}

// inheritCpuset gives a new v1 cpuset the CPUs and nodes of its parent: it is
// born with none, and then refuses every process.
func inheritCpuset(dir string) error {
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := readFile(filepath.Join(dir, f))
		if err != nil {
			return err
		}
		if strings.TrimSpace(have) != "" {
			continue
		}
		parent, err := readFile(filepath.Join(filepath.Dir(dir), f))
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, f), strings.TrimSpace(parent)); err != nil {
			return fmt.Errorf("cannot inherit %s: %w", f, err)
		}
	}
	return nil
}
