package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// systemInfo is what templates of `info` see: the engine's answer, with the
// client's half beside it.
type systemInfo struct {
	*system.Info `json:",omitempty"`
	ServerErrors []string   `json:",omitempty"`
	ClientInfo   clientInfo `json:"ClientInfo"`
}

type clientInfo struct {
	Debug bool
	clientVersion
	Plugins  []plugin
	Warnings []string
}

func (a *app) infoCommand() *cobra.Command {
	return about("info", "Display system-wide information", a.info)
}

func (a *app) info(ctx context.Context, text string) error {
	i := systemInfo{ClientInfo: clientInfo{
		Debug:         a.global.debug,
		clientVersion: clientVersion{Version: Version, Context: "default"},
		Plugins:       a.describePlugins(),
	}}
	var server system.Info
	err := a.json(ctx, &client.Request{Method: client.MethodGet, Path: "/info"}, &server)
	if err == nil {
		i.Info = &server
	} else {
		i.ServerErrors = []string{err.Error()}
	}
	if text != "" {
		if i.Info == nil {
			i.Info = &system.Info{}
		}
		return errors.Join(a.oneObject(text, &i), err)
	}
	p := &infoPrinter{a.out}
	p.client(&i.ClientInfo)
	fmt.Fprintf(a.out, "\nServer:\n")
	if err != nil {
		return err
	}
	p.server(&server)
	for _, w := range server.Warnings {
		fmt.Fprintln(a.err, w)
	}
	return nil
}

type infoPrinter struct{ w io.Writer }

func (p *infoPrinter) line(label string, v any) { fmt.Fprintf(p.w, " %s: %v\n", label, v) }

// given leaves out what an engine did not say.
func (p *infoPrinter) given(label, v string) {
	if v != "" {
		p.line(label, v)
	}
}

func (p *infoPrinter) client(c *clientInfo) {
	fmt.Fprintf(p.w, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %v\n", c.Version, c.Context, c.Debug)
	if len(c.Plugins) == 0 {
		return
	}
	fmt.Fprintln(p.w, " Plugins:")
	for _, g := range c.Plugins {
		fmt.Fprintf(p.w, "  %s: %s (%s)\n", g.Name, g.ShortDescription, g.Vendor)
		if g.Version != "" {
			fmt.Fprintf(p.w, "    Version:  %s\n", g.Version)
		}
		fmt.Fprintf(p.w, "    Path:     %s\n", g.Path)
	}
}

func (p *infoPrinter) server(i *system.Info) {
	p.line("Containers", i.Containers)
	p.line(" Running", i.ContainersRunning)
	p.line(" Paused", i.ContainersPaused)
	p.line(" Stopped", i.ContainersStopped)
	p.line("Images", i.Images)
	p.given("Server Version", i.ServerVersion)
	p.given("Storage Driver", i.Driver)
	for _, pair := range i.DriverStatus {
		p.line(" "+pair[0], pair[1])
	}
	p.given("Logging Driver", i.LoggingDriver)
	p.given("Cgroup Driver", i.CgroupDriver)
	p.given("Cgroup Version", i.CgroupVersion)
	fmt.Fprintln(p.w, " Plugins:")
	p.line(" Volume", strings.Join(i.Plugins.Volume, " "))
	p.line(" Network", strings.Join(i.Plugins.Network, " "))
	p.line(" Log", strings.Join(i.Plugins.Log, " "))
	p.list("CDI spec directories", i.CDISpecDirs)
	var devices []string
	for _, d := range i.DiscoveredDevices {
		devices = append(devices, d.Source+": "+d.ID)
	}
	p.list("Discovered Devices", devices)
	p.given("Swarm", string(i.Swarm.LocalNodeState))
	if len(i.Runtimes) > 0 {
		p.line("Runtimes", strings.Join(slices.Sorted(maps.Keys(i.Runtimes)), " "))
		p.line("Default Runtime", i.DefaultRuntime)
	}
	p.given("Init Binary", i.InitBinary)
	p.given("containerd version", i.ContainerdCommit.ID)
	p.given("runc version", i.RuncCommit.ID)
	p.given("init version", i.InitCommit.ID)
	p.security(i.SecurityOptions)
	p.machine(i)
	p.settings(i)
}

// security prints options such as "name=seccomp,profile=builtin".
func (p *infoPrinter) security(options []string) {
	if len(options) == 0 {
		return
	}
	fmt.Fprintln(p.w, " Security Options:")
	for _, o := range options {
		for _, field := range strings.Split(o, ",") {
			switch k, v, ok := strings.Cut(field, "="); {
			case !ok || k == "name":
				fmt.Fprintf(p.w, "  %s\n", strings.TrimPrefix(field, "name="))
			case k == "profile":
				fmt.Fprintf(p.w, "   Profile: %s\n", v)
			}
		}
	}
}

func (p *infoPrinter) machine(i *system.Info) {
	p.given("Kernel Version", i.KernelVersion)
	p.given("Operating System", i.OperatingSystem)
	p.given("OSType", i.OSType)
	p.given("Architecture", i.Architecture)
	p.line("CPUs", i.NCPU)
	p.line("Total Memory", units.BytesSize(float64(i.MemTotal)))
	p.given("Name", i.Name)
	p.given("ID", i.ID)
	p.line("Docker Root Dir", i.DockerRootDir)
	p.line("Debug Mode", i.Debug)
	if i.Debug {
		p.line(" File Descriptors", i.NFd)
		p.line(" Goroutines", i.NGoroutines)
		p.line(" System Time", i.SystemTime)
		p.line(" EventsListeners", i.NEventsListener)
	}
}

func (p *infoPrinter) settings(i *system.Info) {
	p.given("HTTP Proxy", i.HTTPProxy)
	p.given("HTTPS Proxy", i.HTTPSProxy)
	p.given("No Proxy", i.NoProxy)
	p.list("Labels", i.Labels)
	p.line("Experimental", i.ExperimentalBuild)
	if r := i.RegistryConfig; r != nil {
		var insecure []string
		for name, index := range r.IndexConfigs {
			if index != nil && !index.Secure {
				insecure = append(insecure, name)
			}
		}
		slices.Sort(insecure)
		for _, cidr := range r.InsecureRegistryCIDRs {
			insecure = append(insecure, cidr.String())
		}
		p.list("Insecure Registries", insecure)
		p.list("Registry Mirrors", r.Mirrors)
	}
	p.line("Live Restore Enabled", i.LiveRestoreEnabled)
	var pools []string
	for _, pool := range i.DefaultAddressPools {
		pools = append(pools, fmt.Sprintf(" Base: %s, Size: %d", pool.Base, pool.Size))
	}
	p.list("Default Address Pools", pools)
	if b := i.FirewallBackend; b != nil {
		p.line("Firewall Backend", b.Driver)
		for _, pair := range b.Info {
			p.line(" "+pair[0], pair[1])
		}
	}
	fmt.Fprintln(p.w)
}

func (p *infoPrinter) list(label string, values []string) {
	if len(values) == 0 {
		return
	}
	fmt.Fprintf(p.w, " %s:\n", label)
	for _, v := range values {
		fmt.Fprintf(p.w, "  %s\n", v)
	}
}
