package cli

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/cli/format"
)

// containerRow is a container as `ps` prints it. Its exported methods are the
// fields of --format.
type containerRow struct {
	c     *container.Summary
	trunc bool
}

func containerHeader() format.Header {
	return format.Header{
		"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND",
		"CreatedAt": "CREATED AT", "RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE",
		"Status": "STATUS", "Size": "SIZE", "Labels": "LABELS", "Mounts": "MOUNTS",
		"LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS", "Platform": "PLATFORM",
	}
}

func (r *containerRow) IsRow() bool { return true }

func (r *containerRow) ID() string {
	if r.trunc {
		return format.ShortID(r.c.ID)
	}
	return r.c.ID
}

// Names leaves out the names other containers link to this one by.
func (r *containerRow) Names() string {
	names := make([]string, len(r.c.Names))
	for i, n := range r.c.Names {
		names[i] = strings.TrimPrefix(n, "/")
		if r.trunc && !strings.Contains(names[i], "/") {
			return names[i]
		}
	}
	return strings.Join(names, ",")
}

func (r *containerRow) Image() string {
	if r.c.Image == "" {
		return "<no image>"
	}
	if !r.trunc {
		return r.c.Image
	}
	if short := format.ShortID(r.c.ImageID); short == format.ShortID(r.c.Image) {
		return short
	}
	ref, err := parseRef(r.c.Image)
	if err != nil || ref.isID {
		return r.c.Image
	}
	ref.digest = ""
	return ref.familiarName() + ref.suffix()
}

func (r *containerRow) Command() string {
	if r.trunc {
		return strconv.Quote(format.Ellipsis(r.c.Command, 20))
	}
	return strconv.Quote(r.c.Command)
}

func (r *containerRow) CreatedAt() string { return time.Unix(r.c.Created, 0).String() }

func (r *containerRow) RunningFor() string {
	return units.HumanDuration(time.Since(time.Unix(r.c.Created, 0))) + " ago"
}

func (r *containerRow) Platform() *string {
	if d := r.c.ImageManifestDescriptor; d != nil && d.Platform != nil {
		p := strings.TrimSuffix(d.Platform.OS+"/"+d.Platform.Architecture+"/"+d.Platform.Variant, "/")
		return &p
	}
	return nil
}

func (r *containerRow) Ports() string  { return portList(r.c.Ports) }
func (r *containerRow) State() string  { return string(r.c.State) }
func (r *containerRow) Status() string { return r.c.Status }
func (r *containerRow) Labels() string { return labelList(r.c.Labels) }

// Label is the value of one label.
func (r *containerRow) Label(name string) string { return r.c.Labels[name] }

func (r *containerRow) Size() string {
	own := units.HumanSizeWithPrecision(float64(r.c.SizeRw), 3)
	if r.c.SizeRootFs > 0 {
		return fmt.Sprintf("%s (virtual %s)", own, units.HumanSizeWithPrecision(float64(r.c.SizeRootFs), 3))
	}
	return own
}

func (r *containerRow) Mounts() string {
	var out []string
	for _, m := range r.c.Mounts {
		name := m.Name
		if name == "" {
			name = m.Source
		}
		if r.trunc {
			name = format.Ellipsis(name, 15)
		}
		out = append(out, name)
	}
	return strings.Join(out, ",")
}

func (r *containerRow) LocalVolumes() string {
	n := 0
	for _, m := range r.c.Mounts {
		if m.Driver == "local" {
			n++
		}
	}
	return strconv.Itoa(n)
}

func (r *containerRow) Networks() string {
	if r.c.NetworkSettings == nil {
		return ""
	}
	var names []string
	for n := range r.c.NetworkSettings.Networks {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

func labelList(labels map[string]string) string {
	out := make([]string, 0, len(labels))
	for k, v := range labels {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}

// portGroup is a run of neighbouring ports that are published, or exposed, in
// the same way.
type portGroup struct {
	ip, proto   string
	first, last uint16
}

func (g portGroup) String() string {
	ports := strconv.Itoa(int(g.first))
	if g.last != g.first {
		ports += "-" + strconv.Itoa(int(g.last))
	}
	if g.ip == "" {
		return ports + "/" + g.proto
	}
	return net.JoinHostPort(g.ip, ports) + "->" + ports + "/" + g.proto
}

// portList joins ports that are mapped to themselves into ranges; those mapped
// elsewhere follow, one by one.
func portList(ports []container.PortSummary) string {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, comparePorts)
	var done, mapped []string
	var open []*portGroup
	for _, p := range ports {
		g := portGroup{proto: p.Type, first: p.PrivatePort, last: p.PrivatePort}
		if p.IP.IsValid() {
			g.ip = p.IP.String()
			if p.PublicPort != p.PrivatePort {
				mapped = append(mapped, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(g.ip, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
		}
		i := slices.IndexFunc(open, func(o *portGroup) bool { return o.ip == g.ip && o.proto == g.proto })
		switch {
		case i < 0:
			open = append(open, &g)
		case open[i].last+1 == g.first:
			open[i].last = g.first
		default:
			done = append(done, open[i].String())
			*open[i] = g
		}
	}
	for _, g := range open {
		done = append(done, g.String())
	}
	return strings.Join(append(done, mapped...), ", ")
}

func comparePorts(a, b container.PortSummary) int {
	if a.PrivatePort != b.PrivatePort {
		return int(a.PrivatePort) - int(b.PrivatePort)
	}
	ipA, ipB := "", ""
	if a.IP.IsValid() {
		ipA = a.IP.String()
	}
	if b.IP.IsValid() {
		ipB = b.IP.String()
	}
	if c := strings.Compare(ipA, ipB); c != 0 {
		return c
	}
	if a.PublicPort != b.PublicPort {
		return int(a.PublicPort) - int(b.PublicPort)
	}
	return strings.Compare(a.Type, b.Type)
}
