package ocispec

import (
	"fmt"
	"strings"

	api "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/runtime-spec/specs-go"
	cdilib "tags.cncf.io/container-device-interface/pkg/cdi"
)

// cdi adds devices by their qualified names, as the Container Device Interface
// describes them in the files of /etc/cdi and /var/run/cdi.
func cdi(s *specs.Spec, in *Input) error {
	var names []string
	for _, r := range in.HostConfig.DeviceRequests {
		if r.Driver != "cdi" {
			return invalid("could not select device driver %q with capabilities: %v", r.Driver, capabilitySets(&r))
		}
		names = append(names, r.DeviceIDs...)
	}
	if len(names) == 0 {
		return nil
	}
	cache, err := cdilib.NewCache(cdilib.WithAutoRefresh(false))
	if err != nil {
		return describe("cannot read the CDI devices", err)
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

func capabilitySets(r *api.DeviceRequest) string { return fmt.Sprint(r.Capabilities) }
