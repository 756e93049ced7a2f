package container

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/filter"
)

// List returns containers, the newest first.
func (m *Manager) List(ctx context.Context, o ListOptions) ([]api.Summary, error) {
	match, err := m.matcher(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	all := o.All || o.Limit > 0 || o.Filters.Has("status") || o.Filters.Has("exited")
	list := []api.Summary{}
	for _, c := range m.all() {
		rec := c.copy()
		live := rec.running() || rec.State.Status == api.StateRestarting
		if !all && !live || !match(c, &rec) {
			continue
		}
		summary, err := m.summary(ctx, c, &rec, o.Size)
		if err != nil {
			return nil, err
		}
		list = append(list, summary)
		if o.Limit > 0 && len(list) == o.Limit {
			break
		}
	}
	return list, nil
}

func (m *Manager) summary(ctx context.Context, c *Container, rec *Record, size bool) (api.Summary, error) {
	settings := networkSettings(rec)
	s := api.Summary{
		ID:              rec.ID,
		Names:           []string{"/" + rec.Name},
		Image:           rec.Config.Image,
		ImageID:         rec.ImageID.String(),
		Command:         commandLine(rec),
		Created:         rec.Created.Unix(),
		Ports:           portSummaries(rec, settings.Ports),
		Labels:          rec.Config.Labels,
		State:           rec.State.Status,
		Status:          c.statusText(rec),
		NetworkSettings: &api.NetworkSettingsSummary{Networks: settings.Networks},
		Mounts:          mountPoints(rec),
	}
	s.HostConfig.NetworkMode = string(rec.HostConfig.NetworkMode)
	s.HostConfig.Annotations = rec.HostConfig.Annotations
	if h := c.healthState(); h != nil {
		s.Health = &api.HealthSummary{Status: h.Status, FailingStreak: h.FailingStreak}
	}
	// An image that has lost its name is shown by its ID.
	if id, err := m.opts.Images.Matches(ctx, rec.Config.Image); err != nil || id != rec.ImageID {
		s.Image = rec.ImageID.String()
	}
	if size {
		var err error
		if s.SizeRw, s.SizeRootFs, err = m.sizes(ctx, rec); err != nil {
			return s, err
		}
	}
	return s, nil
}

// commandLine joins argv as lists show it: arguments with spaces are quoted.
func commandLine(rec *Record) string {
	parts := []string{rec.Path}
	for _, arg := range rec.Args {
		if strings.Contains(arg, " ") {
			arg = "'" + arg + "'"
		}
		parts = append(parts, arg)
	}
	return strings.Join(parts, " ")
}

func portSummaries(rec *Record, ports network.PortMap) []api.PortSummary {
	list := []api.PortSummary{}
	if !rec.running() {
		return list
	}
	for port, bindings := range ports {
		for _, b := range bindings {
			public, _ := strconv.ParseUint(b.HostPort, 10, 16)
			list = append(list, api.PortSummary{IP: b.HostIP, PrivatePort: port.Num(), PublicPort: uint16(public), Type: string(port.Proto())})
		}
		if len(bindings) == 0 {
			list = append(list, api.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())})
		}
	}
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if a.PrivatePort != b.PrivatePort {
			return a.PrivatePort < b.PrivatePort
		}
		if a.Type != b.Type {
			return a.Type < b.Type
		}
		return a.IP.Less(b.IP)
	})
	return list
}

// statusText is the human sentence of `ps`: "Up 3 minutes (healthy)".
func (c *Container) statusText(rec *Record) string {
	s := &rec.State
	ago := func(t time.Time) string { return units.HumanDuration(time.Since(t)) }
	switch s.Status {
	case api.StatePaused:
		return "Up " + ago(s.StartedAt) + " (Paused)"
	case api.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	case api.StateRunning:
		text := "Up " + ago(s.StartedAt)
		if h := c.healthState(); h != nil {
			switch h.Status {
			case api.Starting:
				text += " (health: starting)"
			default:
				text += " (" + string(h.Status) + ")"
			}
		}
		return text
	case api.StateRemoving:
		return "Removal In Progress"
	case api.StateDead:
		return "Dead"
	case api.StateCreated:
		return "Created"
	}
	if s.FinishedAt.IsZero() {
		return "Created"
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
}

type match func(*Container, *Record) bool

// matcher checks the filters once and returns what decides each container.
func (m *Manager) matcher(ctx context.Context, f filter.Args) (match, error) {
	if err := f.Validate("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation",
		"label", "name", "network", "publish", "since", "status", "volume"); err != nil {
		return nil, err
	}
	var checks []match
	for _, build := range []func(context.Context, filter.Args) (match, error){
		m.matchAncestor, m.matchTime, matchExited, matchState, matchName, matchPorts, matchUse,
	} {
		check, err := build(ctx, f)
		if err != nil {
			return nil, err
		}
		if check != nil {
			checks = append(checks, check)
		}
	}
	return func(c *Container, rec *Record) bool {
		for _, check := range checks {
			if !check(c, rec) {
				return false
			}
		}
		return f.MatchKV("label", rec.Config.Labels)
	}, nil
}

func (m *Manager) matchAncestor(ctx context.Context, f filter.Args) (match, error) {
	if !f.Has("ancestor") {
		return nil, nil
	}
	var ids []digest.Digest
	for _, ref := range f.Get("ancestor") {
		if id, err := m.opts.Images.Matches(ctx, ref); err == nil {
			ids = append(ids, id)
		}
	}
	return func(_ *Container, rec *Record) bool { return slices.Contains(ids, rec.ImageID) }, nil
}

func (m *Manager) matchTime(_ context.Context, f filter.Args) (match, error) {
	var before, since time.Time
	for key, t := range map[string]*time.Time{"before": &before, "since": &since} {
		for _, ref := range f.Get(key) {
			c, err := m.lookup(ref)
			if err != nil {
				return nil, err
			}
			*t = c.copy().Created
		}
	}
	return func(_ *Container, rec *Record) bool {
		return (before.IsZero() || rec.Created.Before(before)) && (since.IsZero() || rec.Created.After(since))
	}, nil
}

func matchExited(_ context.Context, f filter.Args) (match, error) {
	var codes []int
	for _, s := range f.Get("exited") {
		code, err := strconv.Atoi(s)
		if err != nil {
			return nil, errs.InvalidArgument("invalid filter 'exited=%s'", s)
		}
		codes = append(codes, code)
	}
	if codes == nil {
		return nil, nil
	}
	return func(_ *Container, rec *Record) bool {
		return rec.State.Status == api.StateExited && slices.Contains(codes, rec.State.ExitCode)
	}, nil
}

func matchState(_ context.Context, f filter.Args) (match, error) {
	for _, s := range f.Get("status") {
		if err := api.ValidateContainerState(api.ContainerState(s)); err != nil {
			return nil, errs.InvalidArgument("invalid filter 'status=%s'", s)
		}
	}
	for _, s := range f.Get("health") {
		if err := api.ValidateHealthStatus(api.HealthStatus(s)); err != nil {
			return nil, errs.InvalidArgument("invalid filter 'health=%s'", s)
		}
	}
	isTask, err := f.Bool("is-task", false)
	if err != nil {
		return nil, err
	}
	return func(c *Container, rec *Record) bool {
		health := api.NoHealthcheck
		if h := c.healthState(); h != nil {
			health = h.Status
		}
		return !isTask && f.ExactMatch("status", string(rec.State.Status)) && f.ExactMatch("health", string(health))
	}, nil
}

func matchName(_ context.Context, f filter.Args) (match, error) {
	return func(_ *Container, rec *Record) bool {
		// A name may be given with the slash the API shows it with.
		return f.Match("id", rec.ID) && (f.Match("name", rec.Name) || f.Match("name", "/"+rec.Name))
	}, nil
}

// matchPorts holds for containers that run and have one of the ports, published
// at that port of the host or exposed in the container.
func matchPorts(_ context.Context, f filter.Args) (match, error) {
	exposed, err := portFilter(f.Get("expose"))
	if err != nil {
		return nil, errs.InvalidArgument("invalid filter 'expose': %w", err)
	}
	published, err := portFilter(f.Get("publish"))
	if err != nil {
		return nil, errs.InvalidArgument("invalid filter 'publish': %w", err)
	}
	if exposed == nil && published == nil {
		return nil, nil
	}
	return func(_ *Container, rec *Record) bool {
		for _, p := range portSummaries(rec, networkSettings(rec).Ports) {
			if published[portKey{p.PublicPort, p.Type}] || exposed[portKey{p.PrivatePort, p.Type}] {
				return true
			}
		}
		return false
	}, nil
}

type portKey struct {
	number uint16
	kind   string // tcp, udp, sctp
}

func portFilter(values []string) (map[portKey]bool, error) {
	var ports map[portKey]bool
	for _, v := range values {
		r, err := network.ParsePortRange(v)
		if err != nil {
			return nil, err
		}
		if ports == nil {
			ports = map[portKey]bool{}
		}
		for p := range r.All() {
			ports[portKey{p.Num(), string(p.Proto())}] = true
		}
	}
	return ports, nil
}

// matchUse holds for containers that use one of the volumes or networks named.
func matchUse(_ context.Context, f filter.Args) (match, error) {
	return func(_ *Container, rec *Record) bool {
		if f.Has("volume") && !slices.ContainsFunc(rec.Mounts, func(mnt Mount) bool {
			return slices.Contains(f.Get("volume"), mnt.Destination) || mnt.Name != "" && slices.Contains(f.Get("volume"), mnt.Name) ||
				mnt.Name == "" && slices.Contains(f.Get("volume"), mnt.Source)
		}) {
			return false
		}
		if !f.Has("network") {
			return true
		}
		for name, ep := range networkSettings(rec).Networks {
			for _, want := range f.Get("network") {
				if name == want || ep != nil && ep.NetworkID != "" && strings.HasPrefix(ep.NetworkID, want) {
					return true
				}
			}
		}
		return false
	}, nil
}
