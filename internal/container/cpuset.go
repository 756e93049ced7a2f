package container

import (
	"os"
	"strconv"
	"strings"

	api "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// validateCpuset refuses processors and memory nodes this machine does not have.
func validateCpuset(r *api.Resources, can cgroup.Support) error {
	if !can.Cpuset {
		return nil
	}
	for _, set := range []struct{ value, what, unavailable, online string }{
		{r.CpusetCpus, "cpus", "CPUs", "/sys/devices/system/cpu/online"},
		{r.CpusetMems, "mems", "memory nodes", "/sys/devices/system/node/online"},
	} {
		if set.value == "" {
			continue
		}
		wanted, ok := parseCpuset(set.value)
		if !ok {
			return errs.InvalidArgument("Invalid value %s for cpuset %s: invalid format: %s", set.value, set.what, set.value)
		}
		content, err := os.ReadFile(set.online)
		if err != nil {
			continue // a kernel without NUMA; the cgroup itself refuses
		}
		list := strings.TrimSpace(string(content))
		online, _ := parseCpuset(list)
		for _, span := range wanted {
			if !span.within(online) {
				return errs.InvalidArgument("Requested %s are not available - requested %s, available: %s", set.unavailable, set.value, list)
			}
		}
	}
	return nil
}

// span is a range of numbers, both ends included.
type span struct{ first, last uint64 }

func (s span) within(all []span) bool {
	for _, a := range all {
		if s.first >= a.first && s.first <= a.last {
			return s.last <= a.last || span{a.last + 1, s.last}.within(all)
		}
	}
	return false
}

// parseCpuset reads a list such as "0-3,7", see cpuset(7), "List format".
func parseCpuset(list string) (spans []span, ok bool) {
	for _, part := range strings.Split(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 16)
		b, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil || b < a {
			return nil, false
		}
		spans = append(spans, span{a, b})
	}
	return spans, true
}
