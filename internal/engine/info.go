package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
	vtypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/image"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
	"github.com/gantry-containers/gantry/internal/state"
)

// What Version and Info tell of the build; the linker sets them.
var (
	Version   = "0.1.0-dev"
	GitCommit = "unknown"
	BuildTime = ""
)

// engineID is a name for the engine that never changes.
func engineID(db *state.DB) (string, error) {
	table := state.NewTable[string](db, "engine")
	id, ok, err := table.Get("id")
	if err != nil {
		return "", err
	}
	if ok {
		return *id, nil
	}
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // a version 4 UUID
	s := hex.EncodeToString(b[:])
	fresh := strings.Join([]string{s[:8], s[8:12], s[12:16], s[16:20], s[20:]}, "-")
	return fresh, table.Put("id", &fresh)
}

// Info describes the engine and what this machine lets it do.
func (e *Engine) Info(ctx context.Context) (*system.Info, error) {
	e.mu.Lock()
	c := e.config
	e.mu.Unlock()
	running, paused, stopped := e.Containers.Counts()
	can := cgroup.Supported()
	host, _ := os.Hostname()
	info := &system.Info{
		ID:                e.id,
		Containers:        running + paused + stopped,
		ContainersRunning: running,
		ContainersPaused:  paused,
		ContainersStopped: stopped,
		Images:            e.Images.Count(),
		Driver:            e.snapshots.Name(),
		DriverStatus:      e.snapshots.Status(),
		Plugins: system.PluginsInfo{
			Volume: []string{"local"}, Network: []string{"bridge", "host", "null"}, Log: []string{"json-file", "local", "none"},
		},
		MemoryLimit: can.Memory, SwapLimit: can.Swap, OomKillDisable: can.OOMKillDisable,
		CPUCfsPeriod: can.CPUQuota, CPUCfsQuota: can.CPUQuota, CPUShares: can.CPUShares, CPUSet: can.Cpuset,
		PidsLimit:          can.Pids,
		IPv4Forwarding:     sysctlOn("net/ipv4/ip_forward"),
		Debug:              c.Debug,
		NFd:                openFiles(),
		NGoroutines:        runtime.NumGoroutine(),
		SystemTime:         time.Now().Format(time.RFC3339Nano),
		LoggingDriver:      c.LogDriver,
		CgroupDriver:       "cgroupfs",
		CgroupVersion:      cgroupVersion(),
		NEventsListener:    e.Events.Listeners(),
		KernelVersion:      kernelVersion(),
		OSType:             "linux",
		Architecture:       machine(),
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     registryConfig(&c),
		NCPU:               runtime.NumCPU(),
		MemTotal:           memory(),
		DockerRootDir:      c.DataRoot,
		HTTPProxy:          os.Getenv("HTTP_PROXY"),
		HTTPSProxy:         os.Getenv("HTTPS_PROXY"),
		NoProxy:            os.Getenv("NO_PROXY"),
		Name:               host,
		Labels:             orEmpty(c.Labels),
		ServerVersion:      Version,
		LiveRestoreEnabled: true,
		Runtimes:           runtimes(&c),
		DefaultRuntime:     defaultRuntime(&c),
		InitBinary:         "gantry-init",
		SecurityOptions:    securityOptions(),
		CDISpecDirs:        c.CDISpecDirs,
		FirewallBackend:    &system.FirewallInfo{Driver: "nftables"},
	}
	info.Swarm.LocalNodeState = "inactive"
	info.OperatingSystem, info.OSVersion = operatingSystem()
	info.Warnings = append(warnings(&can), e.Networks.Warnings()...)
	if e.appArmorWarning != "" {
		info.Warnings = append(info.Warnings, "WARNING: "+e.appArmorWarning)
	}
	return info, nil
}

// Neighbours are the engines that are asked for images before registries.
func (e *Engine) Neighbours() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.config.Neighbours
}

// warnings are what a user misses on this machine, one sentence each.
func warnings(can *cgroup.Support) []string {
	var list []string
	for _, w := range []struct {
		ok   bool
		text string
	}{
		{can.Memory, "WARNING: No memory limit support"},
		{can.Swap, "WARNING: No swap limit support"},
		{can.CPUQuota, "WARNING: No cpu cfs quota support"},
		{can.CPUShares, "WARNING: No cpu shares support"},
		{can.Cpuset, "WARNING: No cpuset support"},
		{can.Pids, "WARNING: No pids limit support"},
		{can.BlkioThrottle, "WARNING: No blkio throttle support"},
		{hasCapability(unix.CAP_SYS_RESOURCE), "WARNING: The engine lacks CAP_SYS_RESOURCE: limits cannot be raised nor OOM scores lowered"},
	} {
		if !w.ok {
			list = append(list, w.text)
		}
	}
	return list
}

func hasCapability(c uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) != nil {
		return true
	}
	return data[c/32].Effective&(1<<(c%32)) != 0
}

func cgroupVersion() string {
	if cgroup.Detect() == cgroup.Unified {
		return "2"
	}
	return "1"
}

func sysctlOn(name string) bool {
	b, err := os.ReadFile("/proc/sys/" + name)
	return err == nil && strings.TrimSpace(string(b)) == "1"
}

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

func uname() unix.Utsname {
	var u unix.Utsname
	unix.Uname(&u)
	return u
}

func kernelVersion() string { u := uname(); return unix.ByteSliceToString(u.Release[:]) }
func machine() string       { u := uname(); return unix.ByteSliceToString(u.Machine[:]) }

func memory() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// operatingSystem reads os-release(5).
func operatingSystem() (name, version string) {
	name = "Linux"
	content, err := os.ReadFile("/etc/os-release")
	if err != nil {
		if content, err = os.ReadFile("/usr/lib/os-release"); err != nil {
			return name, ""
		}
	}
	for _, line := range strings.Split(string(content), "\n") {
		key, value, _ := strings.Cut(line, "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "PRETTY_NAME":
			name = value
		case "VERSION_ID":
			version = value
		}
	}
	return name, version
}

func securityOptions() []string {
	options := []string{"name=seccomp,profile=builtin"}
	if b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled"); err == nil && len(b) > 0 && b[0] == 'Y' {
		options = append([]string{"name=apparmor"}, options...)
	}
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		options = append(options, "name=selinux")
	}
	if cgroup.Detect() == cgroup.Unified {
		options = append(options, "name=cgroupns")
	}
	return options
}

func registryConfig(c *Config) *registry.ServiceConfig {
	config := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs: map[string]*registry.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: orEmpty(c.RegistryMirrors), Secure: true, Official: true},
		},
		Mirrors: orEmpty(c.RegistryMirrors),
	}
	for _, r := range c.InsecureRegistries {
		if prefix, err := netip.ParsePrefix(r); err == nil {
			config.InsecureRegistryCIDRs = append(config.InsecureRegistryCIDRs, prefix)
		} else {
			config.IndexConfigs[r] = &registry.IndexInfo{Name: r, Mirrors: []string{}}
		}
	}
	return config
}

func defaultRuntime(c *Config) string {
	if c.DefaultRuntime == "" {
		return container.BuiltinRuntime
	}
	return c.DefaultRuntime
}

func runtimes(c *Config) map[string]system.RuntimeWithStatus {
	list := map[string]system.RuntimeWithStatus{container.BuiltinRuntime: {Runtime: system.Runtime{Path: "gantry-oci"}}}
	for name, r := range c.Runtimes {
		list[name] = system.RuntimeWithStatus{Runtime: system.Runtime{Path: r.Path, Args: r.Args}}
	}
	// The default may be the built-in one by another of its names.
	if name := defaultRuntime(c); list[name].Path == "" {
		list[name] = list[container.BuiltinRuntime]
	}
	return list
}

// VersionInfo is the answer to "version". The server adds the API versions,
// which are its own.
func (e *Engine) VersionInfo(ctx context.Context) (*system.VersionResponse, error) {
	return &system.VersionResponse{
		Platform:      system.PlatformInfo{Name: "Gantry"},
		Version:       Version,
		GitCommit:     GitCommit,
		GoVersion:     runtime.Version(),
		Os:            runtime.GOOS,
		Arch:          runtime.GOARCH,
		KernelVersion: kernelVersion(),
		BuildTime:     BuildTime,
	}, nil
}

// Usage is what takes disk space, as du(1) counts it; what was not asked for is
// nil.
type Usage struct {
	Images     *image.Usage
	Containers []api.Summary // SizeRw is all a container has on disk, its log included
	Volumes    []vtypes.Volume
}

// DiskUsage adds up what images, containers and volumes take on disk.
func (e *Engine) DiskUsage(ctx context.Context, containers, images, volumes bool) (u *Usage, err error) {
	u = &Usage{}
	if images {
		if u.Images, err = e.Images.Usage(ctx); err != nil {
			return nil, err
		}
	}
	if containers {
		if u.Containers, err = e.containerUsage(ctx); err != nil {
			return nil, err
		}
	}
	if volumes {
		if u.Volumes, err = e.Volumes.Usage(ctx); err != nil {
			return nil, err
		}
	}
	return u, nil
}

func (e *Engine) containerUsage(ctx context.Context) ([]api.Summary, error) {
	list, err := e.Containers.List(ctx, container.ListOptions{All: true})
	if err != nil {
		return nil, err
	}
	for i := range list {
		list[i].SizeRw, err = e.Containers.Disk(ctx, list[i].ID)
		if err != nil && !errdefs.IsNotFound(err) { // removed since
			return nil, err
		}
	}
	return list, nil
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
