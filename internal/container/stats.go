package container

import (
	"bufio"
	"context"
	"errors"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	api "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// Stats sends what the container uses: once, or every second until the context
// ends or the container is removed. The rates of a first sample are made of two
// samples a second apart, unless OneShot says not to wait for them.
func (m *Manager) Stats(ctx context.Context, ref string, o StatsOptions, send func(*api.StatsResponse) error) error {
	c, err := m.lookup(ref)
	if err != nil {
		return err
	}
	previous := m.sample(c)
	if o.OneShot || !c.running() && !o.Stream {
		return send(previous)
	}
	if o.Stream {
		// Something to show at once; the rates come with the next.
		if err := send(previous); err != nil {
			return err
		}
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !m.known(c.copy().ID) {
			return nil
		}
		now := m.sample(c)
		now.PreRead, now.PreCPUStats = previous.Read, previous.CPUStats
		if err := send(now); err != nil || !o.Stream {
			return err
		}
		previous = now
	}
}

func (c *Container) running() bool {
	rec := c.copy()
	return rec.running()
}

// sample reads the counters now. Of a container that does not run, or ends
// meanwhile, there are none.
func (m *Manager) sample(c *Container) *api.StatsResponse {
	rec := c.copy()
	s := &api.StatsResponse{ID: rec.ID, Name: "/" + rec.Name, OSType: "linux"}
	if !rec.running() {
		return s
	}
	used, err := cgroup.New(m.cgroupPath(&rec)).Stats()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.opts.Log.Warn("cannot read statistics", "container", rec.ID, "error", err)
		}
		return s
	}
	s.Read = time.Now().UTC()
	s.CPUStats = cpuStats(used)
	s.MemoryStats = memoryStats(used)
	s.PidsStats = api.PidsStats{Current: used.Pids.Current, Limit: used.Pids.Limit}
	s.BlkioStats = blkioStats(&used.Blkio)
	if !rec.HostConfig.NetworkMode.IsHost() && !rec.HostConfig.NetworkMode.IsContainer() {
		s.Networks = networkStats(&rec)
	}
	return s
}

func cpuStats(s *cgroup.Stats) api.CPUStats {
	return api.CPUStats{
		CPUUsage: api.CPUUsage{
			TotalUsage:        s.CPU.Total,
			PercpuUsage:       s.CPU.PerCPU,
			UsageInKernelmode: s.CPU.System,
			UsageInUsermode:   s.CPU.User,
		},
		SystemUsage: systemCPU(),
		OnlineCPUs:  uint32(runtime.NumCPU()),
		ThrottlingData: api.ThrottlingData{
			Periods:          s.CPU.Periods,
			ThrottledPeriods: s.CPU.ThrottledPeriods,
			ThrottledTime:    s.CPU.ThrottledTime,
		},
	}
}

func memoryStats(s *cgroup.Stats) api.MemoryStats {
	limit := s.Memory.Limit
	if total := totalMemory(); total != 0 && (limit == 0 || limit > total) {
		limit = total
	}
	return api.MemoryStats{
		Usage: s.Memory.Usage, MaxUsage: s.Memory.Max, Failcnt: s.Memory.Failcnt, Limit: limit, Stats: s.Memory.Stats,
	}
}

func totalMemory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

func blkioStats(s *cgroup.BlkioStats) api.BlkioStats {
	entries := func(list []cgroup.BlkioEntry) []api.BlkioStatEntry {
		// Of cgroup v1 Docker tells every list, be it empty.
		if len(list) == 0 && cgroup.Detect() == cgroup.Unified {
			return nil
		}
		out := make([]api.BlkioStatEntry, len(list))
		for i, e := range list {
			out[i] = api.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value}
		}
		return out
	}
	return api.BlkioStats{
		IoServiceBytesRecursive: entries(s.ServiceBytes),
		IoServicedRecursive:     entries(s.Serviced),
		IoQueuedRecursive:       entries(s.Queued),
		IoServiceTimeRecursive:  entries(s.ServiceTime),
		IoWaitTimeRecursive:     entries(s.WaitTime),
		IoMergedRecursive:       entries(s.Merged),
		IoTimeRecursive:         entries(s.Time),
		SectorsRecursive:        entries(s.Sectors),
	}
}

// systemCPU is the time all CPUs of the machine worked, in nanoseconds: the
// first line of /proc/stat without what guests are counted for twice.
func systemCPU() uint64 {
	file, err := os.Open("/proc/stat")
	if err != nil {
		return 0
	}
	defer file.Close()
	line, _ := bufio.NewReader(file).ReadString('\n')
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return 0
	}
	var ticks uint64
	for _, f := range fields[1:8] {
		n, _ := strconv.ParseUint(f, 10, 64)
		ticks += n
	}
	const ticksPerSecond = 100 // USER_HZ, the same on every architecture Linux has kept
	return ticks * (1e9 / ticksPerSecond)
}

// networkStats reads the counters of every interface but lo in the network
// namespace of a process.
func networkStats(rec *Record) map[string]api.NetworkStats {
	proc, err := rec.process()
	if err != nil {
		return nil
	}
	defer proc.Close()
	file, err := under(proc, "net/dev", os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer file.Close()
	stats := map[string]api.NetworkStats{}
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		name, counters, ok := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(counters)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(fields) < 12 {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(fields[i], 10, 64); return v }
		stats[name] = api.NetworkStats{
			RxBytes: n(0), RxPackets: n(1), RxErrors: n(2), RxDropped: n(3),
			TxBytes: n(8), TxPackets: n(9), TxErrors: n(10), TxDropped: n(11),
		}
	}
	if len(stats) == 0 {
		return nil
	}
	return stats
}
