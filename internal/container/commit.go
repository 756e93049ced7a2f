package container

import (
	"context"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
)

// CommitOptions say what becomes of a container's changes.
type CommitOptions struct {
	Repo, Tag       string // the image's name; none when Repo is empty
	Author, Comment string
	Config          *api.Config // what to start from; nil is the container's own
	Changes         []string    // Dockerfile instructions on it
	Pause           bool        // while the changes are read
}

// Commit makes an image of what the container changed in its own, whether it
// runs or not, without the content of volumes. It fails with
// errdefs.ErrConflict for a container that is being removed, with ErrNotFound
// when its image is gone, and with ErrInvalidArgument for a bad name or change.
func (m *Manager) Commit(ctx context.Context, ref string, o CommitOptions) (digest.Digest, error) {
	c, err := m.lookup(ref)
	if err != nil {
		return "", err
	}
	rec := c.copy()
	switch rec.State.Status {
	case api.StateDead:
		return "", errs.Conflict("You cannot commit container %s which is Dead", rec.ID)
	case api.StateRemoving:
		return "", errs.Conflict("You cannot commit container %s which is being removed", rec.ID)
	}
	config := o.Config
	if config == nil {
		config = rec.Config
	}
	id, name, err := m.opts.Images.Commit(ctx, &CommitRequest{
		Parent:    rec.ImageID,
		Config:    imageConfig(config),
		Container: imageConfig(rec.Config),
		Changes:   o.Changes,
		Repo:      o.Repo,
		Tag:       o.Tag,
		Author:    o.Author,
		Comment:   o.Comment,
		Diff:      func(ctx context.Context, w io.Writer) error { return m.diff(ctx, c, o.Pause, w) },
	})
	if err != nil {
		return "", err
	}
	m.publish(c, events.ActionCommit, "comment", o.Comment, "imageID", id.String(), "imageRef", name)
	return id, nil
}

// diff writes what the user changed. The container is paused for as long as
// that takes, and no longer.
func (m *Manager) diff(ctx context.Context, c *Container, pause bool, w io.Writer) error {
	rec := c.copy()
	if pause && rec.running() {
		resume, err := m.pauseForCommit(ctx, c)
		if err != nil {
			return fmt.Errorf("cannot pause container %s: %w", rec.Name, err)
		}
		defer resume()
	}
	err := m.opts.Snapshots.Diff(ctx, rec.ID, withoutOwn, w)
	if errdefs.IsNotFound(err) {
		return errs.Conflict("container %s was removed while it was committed", rec.ID)
	}
	return err
}

// pauseForCommit pauses the container unless it is paused already or has ended.
// That it is the engine's doing is noted first: a daemon that dies now must not
// leave it paused.
func (m *Manager) pauseForCommit(ctx context.Context, c *Container) (resume func(), err error) {
	if c.copy().State.Status == api.StatePaused {
		return func() {}, nil
	}
	if err := m.noteCommit(c, true); err != nil {
		return nil, err
	}
	done := func() {
		if err := m.noteCommit(c, false); err != nil {
			m.opts.Log.Error("cannot record the end of a commit", "container", c.copy().ID, "error", err)
		}
	}
	err = m.freeze(ctx, c.copy().ID, true)
	if errdefs.IsConflict(err) || errdefs.IsNotFound(err) { // somebody else's pause, or its end
		done()
		return func() {}, nil
	}
	if err != nil {
		done()
		return nil, err
	}
	return func() {
		m.thaw(context.WithoutCancel(ctx), c)
		done()
	}, nil
}

// thaw ends a pause of the engine's own.
func (m *Manager) thaw(ctx context.Context, c *Container) {
	id := c.copy().ID
	if err := m.freeze(ctx, id, false); err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
		m.opts.Log.Error("cannot resume a container after its commit", "container", id, "error", err)
	}
}

func (m *Manager) noteCommit(c *Container, on bool) error {
	c.mu.Lock()
	c.rec.PausedForCommit = on
	c.mu.Unlock()
	if !m.known(c.copy().ID) {
		return nil // removed: it must not be recorded again
	}
	return m.saveState(c)
}

// endCommits resumes the containers that a daemon, which has died since, paused
// to commit them.
func (m *Manager) endCommits(ctx context.Context) {
	for _, c := range m.all() {
		rec := c.copy()
		if !rec.PausedForCommit {
			continue
		}
		if rec.State.Status == api.StatePaused {
			m.thaw(ctx, c)
		}
		if err := m.noteCommit(c, false); err != nil {
			m.opts.Log.Error("cannot record the end of a commit", "container", rec.ID, "error", err)
		}
	}
}

// imageConfig is what of a container's configuration an image has as well.
func imageConfig(c *api.Config) (config dockerspec.DockerOCIImageConfig) {
	config.User = c.User
	config.Env = c.Env
	config.Entrypoint = c.Entrypoint
	config.Cmd = c.Cmd
	config.Volumes = c.Volumes
	config.WorkingDir = c.WorkingDir
	config.Labels = c.Labels
	config.StopSignal = c.StopSignal
	config.Healthcheck = c.Healthcheck
	config.OnBuild = c.OnBuild
	config.Shell = c.Shell
	if len(c.ExposedPorts) > 0 {
		config.ExposedPorts = map[string]struct{}{}
		for port := range c.ExposedPorts {
			config.ExposedPorts[port.String()] = struct{}{}
		}
	}
	return config
}
