package cgroup

import (
	"strings"
)

func cpuV2(dir string, s *Stats) error {
	const micro = 1000
	m, err := optional(readFlat(dir + "/cpu.stat"))
	if err != nil {
		return err
	}
	s.CPU = CPUStats{
		Total:            m["usage_usec"] * micro,
		User:             m["user_usec"] * micro,
		System:           m["system_usec"] * micro,
		Periods:          m["nr_periods"],
		ThrottledPeriods: m["nr_throttled"],
		ThrottledTime:    m["throttled_usec"] * micro,
	}
	return nil
}

func memoryStatsV2(dir string, s *Stats) error {
	m := &s.Memory
	err := numbers(dir, map[string]*uint64{
		"memory.current":      &m.Usage,
		"memory.peak":         &m.Max,
		"memory.max":          &m.Limit,
		"memory.swap.current": &m.SwapUsage,
		"memory.swap.max":     &m.SwapLimit,
	})
	if err != nil {
		return err
	}
	if m.Stats, err = optional(readFlat(dir + "/memory.stat")); err != nil {
		return err
	}
	events, err := optional(readFlat(dir + "/memory.events"))
	m.Failcnt, m.OOMKills = events["max"], events["oom_kill"]
	return err
}

func ioV2(dir string, s *Stats) error {
	text, err := optional(readFile(dir + "/io.stat"))
	if err != nil {
		return err
	}
	parseIOStat(text, &s.Blkio)
	return nil
}

// parseIOStat reads lines "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6".
func parseIOStat(text string, b *BlkioStats) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		major, minor, ok := parseDev(f[0])
		if !ok {
			continue
		}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, err := parseUint(v)
			if err != nil {
				continue
			}
			e := BlkioEntry{Major: major, Minor: minor, Value: n}
			switch k {
			case "rbytes":
				e.Op = "read"
				b.ServiceBytes = append(b.ServiceBytes, e)
			case "wbytes":
				e.Op = "write"
				b.ServiceBytes = append(b.ServiceBytes, e)
			case "rios":
				e.Op = "read"
				b.Serviced = append(b.Serviced, e)
			case "wios":
				e.Op = "write"
				b.Serviced = append(b.Serviced, e)
			}
		}
	}
}

func hugetlbV2(dir string, s *Stats) error {
	s.Hugetlb = map[string]HugetlbStats{}
	for _, size := range pageSizes(dir, ".current") {
		var h HugetlbStats
		p := "hugetlb." + size
		if err := numbers(dir, map[string]*uint64{p + ".current": &h.Usage, p + ".max": &h.Limit}); err != nil {
			return err
		}
		events, err := optional(readFlat(dir + "/" + p + ".events"))
		if err != nil {
			return err
		}
		h.Failcnt = events["max"]
		s.Hugetlb[size] = h
	}
	return nil
}
