package image

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/errs"
)

// CommitOptions says what an image is to be made of.
type CommitOptions struct {
	Parent digest.Digest // the image below
	// Config is what Changes are applied to and what the image gets; what it
	// does not say it takes from Container, whose command made the changes.
	Config, Container dockerspec.DockerOCIImageConfig
	Changes           []string
	Repo, Tag         string // the image's name; none when Repo is empty
	Author, Comment   string // of its history
	// Diff writes the new layer, uncompressed. It is called once at most, and
	// not before all else was found to be good.
	Diff func(ctx context.Context, w io.Writer) error
}

// emptyLayer is the digest of an archive with nothing in it, which is no layer
// but a line of the history only.
const emptyLayer digest.Digest = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"

// Commit makes an image of another one and one more layer, and returns its ID
// and name. It reads and writes what is in the new layer, and nothing of those
// below. It fails with ErrNotFound when the parent is not here, and with
// ErrInvalidArgument for a bad name or change.
func (m *Manager) Commit(ctx context.Context, o CommitOptions) (id digest.Digest, name string, err error) {
	config, named, err := o.prepare()
	if err != nil {
		return "", "", err
	}
	in := m.begin()
	defer in.end()
	parent, err := m.hold(in, o.Parent)
	if err != nil {
		return "", "", err
	}
	base, err := parent.config()
	if err != nil {
		return "", "", err
	}
	layers := slices.Clone(parent.Layers)
	top, err := m.commitLayer(ctx, in, o.Diff)
	if err != nil {
		return "", "", err
	}
	if top != nil {
		layers = append(layers, *top)
	}
	e, err := m.create(ctx, in, o.child(base, config, top), layers, o.Parent)
	if err != nil {
		return "", "", err
	}
	m.publish(events.ActionCreate, e, e.id.String(), e.id.String())
	if named == nil {
		return e.id, "", nil
	}
	if _, err := m.point(named, e, in); err != nil {
		return "", "", err
	}
	name = reference.FamiliarString(named)
	m.publish(events.ActionTag, e, e.id.String(), name)
	return e.id, name, nil
}

// prepare checks what was asked for before anything is read.
func (o *CommitOptions) prepare() (*dockerspec.DockerOCIImageConfig, reference.Named, error) {
	config := cloneConfig(&o.Config)
	if err := ApplyChanges(config, o.Changes); err != nil {
		return nil, nil, err
	}
	completeConfig(config, &o.Container)
	if o.Repo == "" {
		return config, nil, nil
	}
	named, err := parseTag(o.Repo, o.Tag)
	return config, named, err
}

// hold finds an image by its ID and pins all of it.
func (m *Manager) hold(in *ingest, id digest.Digest) (*entry, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e := m.byID[id]
	if e == nil {
		return nil, errs.NotFound("No such image: %s", id)
	}
	in.pinEntry(e)
	return e, nil
}

// commitLayer makes a layer of what diff writes; nil when that is nothing. The
// archive is kept as it is, because it is compressed no sooner than somebody
// wants to send it.
func (m *Manager) commitLayer(ctx context.Context, in *ingest, diff func(context.Context, io.Writer) error) (*layerRecord, error) {
	w, err := m.opts.Content.NewWriter(ctx, "", -1)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	if err := diff(ctx, w); err != nil {
		return nil, err
	}
	dgst, err := in.commit(w)
	if err != nil || dgst == emptyLayer {
		return nil, err
	}
	blob := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: dgst, Size: w.Size()}
	l, err := m.layer(ctx, in, dgst, blob, m.fromStore, func(step) {})
	return &l, err
}

// child is the configuration of an image made from another.
func (o *CommitOptions) child(base *dockerspec.DockerOCIImage, config *dockerspec.DockerOCIImageConfig, top *layerRecord) *dockerspec.DockerOCIImage {
	now := time.Now().UTC()
	child := &dockerspec.DockerOCIImage{}
	child.Platform = platformOf(base)
	child.Created = &now
	child.Author = o.Author
	child.Config = *config
	child.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: slices.Clone(base.RootFS.DiffIDs)}
	child.History = append(slices.Clone(base.History), ocispec.History{
		Created:    &now,
		CreatedBy:  strings.Join(o.Container.Cmd, " "),
		Author:     o.Author,
		Comment:    o.Comment,
		EmptyLayer: top == nil,
	})
	if top != nil {
		child.RootFS.DiffIDs = append(child.RootFS.DiffIDs, top.DiffID)
	}
	return child
}

// completeConfig fills in what the configuration does not say.
func completeConfig(c, from *dockerspec.DockerOCIImageConfig) {
	if c.User == "" {
		c.User = from.User
	}
	if c.WorkingDir == "" {
		c.WorkingDir = from.WorkingDir
	}
	if c.StopSignal == "" {
		c.StopSignal = from.StopSignal
	}
	c.ExposedPorts = union(c.ExposedPorts, from.ExposedPorts)
	c.Volumes = union(c.Volumes, from.Volumes)
	labels := maps.Clone(from.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, c.Labels)
	c.Labels = labels
	for _, pair := range from.Env {
		name, _, _ := strings.Cut(pair, "=")
		if !slices.ContainsFunc(c.Env, func(p string) bool { n, _, _ := strings.Cut(p, "="); return n == name }) {
			c.Env = append(c.Env, pair)
		}
	}
	if len(c.Entrypoint) == 0 {
		if len(c.Cmd) == 0 {
			c.Cmd = from.Cmd
		}
		if c.Entrypoint == nil {
			c.Entrypoint = from.Entrypoint
		}
	}
	c.Healthcheck = completeHealthcheck(c.Healthcheck, from.Healthcheck)
}

func union(a, b map[string]struct{}) map[string]struct{} {
	if len(a) == 0 {
		return b
	}
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}

func completeHealthcheck(c, from *dockerspec.HealthcheckConfig) *dockerspec.HealthcheckConfig {
	if c == nil || from == nil {
		if c == nil {
			return from
		}
		return c
	}
	whole := *c
	if len(whole.Test) == 0 {
		whole.Test = from.Test
	}
	if whole.Retries == 0 {
		whole.Retries = from.Retries
	}
	for _, d := range []struct{ to, from *time.Duration }{
		{&whole.Interval, &from.Interval},
		{&whole.Timeout, &from.Timeout},
		{&whole.StartPeriod, &from.StartPeriod},
		{&whole.StartInterval, &from.StartInterval},
	} {
		if *d.to == 0 {
			*d.to = *d.from
		}
	}
	return &whole
}
