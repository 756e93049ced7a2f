package cgroup

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/errs"
)

// applyBlockIO sets the limits of config-linux.md, "Block IO".
func (c *Cgroup) applyBlockIO(res *specs.LinuxResources) error {
	b := res.BlockIO
	if b == nil || !asksBlockIO(b) {
		return nil
	}
	dir, v2 := c.dir("blkio")
	if dir == "" {
		return errs.NotImplemented("cannot limit block I/O: this machine has no blkio or io controller")
	}
	if v2 {
		return c.blockIOV2(b)
	}
	return c.blockIOV1(b)
}

func asksBlockIO(b *specs.LinuxBlockIO) bool {
	return value(b.Weight) != 0 || value(b.LeafWeight) != 0 || len(b.WeightDevice) > 0 ||
		len(b.ThrottleReadBpsDevice) > 0 || len(b.ThrottleWriteBpsDevice) > 0 ||
		len(b.ThrottleReadIOPSDevice) > 0 || len(b.ThrottleWriteIOPSDevice) > 0
}

// firstFile is the first of two files the cgroup offers; the weight files exist
// in one flavour per I/O scheduler.
func (c *Cgroup) firstFile(a, b string) string {
	if !c.has("blkio", a) && c.has("blkio", b) {
		return b
	}
	return a
}

func (c *Cgroup) blockIOV1(b *specs.LinuxBlockIO) error {
	if w := value(b.Weight); w != 0 {
		if err := c.put("blkio", c.firstFile("blkio.weight", "blkio.bfq.weight"), itoa(int64(w))); err != nil {
			return err
		}
	}
	if w := value(b.LeafWeight); w != 0 {
		if err := c.put("blkio", "blkio.leaf_weight", itoa(int64(w))); err != nil {
			return err
		}
	}
	for _, d := range b.WeightDevice {
		if w := value(d.Weight); w != 0 {
			file := c.firstFile("blkio.weight_device", "blkio.bfq.weight_device")
			if err := c.put("blkio", file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, w)); err != nil {
				return err
			}
		}
		if w := value(d.LeafWeight); w != 0 {
			if err := c.put("blkio", "blkio.leaf_weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, w)); err != nil {
				return err
			}
		}
	}
	return throttles(b, func(t throttle, d specs.LinuxThrottleDevice) error {
		return c.put("blkio", t.v1, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
	})
}

func (c *Cgroup) blockIOV2(b *specs.LinuxBlockIO) error {
	bfq := c.has("blkio", "io.bfq.weight")
	setWeight := func(who string, w uint16) error {
		if bfq {
			return c.put("blkio", "io.bfq.weight", fmt.Sprintf("%s%d", who, w))
		}
		return c.put("blkio", "io.weight", fmt.Sprintf("%s%d", who, ioWeight(w)))
	}
	if w := value(b.Weight); w != 0 {
		if err := setWeight("", w); err != nil {
			return err
		}
	}
	for _, d := range b.WeightDevice {
		if w := value(d.Weight); w != 0 {
			if err := setWeight(fmt.Sprintf("%d:%d ", d.Major, d.Minor), w); err != nil {
				return err
			}
		}
	}
	return throttles(b, func(t throttle, d specs.LinuxThrottleDevice) error {
		rate := "max"
		if d.Rate != 0 {
			rate = fmt.Sprint(d.Rate)
		}
		return c.put("blkio", "io.max", fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, t.v2, rate))
	})
}

// ioWeight maps v1's weights, 10 to 1000, onto v2's, 1 to 10000.
func ioWeight(w uint16) uint64 {
	if w < 10 {
		return 1
	}
	return 1 + (uint64(w)-10)*9999/990
}

// throttle names one kind of limit: the file of v1, the key of io.max of v2.
type throttle struct{ v1, v2 string }

func throttles(b *specs.LinuxBlockIO, set func(throttle, specs.LinuxThrottleDevice) error) error {
	for _, k := range []struct {
		throttle
		devices []specs.LinuxThrottleDevice
	}{
		{throttle{"blkio.throttle.read_bps_device", "rbps"}, b.ThrottleReadBpsDevice},
		{throttle{"blkio.throttle.write_bps_device", "wbps"}, b.ThrottleWriteBpsDevice},
		{throttle{"blkio.throttle.read_iops_device", "riops"}, b.ThrottleReadIOPSDevice},
		{throttle{"blkio.throttle.write_iops_device", "wiops"}, b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range k.devices {
			if err := set(k.throttle, d); err != nil {
				return err
			}
		}
	}
	return nil
}
