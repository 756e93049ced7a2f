package ociruntime

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/docker/go-units"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

func updateCommand(f *flags) runner {
	file := f.String("resources", "", "file with the resources as JSON; - is stdin")
	f.also("r", "resources")
	sets := updateFlags(f)
	return func(_ context.Context, r *runtime, args []string) (int, error) {
		id, err := oneID(args)
		if err != nil {
			return 0, err
		}
		res := &specs.LinuxResources{}
		if *file != "" {
			if res, err = readResources(*file); err != nil {
				return 0, err
			}
		} else {
			f.Visit(func(d *flag.Flag) {
				if set := sets[d.Name]; set != nil && err == nil {
					if e := set(res, d.Value.String()); e != nil {
						err = errs.InvalidArgument("invalid --%s %q: %w", d.Name, d.Value, e)
					}
				}
			})
			if err != nil {
				return 0, err
			}
		}
		return 0, r.update(id, res)
	}
}

func (r *runtime) update(id string, res *specs.LinuxResources) error {
	c, err := r.loadLocked(id)
	if err != nil {
		return err
	}
	defer c.release()
	switch s := c.status(); s {
	case specs.StateCreated, specs.StateRunning, statusPaused:
	default:
		return errs.Conflict("cannot update container %s: it is %s", id, s)
	}
	res.Devices = nil // as runc: the rules of devices are not for changing
	return cgroup.New(c.Cgroup).Set(res)
}

func readResources(file string) (*specs.LinuxResources, error) {
	in := io.Reader(os.Stdin)
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("cannot read the resources: %w", err)
		}
		defer f.Close()
		in = f
	}
	var res specs.LinuxResources
	if err := json.NewDecoder(in).Decode(&res); err != nil {
		return nil, errs.InvalidArgument("cannot read the resources in %s: %w", file, err)
	}
	return &res, nil
}

// setter writes the value of a flag into resources.
type setter = func(res *specs.LinuxResources, value string) error

// updateFlags defines the flags of single limits, as runc has them.
func updateFlags(f *flags) map[string]setter {
	sets := map[string]setter{}
	add := func(name, help string, set setter) {
		f.String(name, "", help)
		sets[name] = set
	}
	cpu := func(name, help string, set func(c *specs.LinuxCPU, v string) error) {
		add(name, help, func(res *specs.LinuxResources, v string) error {
			if res.CPU == nil {
				res.CPU = &specs.LinuxCPU{}
			}
			return set(res.CPU, v)
		})
	}
	memory := func(name, help string, field func(m *specs.LinuxMemory) **int64) {
		add(name, help, func(res *specs.LinuxResources, v string) error {
			if res.Memory == nil {
				res.Memory = &specs.LinuxMemory{}
			}
			return parse(field(res.Memory), v, parseBytes)
		})
	}
	cpu("cpu-period", "CFS period in microseconds", func(c *specs.LinuxCPU, v string) error { return parse(&c.Period, v, parseUint) })
	cpu("cpu-quota", "CFS quota in microseconds", func(c *specs.LinuxCPU, v string) error { return parse(&c.Quota, v, parseInt) })
	cpu("cpu-burst", "CFS burst in microseconds", func(c *specs.LinuxCPU, v string) error { return parse(&c.Burst, v, parseUint) })
	cpu("cpu-share", "weight against other containers", func(c *specs.LinuxCPU, v string) error { return parse(&c.Shares, v, parseUint) })
	cpu("cpu-idle", "1 runs the container when nothing else does", func(c *specs.LinuxCPU, v string) error { return parse(&c.Idle, v, parseInt) })
	cpu("cpu-rt-period", "realtime period in microseconds", func(c *specs.LinuxCPU, v string) error { return parse(&c.RealtimePeriod, v, parseUint) })
	cpu("cpu-rt-runtime", "realtime budget in microseconds", func(c *specs.LinuxCPU, v string) error { return parse(&c.RealtimeRuntime, v, parseInt) })
	cpu("cpuset-cpus", "CPUs to run on", func(c *specs.LinuxCPU, v string) error { c.Cpus = v; return nil })
	cpu("cpuset-mems", "memory nodes to use", func(c *specs.LinuxCPU, v string) error { c.Mems = v; return nil })
	memory("memory", "memory limit in bytes", func(m *specs.LinuxMemory) **int64 { return &m.Limit })
	memory("memory-reservation", "soft memory limit in bytes", func(m *specs.LinuxMemory) **int64 { return &m.Reservation })
	memory("memory-swap", "limit of memory plus swap in bytes; -1 is none", func(m *specs.LinuxMemory) **int64 { return &m.Swap })
	add("pids-limit", "how many processes; -1 is no limit", func(res *specs.LinuxResources, v string) error {
		res.Pids = &specs.LinuxPids{}
		return parse(&res.Pids.Limit, v, parseInt)
	})
	add("blkio-weight", "weight of block I/O, 10 to 1000", func(res *specs.LinuxResources, v string) error {
		n, err := strconv.ParseUint(v, 10, 16)
		w := uint16(n)
		res.BlockIO = &specs.LinuxBlockIO{Weight: &w}
		return err
	})
	return sets
}

func parse[T any](to **T, v string, read func(string) (T, error)) error {
	n, err := read(v)
	*to = &n
	return err
}

func parseUint(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) }
func parseInt(s string) (int64, error)   { return strconv.ParseInt(s, 10, 64) }

// parseBytes reads a size with a unit, or -1.
func parseBytes(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	return units.RAMInBytes(s)
}
