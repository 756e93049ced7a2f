package cli

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

func (a *app) portCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "port CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short: "List port mappings or a specific mapping for the container",
		Args:  rangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.inspectContainer(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			var ports network.PortMap
			if c.NetworkSettings != nil {
				ports = c.NetworkSettings.Ports
			}
			var lines []string
			if len(args) > 1 {
				lines, err = oneMapping(ports, args[0], args[1])
			} else {
				lines = allMappings(ports)
			}
			for _, line := range lines {
				fmt.Fprintln(a.out, line)
			}
			return err
		},
		ValidArgsFunction: a.completeContainers(isRunning),
	}
}

func oneMapping(ports network.PortMap, name, want string) ([]string, error) {
	number, proto, _ := strings.Cut(want, "/")
	if proto == "" {
		proto = "tcp"
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("invalid port (%s)", number)
	}
	port, _ := network.PortFrom(uint16(n), network.IPProtocol(proto))
	if len(ports[port]) == 0 {
		return nil, fmt.Errorf("no public port '%s' published for %s", want, name)
	}
	var lines []string
	for _, b := range ports[port] {
		lines = append(lines, hostPort(b))
	}
	return sorted(lines), nil
}

func allMappings(ports network.PortMap) []string {
	var lines []string
	for port, bindings := range ports {
		for _, b := range bindings {
			lines = append(lines, fmt.Sprintf("%s -> %s", port, hostPort(b)))
		}
	}
	return sorted(lines)
}

func hostPort(b network.PortBinding) string {
	ip := ""
	if b.HostIP.IsValid() {
		ip = b.HostIP.String()
	}
	return net.JoinHostPort(ip, b.HostPort)
}

func sorted(lines []string) []string {
	slices.SortFunc(lines, byName)
	return lines
}
