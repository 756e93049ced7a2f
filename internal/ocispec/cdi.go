package ocispec

import (
	"strings"

	api "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	cdilib "tags.cncf.io/container-device-interface/pkg/cdi"
)

// deviceRequests adds the devices that are asked for by what they are, not by
// their nodes: CDI devices by their qualified names, and GPUs.
func deviceRequests(s *specs.Spec, in *Input) error {
	if len(in.HostConfig.DeviceRequests) == 0 {
		return nil
	}
	// The files are read when they are needed: drivers write them at any time.
	cache, err := cdilib.NewCache(cdilib.WithAutoRefresh(false), cdilib.WithSpecDirs(in.CDISpecDirs...))
	if err != nil {
		return describe("cannot read the CDI devices", err)
	}
	var names []string
	for i := range in.HostConfig.DeviceRequests {
		r := &in.HostConfig.DeviceRequests[i]
		if r.Driver == "cdi" {
			names = append(names, r.DeviceIDs...)
			continue
		}
		devices, err := gpus(r, cache)
		if err != nil {
			return err
		}
		names = append(names, devices...)
	}
	return inject(s, cache, names)
}

// inject adds devices by their qualified names, as the files of the Container
// Device Interface describe them.
func inject(s *specs.Spec, cache *cdilib.Cache, names []string) error {
	if len(names) == 0 {
		return nil
	}
	unresolved, err := cache.InjectDevices(s, names...)
	if len(unresolved) > 0 {
		return invalid("CDI device injection failed: unresolvable CDI devices %s", strings.Join(unresolved, ", "))
	}
	if err != nil {
		return describe("CDI device injection failed", err)
	}
	return nil
}

// noDriver is the answer to a request that nothing on this machine can serve.
func noDriver(r *api.DeviceRequest) error {
	return invalid("could not select device driver %q with capabilities: %v", r.Driver, r.Capabilities)
}
