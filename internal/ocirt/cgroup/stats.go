package cgroup

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Stats is what a cgroup has used. What the machine cannot tell is zero or
// empty. Version says which of the two vocabularies Memory.Stats speaks.
type Stats struct {
	Version int // 1 or 2, by the memory controller
	CPU     CPUStats
	Memory  MemoryStats
	Pids    PidsStats
	Blkio   BlkioStats
	Hugetlb map[string]HugetlbStats // by page size: "2MB"
}

// CPUStats counts CPU time in nanoseconds.
type CPUStats struct {
	Total, User, System uint64
	PerCPU              []uint64 // v1 only
	Periods             uint64   // bandwidth periods in which there was something to run
	ThrottledPeriods    uint64
	ThrottledTime       uint64 // nanoseconds
}

// MemoryStats counts bytes.
type MemoryStats struct {
	Usage, Max uint64 // with the page cache; Max is 0 where the kernel does not keep it
	Limit      uint64 // 1<<64-1 without a limit (v1: a very large number)
	Failcnt    uint64 // v1: how often the limit was hit; v2: events "max"
	SwapUsage  uint64
	SwapLimit  uint64            // as Limit; v1: of memory plus swap
	OOMKills   uint64            // processes killed
	Stats      map[string]uint64 // memory.stat
}

// WorkingSet is the memory in use without the page cache that could be dropped
// at once: what `docker stats` shows.
func (m *MemoryStats) WorkingSet() uint64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} { // v1, v2
		if v, ok := m.Stats[key]; ok && v < m.Usage {
			return m.Usage - v
		}
	}
	return m.Usage
}

// PidsStats counts processes and threads.
type PidsStats struct {
	Current uint64
	Limit   uint64 // 0 without a limit, as Docker has it
}

// BlkioEntry is one counter of one block device.
type BlkioEntry struct {
	Major, Minor uint64
	Op           string // v1: Read, Write, Sync, Async, Discard, Total; v2: read, write
	Value        uint64
}

// BlkioStats has the counters of block I/O, with those of cgroups below.
type BlkioStats struct {
	ServiceBytes []BlkioEntry
	Serviced     []BlkioEntry
	Queued       []BlkioEntry
	ServiceTime  []BlkioEntry
	WaitTime     []BlkioEntry
	Merged       []BlkioEntry
	Time         []BlkioEntry
	Sectors      []BlkioEntry
}

// HugetlbStats counts bytes of huge pages.
type HugetlbStats struct {
	Usage, Max, Limit uint64
	Failcnt           uint64
}

// Stats reads what the cgroup has used. The error is ErrNotExist (io/fs) when
// the cgroup is gone.
func (c *Cgroup) Stats() (*Stats, error) {
	if c.err != nil {
		return nil, c.err
	}
	s := &Stats{Version: 1}
	for _, part := range []struct {
		controller string
		v1, v2     func(dir string, s *Stats) error
	}{
		{"cpuacct", usageV1, cpuV2},
		{"cpu", throttlingV1, nil},
		{"memory", memoryStatsV1, memoryStatsV2},
		{"pids", pidsStats, pidsStats},
		{"blkio", blkioV1, ioV2},
		{"hugetlb", hugetlbV1, hugetlbV2},
	} {
		dir, v2 := c.dir(part.controller)
		read := part.v1
		if v2 {
			read = part.v2
		}
		if dir == "" || read == nil || (v2 && c.lay.mode == Hybrid && !c.needUnified) {
			continue
		}
		if v2 && part.controller == "memory" {
			s.Version = 2
		}
		if err := read(dir, s); err != nil {
			if errors.Is(err, unix.ENODEV) {
				err = fs.ErrNotExist
			}
			return nil, fmt.Errorf("cannot read the %s statistics of cgroup %s: %w", part.controller, c.path, err)
		}
	}
	// A file that is missing reads as nothing, so a cgroup that is gone must not.
	if d := c.memberDir(); !exists(d) {
		return nil, fmt.Errorf("cannot read the statistics of cgroup %s: %w", c.path, fs.ErrNotExist)
	}
	return s, nil
}

// optional makes a file that this kernel does not offer read as nothing.
func optional[T any](v T, err error) (T, error) {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EOPNOTSUPP) {
		var none T
		return none, nil
	}
	return v, err
}

// numbers reads single-number files into where they belong; files the kernel
// does not offer leave zero.
func numbers(dir string, to map[string]*uint64) error {
	for file, p := range to {
		n, err := optional(readUint(dir + "/" + file))
		if err != nil {
			return err
		}
		*p = n
	}
	return nil
}

func pidsStats(dir string, s *Stats) error {
	if err := numbers(dir, map[string]*uint64{"pids.current": &s.Pids.Current, "pids.max": &s.Pids.Limit}); err != nil {
		return err
	}
	if s.Pids.Limit == 1<<64-1 {
		s.Pids.Limit = 0
	}
	return nil
}
