package server

import (
	"encoding/json"
	"io"
	"net/http"

	ctypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/image"
)

// createRequest is the body of a create with what versions before 1.52 had in
// it: its fields hide the newer ones of the same name.
type createRequest struct {
	*ctypes.Config
	Cmd        words
	Entrypoint words
	Shell      words
	MacAddress network.HardwareAddr

	HostConfig       *createHostConfig
	NetworkingConfig *network.NetworkingConfig
}

type createHostConfig struct {
	*ctypes.HostConfig
	CapAdd       words
	CapDrop      words
	Capabilities []string // only of API 1.40, and never honoured
}

// words is a list of strings, for which clients may send a single one.
type words []string

func (l *words) UnmarshalJSON(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	if data[0] != '"' {
		return json.Unmarshal(data, (*[]string)(l))
	}
	var word string
	if err := json.Unmarshal(data, &word); err != nil {
		return err
	}
	*l = words{word}
	return nil
}

func (s *Server) createContainer(w *response, r *request) error {
	if err := r.checkJSON(); err != nil {
		return err
	}
	o, legacyMAC, err := decodeCreate(r.Body, r.api)
	if err != nil {
		return err
	}
	if o.Platform, err = createPlatform(r); err != nil {
		return err
	}
	o.Name = r.Form.Get("name")
	warnings, err := adaptCreate(o, legacyMAC, r.api)
	if err != nil {
		return err
	}
	if run := runAsked(r); run != nil {
		return s.runContainer(w, r, o, run, warnings)
	}
	answer, err := s.containers.Create(r.Context(), o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, withWarnings(answer, warnings))
}

func withWarnings(answer ctypes.CreateResponse, more []string) ctypes.CreateResponse {
	answer.Warnings = append(append([]string{}, answer.Warnings...), more...)
	return answer
}

// createPlatform reads os/arch[/variant], which this route takes instead of JSON.
func createPlatform(r *request) (*ocispec.Platform, error) {
	text := r.Form.Get("platform")
	if text == "" || r.before(1_41) {
		return nil, nil
	}
	return parsePlatform(text)
}

func parsePlatform(text string) (*ocispec.Platform, error) {
	p, err := image.ParsePlatform(text)
	if err != nil {
		return nil, err
	}
	return &p, nil
}

// decodeCreate reads the body of a create and fills in what may be left out.
func decodeCreate(body io.Reader, v apiVersion) (*container.CreateOptions, network.HardwareAddr, error) {
	var c createRequest
	if err := decodeJSON(body, &c); err != nil {
		return nil, nil, err
	}
	if c.Config == nil && c.Cmd == nil && c.Entrypoint == nil && c.Shell == nil {
		return nil, nil, errs.InvalidArgument("config cannot be empty in order to create a container")
	}
	if c.Config == nil {
		c.Config = &ctypes.Config{}
	}
	c.Config.Cmd, c.Config.Entrypoint, c.Config.Shell = c.Cmd, c.Entrypoint, c.Shell
	host := &ctypes.HostConfig{}
	if c.HostConfig != nil {
		if c.HostConfig.HostConfig != nil {
			host = c.HostConfig.HostConfig
		}
		host.CapAdd, host.CapDrop = c.HostConfig.CapAdd, c.HostConfig.CapDrop
		if len(c.HostConfig.Capabilities) > 0 && v == 1_40 {
			return nil, nil, errs.InvalidArgument("HostConfig.Capabilities is not supported; use CapAdd and CapDrop")
		}
	}
	if c.Config.Volumes == nil {
		c.Config.Volumes = map[string]struct{}{}
	}
	if host.PortBindings == nil {
		host.PortBindings = network.PortMap{}
	}
	nets := c.NetworkingConfig
	if nets == nil {
		nets = &network.NetworkingConfig{}
	}
	if nets.EndpointsConfig == nil {
		nets.EndpointsConfig = map[string]*network.EndpointSettings{}
	}
	for name, ep := range nets.EndpointsConfig {
		if ep == nil {
			nets.EndpointsConfig[name] = &network.EndpointSettings{}
		}
	}
	return &container.CreateOptions{Config: c.Config, HostConfig: host, NetworkingConfig: nets}, c.MacAddress, nil
}
