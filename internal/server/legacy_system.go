package server

import (
	"strings"

	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/system"
)

type legacyVersion struct {
	*system.VersionResponse
	GitCommit string
	GoVersion string
}

type legacySystemInfo struct {
	*system.Info
	RegistryConfig    *legacyRegistryConfig
	ContainerdCommit  legacyCommit
	RuncCommit        legacyCommit
	InitCommit        legacyCommit
	BridgeNfIptables  *bool `json:",omitempty"`
	BridgeNfIp6tables *bool `json:",omitempty"`
}

type legacyCommit struct {
	ID       string
	Expected string `json:",omitempty"`
}

type legacyRegistryConfig struct {
	*registry.ServiceConfig
	*legacyArtifacts
	Neighbours []string `json:",omitempty"` // ours: engines that are asked for images
}

// legacyArtifacts are shown empty before API 1.47.
type legacyArtifacts struct {
	AllowNondistributableArtifactsCIDRs     []string
	AllowNondistributableArtifactsHostnames []string
}

func legacyInfo(r *request, info *system.Info) *legacySystemInfo {
	answer := &legacySystemInfo{
		Info:             info,
		ContainerdCommit: legacyCommit{ID: info.ContainerdCommit.ID},
		RuncCommit:       legacyCommit{ID: info.RuncCommit.ID},
		InitCommit:       legacyCommit{ID: info.InitCommit.ID},
	}
	if info.RegistryConfig != nil {
		answer.RegistryConfig = &legacyRegistryConfig{ServiceConfig: info.RegistryConfig}
		if r.before(1_47) {
			answer.RegistryConfig.legacyArtifacts = &legacyArtifacts{}
		}
	}
	if r.before(1_25) {
		info.SecurityOptions = securityNames(info.SecurityOptions)
	}
	if r.before(1_44) {
		for name, rt := range info.Runtimes {
			info.Runtimes[name] = system.RuntimeWithStatus{Runtime: rt.Runtime}
		}
	}
	if r.before(1_46) {
		info.Containerd = nil
	}
	if r.before(1_49) {
		info.FirewallBackend = nil
		for _, c := range []*legacyCommit{&answer.ContainerdCommit, &answer.RuncCommit, &answer.InitCommit} {
			c.Expected = c.ID
		}
	}
	if r.before(1_50) {
		info.DiscoveredDevices = nil
		answer.BridgeNfIptables, answer.BridgeNfIp6tables = new(bool), new(bool)
	}
	info.NRI = nil // came with API 1.53
	return answer
}

// securityNames keeps of "name=seccomp,profile=builtin" what it is called.
func securityNames(options []string) []string {
	var names []string
	for _, option := range options {
		for _, field := range strings.Split(option, ",") {
			if name, ok := strings.CutPrefix(field, "name="); ok || !strings.Contains(option, "=") {
				names = append(names, name)
			}
		}
	}
	return names
}
