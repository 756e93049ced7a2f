package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/cli/format"
)

// statsRow is a container as `stats` prints it. Without a sample its numbers
// are dashes.
type statsRow struct {
	container string
	s         *container.StatsResponse
	trunc     bool
}

const noValue = "--"

func statsHeader() format.Header {
	return format.Header{
		"Container": "CONTAINER", "Name": "NAME", "ID": "CONTAINER ID", "CPUPerc": "CPU %",
		"MemUsage": "MEM USAGE / LIMIT", "MemPerc": "MEM %", "NetIO": "NET I/O",
		"BlockIO": "BLOCK I/O", "PIDs": "PIDS",
	}
}

func (r *statsRow) IsRow() bool       { return true }
func (r *statsRow) Container() string { return r.container }

func (r *statsRow) Name() string {
	if r.s == nil || len(r.s.Name) < 2 {
		return noValue
	}
	return strings.TrimPrefix(r.s.Name, "/")
}

func (r *statsRow) ID() string {
	switch {
	case r.s == nil:
		return r.container
	case r.trunc:
		return format.ShortID(r.s.ID)
	}
	return r.s.ID
}

// CPUPerc is the share of one processor since the sample before, so that it
// goes to 200% on two.
func (r *statsRow) CPUPerc() string {
	if r.s == nil {
		return noValue
	}
	now, before := &r.s.CPUStats, &r.s.PreCPUStats
	used := float64(now.CPUUsage.TotalUsage) - float64(before.CPUUsage.TotalUsage)
	system := float64(now.SystemUsage) - float64(before.SystemUsage)
	cpus := float64(now.OnlineCPUs)
	if cpus == 0 {
		cpus = float64(len(now.CPUUsage.PercpuUsage))
	}
	if used <= 0 || system <= 0 {
		return percent(0)
	}
	return percent(used / system * cpus * 100)
}

func percent(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) + "%" }

// memory leaves out the page cache the kernel would give back.
func (r *statsRow) memory() float64 {
	m := &r.s.MemoryStats
	if v, ok := m.Stats["total_inactive_file"]; ok && v < m.Usage { // cgroup v1
		return float64(m.Usage - v)
	}
	if v := m.Stats["inactive_file"]; v < m.Usage {
		return float64(m.Usage - v)
	}
	return float64(m.Usage)
}

func (r *statsRow) MemUsage() string {
	if r.s == nil {
		return noValue + " / " + noValue
	}
	return units.BytesSize(r.memory()) + " / " + units.BytesSize(float64(r.s.MemoryStats.Limit))
}

func (r *statsRow) MemPerc() string {
	if r.s == nil {
		return noValue
	}
	if r.s.MemoryStats.Limit == 0 {
		return percent(0)
	}
	return percent(r.memory() / float64(r.s.MemoryStats.Limit) * 100)
}

func (r *statsRow) NetIO() string {
	if r.s == nil {
		return noValue
	}
	var rx, tx uint64
	for _, n := range r.s.Networks {
		rx += n.RxBytes
		tx += n.TxBytes
	}
	return pairOfSizes(rx, tx)
}

func (r *statsRow) BlockIO() string {
	if r.s == nil {
		return noValue
	}
	var read, write uint64
	for _, e := range r.s.BlkioStats.IoServiceBytesRecursive {
		switch {
		case e.Op == "":
		case e.Op[0]|0x20 == 'r':
			read += e.Value
		case e.Op[0]|0x20 == 'w':
			write += e.Value
		}
	}
	return pairOfSizes(read, write)
}

func pairOfSizes(a, b uint64) string {
	return fmt.Sprintf("%s / %s", units.HumanSizeWithPrecision(float64(a), 3), units.HumanSizeWithPrecision(float64(b), 3))
}

func (r *statsRow) PIDs() string {
	if r.s == nil {
		return noValue
	}
	return strconv.FormatUint(r.s.PidsStats.Current, 10)
}
