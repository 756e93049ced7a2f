package ocispec

import (
	"slices"
	"strconv"
	"strings"

	api "github.com/moby/moby/api/types/container"
	cdilib "tags.cncf.io/container-device-interface/pkg/cdi"
)

// gpuDriver is one way to give a container GPUs, as Docker has them.
type gpuDriver struct {
	name         string
	kind         string   // of its CDI devices
	capabilities []string // what can be asked of it beside "gpu" and its name
}

func gpuDrivers() []gpuDriver {
	return []gpuDriver{
		{"nvidia", "nvidia.com/gpu", []string{"compute", "compat32", "graphics", "utility", "video", "display"}},
		{"amd", "amd.com/gpu", nil},
	}
}

// maxGPUs bounds a request by number: more than a machine has.
const maxGPUs = 1024

// gpus serves a request as --gpus makes it with the CDI devices it returns. The
// driver is the one that is named, or else the first whose devices somebody has
// described here and that can do all of one of the lists of capabilities.
//
// NVIDIA's older hook is not used: it wants a bundle on disk to read, which
// containers of this engine do not have. Who has nothing else takes --runtime.
func gpus(r *api.DeviceRequest, cache *cdilib.Cache) (devices []string, err error) {
	for _, d := range gpuDrivers() {
		described := func(name string) bool { return strings.HasPrefix(name, d.kind+"=") }
		if r.Driver != "" && r.Driver != d.name || !d.serves(r) || !slices.ContainsFunc(cache.ListDevices(), described) {
			continue
		}
		ids, err := requested(r)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			if !strings.Contains(id, "=") {
				id = d.kind + "=" + id
			}
			devices = append(devices, id)
		}
		return devices, nil
	}
	return nil, noDriver(r)
}

// serves says whether the driver has all of one of the lists of capabilities.
func (d *gpuDriver) serves(r *api.DeviceRequest) bool {
	unknown := func(c string) bool {
		return c != "gpu" && c != d.name && !slices.Contains(d.capabilities, c)
	}
	return slices.ContainsFunc(r.Capabilities, func(list []string) bool {
		return len(list) > 0 && !slices.ContainsFunc(list, unknown)
	})
}

// requested are the names of the devices: those listed, or the first so many.
func requested(r *api.DeviceRequest) ([]string, error) {
	switch {
	case r.Count != 0 && len(r.DeviceIDs) > 0:
		return nil, invalid("cannot set both Count and DeviceIDs on device request")
	case len(r.DeviceIDs) > 0:
		return r.DeviceIDs, nil
	case r.Count < 0:
		return []string{"all"}, nil
	case r.Count > maxGPUs:
		return nil, invalid("cannot give a container %d GPUs: no machine has more than %d", r.Count, maxGPUs)
	}
	ids := make([]string, r.Count)
	for i := range ids {
		ids[i] = strconv.Itoa(i)
	}
	return ids, nil
}
