package container

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strconv"
	"strings"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/ocirt/cgroup"
)

// Top lists the processes of a running container, as the host's ps shows them
// with the given arguments ("-ef" when empty).
func (m *Manager) Top(ctx context.Context, ref, psArgs string) (*api.TopResponse, error) {
	c, err := m.lookup(ref)
	if err != nil {
		return nil, err
	}
	rec := c.copy()
	switch {
	case rec.State.Status == api.StateRestarting:
		return nil, errs.Conflict("container %s is restarting, wait until the container is running", rec.ID)
	case !rec.running():
		return nil, errs.Conflict("container %s is not running", rec.ID)
	}
	if psArgs == "" {
		psArgs = "-ef"
	}
	args, err := checkPsArgs(psArgs)
	if err != nil {
		return nil, err
	}
	pids, err := cgroup.New(m.cgroupPath(&rec)).Pids()
	if err != nil {
		return nil, err
	}
	top, err := runPs(ctx, args, pids)
	if err != nil {
		return nil, err
	}
	m.publish(c, events.ActionTop)
	return top, nil
}

// checkPsArgs splits the arguments and refuses those that rename the PID
// column, which the processes are found by.
func checkPsArgs(psArgs string) ([]string, error) {
	args := strings.Fields(psArgs)
	for _, arg := range args {
		for _, column := range strings.Split(arg, ",") {
			name, title, renamed := strings.Cut(column, "=")
			if renamed && strings.TrimLeft(name, "-o") == "pid" && title != "PID" && title != "" {
				return nil, errs.InvalidArgument("specifying \"%s\" is not allowed", column)
			}
		}
	}
	return args, nil
}

// runPs runs ps for the processes only; a ps whose arguments do not go with
// that, such as "-ef", lists all processes, and the others are left out.
func runPs(ctx context.Context, args []string, pids []int) (*api.TopResponse, error) {
	list := make([]string, len(pids))
	for i, pid := range pids {
		list[i] = strconv.Itoa(pid)
	}
	output, err := exec.CommandContext(ctx, "ps", append(args, "-q"+strings.Join(list, ","))...).Output()
	if err != nil {
		output, err = exec.CommandContext(ctx, "ps", args...).Output()
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		why, _, _ := strings.Cut(string(exit.Stderr), "\n") // its usage follows
		return nil, errs.InvalidArgument("ps: %s", strings.TrimSpace(why))
	case err != nil:
		return nil, errs.System("cannot run ps: %w", err)
	}
	return parsePs(output, pids)
}

func parsePs(output []byte, pids []int) (*api.TopResponse, error) {
	lines := strings.Split(string(bytes.TrimRight(output, "\n")), "\n")
	top := &api.TopResponse{Titles: strings.Fields(lines[0]), Processes: [][]string{}}
	column := -1
	for i, title := range top.Titles {
		if title == "PID" {
			column = i
		}
	}
	if column < 0 {
		return nil, errs.InvalidArgument("Couldn't find PID field in ps output")
	}
	wanted := map[string]bool{}
	for _, pid := range pids {
		wanted[strconv.Itoa(pid)] = true
	}
	inContainer := false
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= column {
			continue
		}
		// Lines with "-" for the PID are threads of the process before them.
		if fields[column] != "-" {
			inContainer = wanted[fields[column]]
		}
		if !inContainer {
			continue
		}
		if last := len(top.Titles) - 1; len(fields) > last {
			fields = append(fields[:last:last], strings.Join(fields[last:], " "))
		}
		top.Processes = append(top.Processes, fields)
	}
	return top, nil
}
