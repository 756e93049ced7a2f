package cgroup

import (
	"errors"
	"path/filepath"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
)

// applyMemory sets the limits of config-linux.md, "Memory". Zero means not
// given, as Docker and the other runtimes have it; -1 means no limit. Kernel
// memory limits are gone from Linux since 5.4 and ignored.
func (c *Cgroup) applyMemory(res *specs.LinuxResources) error {
	m := res.Memory
	if m == nil || *m == (specs.LinuxMemory{}) {
		return nil
	}
	limit, swap, reservation := value(m.Limit), value(m.Swap), value(m.Reservation)
	for _, v := range []int64{limit, swap, reservation} {
		if v < -1 {
			return errs.InvalidArgument("invalid memory limit %d: must be -1 (no limit) or a number of bytes", v)
		}
	}
	dir, v2 := c.dir("memory")
	if dir == "" {
		if limit == 0 && swap == 0 && reservation == 0 && m.Swappiness == nil && !value(m.DisableOOMKiller) {
			return nil
		}
		return errs.NotImplemented("cannot limit memory: this machine has no memory controller")
	}
	if value(m.CheckBeforeUpdate) && limit > 0 {
		if err := checkUsage(dir, v2, limit); err != nil {
			return err
		}
	}
	if v2 {
		return c.memoryV2(limit, swap, reservation)
	}
	return c.memoryV1(m, dir, limit, swap, reservation)
}

// value is what p points to, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// checkUsage refuses a limit below what is in use now: v2 would reach for the
// OOM killer instead of refusing it.
func checkUsage(dir string, v2 bool, limit int64) error {
	file := "memory.usage_in_bytes"
	if v2 {
		file = "memory.current"
	}
	used, err := readUint(filepath.Join(dir, file))
	if err != nil {
		return err
	}
	if used > uint64(limit) {
		return errs.InvalidArgument("cannot limit memory to %d bytes: %d bytes are in use", limit, used)
	}
	return nil
}

func (c *Cgroup) memoryV1(m *specs.LinuxMemory, dir string, limit, swap, reservation int64) error {
	if limit == -1 && swap == 0 && c.has("memory", "memory.memsw.limit_in_bytes") {
		swap = -1 // memory without a limit cannot stay below an old memory+swap limit
	}
	if swap == -1 && !c.has("memory", "memory.memsw.limit_in_bytes") {
		swap = 0 // no swap accounting: there is no limit to lift
	}
	if err := c.memoryAndSwapV1(dir, limit, swap); err != nil {
		return err
	}
	if reservation != 0 {
		if err := c.put("memory", "memory.soft_limit_in_bytes", itoa(reservation)); err != nil {
			return err
		}
	}
	if tcp := value(m.KernelTCP); tcp != 0 {
		if err := c.put("memory", "memory.kmem.tcp.limit_in_bytes", itoa(tcp)); err != nil {
			return err
		}
	}
	if m.DisableOOMKiller != nil {
		v := "0"
		if *m.DisableOOMKiller {
			v = "1"
		}
		if err := c.put("memory", "memory.oom_control", v); err != nil {
			return err
		}
	}
	if m.Swappiness == nil {
		return nil
	}
	if *m.Swappiness > 200 {
		return errs.InvalidArgument("invalid memory swappiness %d: must be 0 to 100", *m.Swappiness)
	}
	return c.put("memory", "memory.swappiness", strconv.FormatUint(*m.Swappiness, 10))
}

// memoryAndSwapV1 writes the limit of memory and the one of memory plus swap in
// the order in which the kernel accepts them: it never lets the first exceed the
// second.
func (c *Cgroup) memoryAndSwapV1(dir string, limit, swap int64) error {
	setLimit := func() error {
		if limit == 0 {
			return nil
		}
		err := c.put("memory", "memory.limit_in_bytes", itoa(limit))
		if errors.Is(err, unix.EBUSY) {
			used, _ := readUint(filepath.Join(dir, "memory.usage_in_bytes"))
			return errs.InvalidArgument("cannot limit memory to %d bytes: %d bytes are in use: %w", limit, used, unix.EBUSY)
		}
		return err
	}
	setSwap := func() error {
		if swap == 0 {
			return nil
		}
		return c.put("memory", "memory.memsw.limit_in_bytes", itoa(swap))
	}
	swapFirst := false
	if limit != 0 && swap != 0 {
		now, err := readUint(filepath.Join(dir, "memory.limit_in_bytes"))
		swapFirst = err == nil && (swap == -1 || uint64(swap) > now)
	}
	if swapFirst {
		return errors.Join(setSwap(), setLimit())
	}
	if err := setLimit(); err != nil {
		return err
	}
	return setSwap()
}

func (c *Cgroup) memoryV2(limit, swap, reservation int64) error {
	swapMax, err := swapToV2(limit, swap)
	if err != nil {
		return err
	}
	if swapMax != "" {
		err := c.put("memory", "memory.swap.max", swapMax)
		// Where the kernel accounts no swap there is nothing to lift or to forbid.
		if err != nil && !(errors.Is(err, unix.ENOENT) && (swapMax == "max" || swapMax == "0")) {
			return err
		}
	}
	if limit != 0 {
		if err := c.put("memory", "memory.max", limitV2(limit)); err != nil {
			return err
		}
	}
	if reservation != 0 {
		return c.put("memory", "memory.low", limitV2(reservation))
	}
	return nil
}

// swapToV2 converts v1's limit of memory plus swap into v2's limit of swap
// alone; "" leaves it as it is.
func swapToV2(limit, swap int64) (string, error) {
	switch {
	case swap == -1, swap == 0 && limit == -1:
		return "max", nil
	case swap == 0:
		return "", nil
	case limit == 0 || limit == -1:
		return "", errs.InvalidArgument("cannot limit memory plus swap to %d bytes without a memory limit", swap)
	case swap < limit:
		return "", errs.InvalidArgument("cannot limit memory plus swap to %d bytes: the memory limit is %d bytes", swap, limit)
	}
	return itoa(swap - limit), nil
}

func limitV2(v int64) string {
	if v < 0 {
		return "max"
	}
	return itoa(v)
}

func itoa(v int64) string { return strconv.FormatInt(v, 10) }
