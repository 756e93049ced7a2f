package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/runflags"
)

func (a *app) updateCommand() *cobra.Command {
	var r container.Resources
	var memory, reservation, kernel runflags.Bytes
	var swap runflags.SwapBytes
	var cpus runflags.CPUs
	var restart string
	var pids int64
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Update configuration of one or more containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return errors.New("you must provide one or more flags when using this command")
			}
			r.Memory, r.MemoryReservation, r.MemorySwap = int64(memory), int64(reservation), int64(swap)
			r.NanoCPUs = int64(cpus)
			if pids != 0 {
				r.PidsLimit = &pids
			}
			req := container.UpdateConfig{Resources: r}
			if restart != "" {
				var err error
				if req.RestartPolicy, err = runflags.ParseRestart(restart); err != nil {
					return err
				}
			}
			return a.update(cmd, args, &req)
		},
		ValidArgsFunction: a.completeContainers(anyState),
	}
	fs := cmd.Flags()
	fs.Uint16Var(&r.BlkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	fs.Int64Var(&r.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&r.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&r.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	fs.Int64Var(&r.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	fs.StringVar(&r.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&r.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Int64VarP(&r.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.VarP(&memory, "memory", "m", "Memory limit")
	fs.Var(&reservation, "memory-reservation", "Memory soft limit")
	fs.Var(&swap, "memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
	fs.Var(&kernel, "kernel-memory", "Kernel memory limit (deprecated: engines ignore it)")
	fs.Lookup("kernel-memory").Hidden = true
	fs.StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
	fs.Int64Var(&pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Var(&cpus, "cpus", "Number of CPUs")
	return cmd
}

func (a *app) update(cmd *cobra.Command, names []string, req *container.UpdateConfig) error {
	var warnings []string
	var errs []error
	for _, name := range names {
		var resp container.UpdateResponse
		err := a.json(cmd.Context(), &client.Request{Method: client.MethodPost, Path: containerPath(name, "update"), JSON: req}, &resp)
		warnings = append(warnings, resp.Warnings...)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(a.out, name)
	}
	if len(warnings) > 0 {
		fmt.Fprintln(a.out, strings.Join(warnings, "\n"))
	}
	return errors.Join(errs...)
}
