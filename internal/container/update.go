package container

import (
	"context"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocispec"
)

// Update changes limits and the restart policy of a container; those of a
// running one at once. What is zero in the request stays as it is.
func (m *Manager) Update(ctx context.Context, ref string, u *api.UpdateConfig) (api.UpdateResponse, error) {
	c, err := m.lookup(ref)
	if err != nil {
		return api.UpdateResponse{}, err
	}
	if err := api.ValidateRestartPolicy(u.RestartPolicy); err != nil {
		return api.UpdateResponse{}, errs.InvalidArgument("%w", err)
	}
	warnings, err := m.validateResources(&u.Resources, true)
	if err != nil {
		return api.UpdateResponse{}, err
	}
	c.op.Lock()
	defer c.op.Unlock()
	rec := c.copy()
	if rec.State.Status == api.StateRemoving || rec.State.Status == api.StateDead {
		return api.UpdateResponse{}, errs.Conflict("container is marked for removal and cannot be \"update\"")
	}
	host := *rec.HostConfig
	if u.RestartPolicy.Name != "" {
		if host.AutoRemove && !u.RestartPolicy.IsNone() {
			return api.UpdateResponse{}, errs.InvalidArgument("Restart policy cannot be updated because AutoRemove is enabled for the container")
		}
		host.RestartPolicy = u.RestartPolicy
	}
	if err := mergeResources(&host.Resources, &u.Resources); err != nil {
		return api.UpdateResponse{}, err
	}
	if rec.running() {
		resources, err := ocispec.UpdatedResources(&host)
		if err != nil {
			return api.UpdateResponse{}, err
		}
		if err := m.opts.Shim.Update(ctx, rec.ID, resources); err != nil {
			return api.UpdateResponse{}, err
		}
	}
	c.mu.Lock()
	c.rec.HostConfig = &host
	c.mu.Unlock()
	if err := m.save(c); err != nil {
		return api.UpdateResponse{}, err
	}
	m.publish(c, events.ActionUpdate)
	return api.UpdateResponse{Warnings: warnings}, nil
}

// mergeResources takes over what the update sets.
func mergeResources(r, u *api.Resources) error {
	if u.NanoCPUs != 0 && (r.CPUPeriod != 0 || r.CPUQuota != 0) {
		return errs.Conflict("Conflicting options: Nano CPUs cannot be updated as CPU Period/Quota has already been set")
	}
	if (u.CPUPeriod != 0 || u.CPUQuota != 0) && r.NanoCPUs != 0 {
		return errs.Conflict("Conflicting options: CPU Period/Quota cannot be updated as NanoCPUs has already been set")
	}
	set(&r.BlkioWeight, u.BlkioWeight)
	set(&r.CPUShares, u.CPUShares)
	set(&r.NanoCPUs, u.NanoCPUs)
	set(&r.CPUPeriod, u.CPUPeriod)
	set(&r.CPUQuota, u.CPUQuota)
	set(&r.CPURealtimePeriod, u.CPURealtimePeriod)
	set(&r.CPURealtimeRuntime, u.CPURealtimeRuntime)
	set(&r.CpusetCpus, u.CpusetCpus)
	set(&r.CpusetMems, u.CpusetMems)
	if u.Memory != 0 && u.MemorySwap == 0 && r.MemorySwap > 0 && u.Memory > r.MemorySwap {
		return errs.Conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
	}
	if r.Memory > 0 && u.Memory == 0 && u.MemorySwap > 0 && u.MemorySwap < r.Memory {
		return errs.Conflict("Minimum memoryswap limit should be larger than memory limit, see usage")
	}
	set(&r.Memory, u.Memory)
	set(&r.MemorySwap, u.MemorySwap)
	set(&r.MemoryReservation, u.MemoryReservation)
	if u.PidsLimit != nil {
		r.PidsLimit = u.PidsLimit
	}
	return nil
}

func set[T comparable](field *T, value T) {
	var zero T
	if value != zero {
		*field = value
	}
}
