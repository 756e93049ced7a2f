package ociruntime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

func eventsCommand(f *flags) runner {
	once := f.Bool("stats", false, "print the statistics once and end")
	interval := f.Duration("interval", 5*time.Second, "time between statistics")
	return simple(func(ctx context.Context, r *runtime, id string) error {
		if *interval <= 0 {
			return errs.InvalidArgument("invalid --interval %s: must be positive", *interval)
		}
		c, err := r.load(id)
		if err != nil {
			return err
		}
		if s := c.status(); s == specs.StateStopped || s == specs.StateCreating {
			return errs.Conflict("container %s is not running (it is %s)", id, s)
		}
		if *once {
			return printStats(c)
		}
		return c.follow(ctx, *interval)
	})
}

// event is one line of output, in runc's format, which cAdvisor and others read.
type event struct {
	Type string `json:"type"` // stats or oom
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

func (e event) print() error { return json.NewEncoder(os.Stdout).Encode(e) }

func printStats(c *container) error {
	s, err := cgroup.New(c.Cgroup).Stats()
	if err != nil {
		return err
	}
	return event{"stats", c.ID, statsOf(s)}.print()
}

// follow prints until the container ends.
func (c *container) follow(ctx context.Context, interval time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.waitEnd(ctx) }()
	ooms := make(chan uint64)
	if w, err := cgroup.New(c.Cgroup).OOM(); err == nil {
		defer w.Close()
		go func() {
			for {
				n, err := w.Wait()
				if err != nil {
					return
				}
				select {
				case ooms <- n:
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case n := <-ooms:
			for range n {
				if err := (event{"oom", c.ID, nil}).print(); err != nil {
					return err
				}
			}
		case <-tick.C:
			if err := printStats(c); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("cannot print the statistics: %w", err)
			}
		}
	}
}

// object is a JSON object written field by field.
type object = map[string]any

func statsOf(s *cgroup.Stats) object {
	huge := object{}
	for size, h := range s.Hugetlb {
		huge[size] = object{"usage": h.Usage, "max": h.Max, "failcnt": h.Failcnt}
	}
	m := s.Memory
	return object{
		"cpu": object{
			"usage":      object{"total": s.CPU.Total, "percpu": s.CPU.PerCPU, "kernel": s.CPU.System, "user": s.CPU.User},
			"throttling": object{"periods": s.CPU.Periods, "throttledPeriods": s.CPU.ThrottledPeriods, "throttledTime": s.CPU.ThrottledTime},
		},
		"memory": object{
			"usage": object{"usage": m.Usage, "max": m.Max, "limit": m.Limit, "failcnt": m.Failcnt},
			"swap":  object{"usage": m.SwapUsage, "limit": m.SwapLimit},
			"cache": m.Stats["cache"] + m.Stats["file"],
			"raw":   m.Stats,
		},
		"pids": object{"current": s.Pids.Current, "limit": s.Pids.Limit},
		"blkio": object{
			"ioServiceBytesRecursive": entries(s.Blkio.ServiceBytes),
			"ioServicedRecursive":     entries(s.Blkio.Serviced),
			"ioQueueRecursive":        entries(s.Blkio.Queued),
			"ioServiceTimeRecursive":  entries(s.Blkio.ServiceTime),
			"ioWaitTimeRecursive":     entries(s.Blkio.WaitTime),
			"ioMergedRecursive":       entries(s.Blkio.Merged),
			"ioTimeRecursive":         entries(s.Blkio.Time),
			"sectorsRecursive":        entries(s.Blkio.Sectors),
		},
		"hugetlb": huge,
	}
}

func entries(list []cgroup.BlkioEntry) []object {
	out := make([]object, len(list))
	for i, e := range list {
		out[i] = object{"major": e.Major, "minor": e.Minor, "op": e.Op, "value": e.Value}
	}
	return out
}
