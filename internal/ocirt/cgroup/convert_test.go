package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestSharesToWeight(t *testing.T) {
	// The fixed points, and what runc 1.3 and crun 1.23 make of the others.
	for shares, want := range map[uint64]uint64{0: 0, 1: 1, 2: 1, 512: 59, 1024: 100, 2048: 174, 262144: 10000, 1 << 40: 10000} {
		if got := sharesToWeight(shares); got != want {
			t.Errorf("%d shares are weight %d, want %d", shares, got, want)
		}
	}
	last := uint64(0)
	for s := uint64(2); s <= 262144; s += 7 {
		w := sharesToWeight(s)
		if w < last || w < 1 || w > 10000 {
			t.Fatalf("%d shares are weight %d after %d", s, w, last)
		}
		last = w
	}
}

func TestSwapToV2(t *testing.T) {
	for _, tc := range []struct {
		limit, swap int64
		want        string
		bad         bool
	}{
		{100, 300, "200", false},
		{100, 100, "0", false},
		{100, -1, "max", false},
		{-1, 0, "max", false},
		{100, 0, "", false},
		{0, 0, "", false},
		{0, 100, "", true},
		{-1, 100, "", true},
		{100, 50, "", true},
	} {
		got, err := swapToV2(tc.limit, tc.swap)
		if got != tc.want || (err != nil) != tc.bad {
			t.Errorf("memory %d, swap %d: %q, %v; want %q", tc.limit, tc.swap, got, err, tc.want)
		}
	}
}

func TestIOWeight(t *testing.T) {
	for w, want := range map[uint16]uint64{10: 1, 1000: 10000, 500: 4950, 0: 1} {
		if got := ioWeight(w); got != want {
			t.Errorf("weight %d is %d, want %d", w, got, want)
		}
	}
}

// fakeV2 is a v2 cgroup in a plain directory that offers the named files.
func fakeV2(t *testing.T, files ...string) *Cgroup {
	t.Helper()
	root := t.TempDir()
	dir := filepath.Join(root, "c")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lay := &layout{mode: Unified, hierarchies: []hierarchy{{mount: root, v2: true, controllers: []string{"cpu", "cpuset", "memory", "pids", "io", "hugetlb", "rdma", "devices", "freezer"}}}}
	return newAt(lay, nil, "c")
}

func ptr[T any](v T) *T { return &v }

func TestFilesOfV2(t *testing.T) {
	dev := specs.LinuxBlockIODevice{Major: 8, Minor: 16}
	weightDev := specs.LinuxWeightDevice{LinuxBlockIODevice: dev, Weight: ptr(uint16(1000))}
	for _, tc := range []struct {
		name string
		res  specs.LinuxResources
		want map[string]string
	}{
		{"memory and swap", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1000)), Swap: ptr(int64(3000)), Reservation: ptr(int64(500)), Swappiness: ptr(uint64(60)), DisableOOMKiller: ptr(true)}},
			map[string]string{"memory.max": "1000", "memory.swap.max": "2000", "memory.low": "500"}},
		{"no memory limit", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-1))}},
			map[string]string{"memory.max": "max", "memory.swap.max": "max"}},
		{"cpu", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(50000)), Cpus: "0-1", Mems: "0", Idle: ptr(int64(0)), Burst: ptr(uint64(7))}},
			map[string]string{"cpu.weight": "100", "cpu.max": "50000 100000", "cpuset.cpus": "0-1", "cpuset.mems": "0", "cpu.idle": "0", "cpu.max.burst": "7"}},
		{"cpu period alone", specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(20000))}},
			map[string]string{"cpu.max": "max 20000"}},
		{"pids", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(10))}}, map[string]string{"pids.max": "10"}},
		{"pids unlimited", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, map[string]string{"pids.max": "max"}},
		{"io", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(10)), ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{{LinuxBlockIODevice: dev, Rate: 5}}}},
			map[string]string{"io.weight": "1", "io.max": "8:16 rbps=5"}},
		{"io weight of a device", specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{WeightDevice: []specs.LinuxWeightDevice{weightDev}}},
			map[string]string{"io.weight": "8:16 10000"}},
		{"hugetlb", specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4}}},
			map[string]string{"hugetlb.2MB.max": "4", "hugetlb.2MB.rsvd.max": "4"}},
		{"rdma", specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_0": {HcaHandles: ptr(uint32(2)), HcaObjects: ptr(uint32(3))}}},
			map[string]string{"rdma.max": "mlx5_0 hca_handle=2 hca_object=3"}},
		{"unified wins", specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(10))}, Unified: map[string]string{"pids.max": "11"}},
			map[string]string{"pids.max": "11"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var files []string
			for f := range tc.want {
				files = append(files, f)
			}
			c := fakeV2(t, files...)
			if err := c.apply(&tc.res); err != nil {
				t.Fatal(err)
			}
			for f, want := range tc.want {
				if got, _ := readFile(filepath.Join(c.Dir("memory"), f)); got != want {
					t.Errorf("%s is %q, want %q", f, got, want)
				}
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		res   specs.LinuxResources
		class error
	}{
		"net_cls is not in v2":     {specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(1))}}, errdefs.ErrNotImplemented},
		"no such unified file":     {specs.LinuxResources{Unified: map[string]string{"memory.nope": "1"}}, errdefs.ErrNotImplemented},
		"unified path":             {specs.LinuxResources{Unified: map[string]string{"../memory.max": "1"}}, errdefs.ErrInvalidArgument},
		"unified moving processes": {specs.LinuxResources{Unified: map[string]string{"cgroup.procs": "1"}}, errdefs.ErrInvalidArgument},
		"huge page size as path":   {specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../2MB"}}}, errdefs.ErrInvalidArgument},
		"negative memory":          {specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-2))}}, errdefs.ErrInvalidArgument},
		"realtime":                 {specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimeRuntime: ptr(int64(1))}}, errdefs.ErrNotImplemented},
	} {
		if err := fakeV2(t, "memory.max").apply(&tc.res); !errors.Is(err, tc.class) {
			t.Errorf("%s: %v, want %v", name, err, tc.class)
		}
	}
}

func TestControllerNotHandedDown(t *testing.T) {
	c := fakeV2(t, "cgroup.controllers")
	err := c.apply(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 20))}})
	if !errors.Is(err, errdefs.ErrNotImplemented) || !strings.Contains(err.Error(), "processes live in a cgroup above it") {
		t.Error(err)
	}
}

func TestParseIOStat(t *testing.T) {
	var b BlkioStats
	parseIOStat("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\nbad\n254:1 \n", &b)
	want := BlkioStats{
		ServiceBytes: []BlkioEntry{{8, 0, "read", 1}, {8, 0, "write", 2}},
		Serviced:     []BlkioEntry{{8, 0, "read", 3}, {8, 0, "write", 4}},
	}
	if !reflect.DeepEqual(b, want) {
		t.Errorf("got %+v", b)
	}
}

func TestParseBlkio(t *testing.T) {
	got := parseBlkio("8:0 Read 1\n8:0 Total 2\nTotal 2\n8:16 9\n")
	want := []BlkioEntry{{8, 0, "Read", 1}, {8, 0, "Total", 2}, {8, 16, "", 9}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}
