package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// containerPath is the API's path of what is done to a container.
func containerPath(name, action string) string {
	if action != "" {
		action = "/" + action
	}
	return "/containers/" + name + action
}

// post does something to a container that answers nothing.
func (a *app) post(ctx context.Context, name, action string, q url.Values) error {
	if strings.Trim(name, "/ ") == "" {
		return errors.New("invalid container name or ID: value is empty")
	}
	return a.json(ctx, &client.Request{Method: client.MethodPost, Path: containerPath(name, action), Query: q}, nil)
}

// inspectContainer reads what attach, logs, start and port need to know.
func (a *app) inspectContainer(ctx context.Context, name string) (*container.InspectResponse, error) {
	if strings.Trim(name, "/ ") == "" {
		return nil, errors.New("invalid container name or ID: value is empty")
	}
	var c container.InspectResponse
	err := a.json(ctx, &client.Request{Method: client.MethodGet, Path: containerPath(name, "json")}, &c)
	if err == nil && c.Config == nil {
		c.Config = &container.Config{}
	}
	if err == nil && c.HostConfig == nil {
		c.HostConfig = &container.HostConfig{}
	}
	if err == nil && c.State == nil {
		c.State = &container.State{}
	}
	return &c, err
}

// filters is the --filter flag: name=value pairs, sent as the API's JSON.
type filters map[string]map[string]bool

func (f *filters) Set(v string) error {
	if v == "" {
		return nil
	}
	k, val, ok := strings.Cut(v, "=")
	if !ok {
		return errors.New("bad format of filter (expected name=value)")
	}
	f.add(strings.ToLower(strings.TrimSpace(k)), strings.TrimSpace(val))
	return nil
}

func (f *filters) add(k, v string) {
	if *f == nil {
		*f = filters{}
	}
	if (*f)[k] == nil {
		(*f)[k] = map[string]bool{}
	}
	(*f)[k][v] = true
}

func (f *filters) String() string { return "" }
func (f *filters) Type() string   { return "filter" }

// query adds the filters to q.
func (f filters) query(q url.Values) url.Values {
	if len(f) > 0 {
		text, _ := json.Marshal(f) // a map of maps of bools always encodes
		q.Set("filters", string(text))
	}
	return q
}

// stopFlags are those of stop and restart.
type stopFlags struct {
	signal  string
	timeout int
}

func (f *stopFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVarP(&f.signal, "signal", "s", "", "Signal to send to the container")
	fs.IntVarP(&f.timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	fs.IntVar(&f.timeout, "time", 0, "Seconds to wait before killing the container (deprecated: use --timeout)")
	_ = fs.MarkDeprecated("time", "use --timeout instead")
}

func (f *stopFlags) query(cmd *cobra.Command) (url.Values, error) {
	fs := cmd.Flags()
	if fs.Changed("time") && fs.Changed("timeout") {
		return nil, errors.New("conflicting options: cannot specify both --timeout and --time")
	}
	q := url.Values{}
	if fs.Changed("time") || fs.Changed("timeout") {
		q.Set("t", fmt.Sprint(f.timeout))
	}
	if f.signal != "" {
		q.Set("signal", f.signal)
	}
	return q, nil
}
