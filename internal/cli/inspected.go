package cli

import (
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// The types in this file are what templates of `inspect` see. They differ from
// the API's where those hold parsed addresses and ports: a template compares and
// prints strings, and an address that is not set must print as nothing.

type inspectedContainer struct {
	container.InspectResponse
	HostConfig      *inspectedHostConfig
	NetworkSettings *inspectedNetworks
}

type inspectedHostConfig struct {
	container.HostConfig
	PortBindings map[string][]inspectedBinding
	DNS          []string `json:"Dns"`
}

type inspectedBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

type inspectedNetworks struct {
	Bridge, SandboxID, SandboxKey string
	Ports                         map[string][]inspectedBinding
	Networks                      map[string]*inspectedEndpoint

	// The first network's, as engines sent them before API 1.52.
	EndpointID, Gateway, IPAddress, IPv6Gateway, GlobalIPv6Address, MacAddress string
	IPPrefixLen, GlobalIPv6PrefixLen                                           int
}

type inspectedEndpoint struct {
	IPAMConfig *struct {
		IPv4Address, IPv6Address string
		LinkLocalIPs             []string
	}
	Links, Aliases, DNSNames                              []string
	DriverOpts                                            map[string]string
	GwPriority                                            int
	NetworkID, EndpointID, Gateway, IPAddress, MacAddress string
	IPv6Gateway, GlobalIPv6Address                        string
	IPPrefixLen, GlobalIPv6PrefixLen                      int
}

type inspectedNetwork struct {
	Name       string
	ID         string `json:"Id"`
	Created    time.Time
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       struct {
		Driver  string
		Options map[string]string
		Config  []struct {
			Subnet, IPRange, Gateway string
			AuxAddress               map[string]string `json:"AuxiliaryAddresses"`
		}
	}
	Internal, Attachable, Ingress, ConfigOnly bool
	ConfigFrom                                network.ConfigReference
	Containers                                map[string]struct{ Name, EndpointID, MacAddress, IPv4Address, IPv6Address string }
	Options, Labels                           map[string]string
}
