package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// usageV1 reads the cpuacct controller. cpuacct.stat counts in ticks of 10 ms
// (USER_HZ), the newer files in nanoseconds.
func usageV1(dir string, s *Stats) error {
	err := numbers(dir, map[string]*uint64{
		"cpuacct.usage": &s.CPU.Total, "cpuacct.usage_user": &s.CPU.User, "cpuacct.usage_sys": &s.CPU.System,
	})
	if err != nil {
		return err
	}
	if s.CPU.User == 0 && s.CPU.System == 0 {
		const tick = 1e9 / 100
		m, err := optional(readFlat(dir + "/cpuacct.stat"))
		if err != nil {
			return err
		}
		s.CPU.User, s.CPU.System = m["user"]*tick, m["system"]*tick
	}
	per, err := optional(readFile(dir + "/cpuacct.usage_percpu"))
	if err != nil {
		return err
	}
	for f := range strings.FieldsSeq(per) {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return err
		}
		s.CPU.PerCPU = append(s.CPU.PerCPU, n)
	}
	return nil
}

func throttlingV1(dir string, s *Stats) error {
	m, err := optional(readFlat(dir + "/cpu.stat"))
	if err != nil {
		return err
	}
	s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime = m["nr_periods"], m["nr_throttled"], m["throttled_time"]
	return nil
}

func memoryStatsV1(dir string, s *Stats) error {
	m := &s.Memory
	var memsw uint64
	err := numbers(dir, map[string]*uint64{
		"memory.usage_in_bytes":       &m.Usage,
		"memory.max_usage_in_bytes":   &m.Max,
		"memory.limit_in_bytes":       &m.Limit,
		"memory.failcnt":              &m.Failcnt,
		"memory.memsw.usage_in_bytes": &memsw,
		"memory.memsw.limit_in_bytes": &m.SwapLimit,
	})
	if err != nil {
		return err
	}
	if memsw > m.Usage {
		m.SwapUsage = memsw - m.Usage
	}
	if m.Stats, err = optional(readFlat(dir + "/memory.stat")); err != nil {
		return err
	}
	m.OOMKills, err = optional(oomKills(dir, false))
	return err
}

// blkioV1 reads the counters of BFQ where that scheduler keeps them, else those
// of the throttling layer, which are always there.
func blkioV1(dir string, s *Stats) error {
	read := func(files ...string) (list []BlkioEntry, err error) {
		for _, f := range files {
			text, err := readFile(dir + "/" + f)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if list := parseBlkio(text); len(list) > 0 {
				return list, nil
			}
		}
		return nil, nil
	}
	for _, part := range []struct {
		to    *[]BlkioEntry
		files []string
	}{
		{&s.Blkio.ServiceBytes, []string{"blkio.bfq.io_service_bytes_recursive", "blkio.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"}},
		{&s.Blkio.Serviced, []string{"blkio.bfq.io_serviced_recursive", "blkio.io_serviced_recursive", "blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"}},
		{&s.Blkio.Queued, []string{"blkio.bfq.io_queued_recursive", "blkio.io_queued_recursive"}},
		{&s.Blkio.ServiceTime, []string{"blkio.bfq.io_service_time_recursive", "blkio.io_service_time_recursive"}},
		{&s.Blkio.WaitTime, []string{"blkio.bfq.io_wait_time_recursive", "blkio.io_wait_time_recursive"}},
		{&s.Blkio.Merged, []string{"blkio.bfq.io_merged_recursive", "blkio.io_merged_recursive"}},
		{&s.Blkio.Time, []string{"blkio.bfq.time_recursive", "blkio.time_recursive"}},
		{&s.Blkio.Sectors, []string{"blkio.bfq.sectors_recursive", "blkio.sectors_recursive"}},
	} {
		list, err := read(part.files...)
		if err != nil {
			return err
		}
		*part.to = list
	}
	return nil
}

// parseBlkio reads lines "8:0 Read 4096" and, of files without operations,
// "8:0 4096". The total over all devices at the end is left out.
func parseBlkio(text string) (list []BlkioEntry) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || len(f) > 3 {
			continue
		}
		major, minor, ok := parseDev(f[0])
		n, err := strconv.ParseUint(f[len(f)-1], 10, 64)
		if !ok || err != nil {
			continue
		}
		e := BlkioEntry{Major: major, Minor: minor, Value: n}
		if len(f) == 3 {
			e.Op = f[1]
		}
		list = append(list, e)
	}
	return list
}

func parseDev(s string) (major, minor uint64, ok bool) {
	a, b, found := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 64)
	minor, err2 := strconv.ParseUint(b, 10, 64)
	return major, minor, found && err1 == nil && err2 == nil
}

// pageSizes lists the huge page sizes that have files in dir, as those spell
// them.
func pageSizes(dir, suffix string) []string {
	entries, _ := os.ReadDir(dir)
	var sizes []string
	for _, e := range entries {
		if s, ok := strings.CutPrefix(e.Name(), "hugetlb."); ok {
			if s, ok := strings.CutSuffix(s, suffix); ok && !strings.Contains(s, ".") {
				sizes = append(sizes, s)
			}
		}
	}
	return sizes
}

func hugetlbV1(dir string, s *Stats) error {
	s.Hugetlb = map[string]HugetlbStats{}
	for _, size := range pageSizes(dir, ".usage_in_bytes") {
		var h HugetlbStats
		p := "hugetlb." + size
		err := numbers(dir, map[string]*uint64{
			p + ".usage_in_bytes": &h.Usage, p + ".max_usage_in_bytes": &h.Max,
			p + ".limit_in_bytes": &h.Limit, p + ".failcnt": &h.Failcnt,
		})
		if err != nil {
			return err
		}
		s.Hugetlb[size] = h
	}
	return nil
}
