package container

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/containerd/errdefs"
	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"

	"github.com/gantry-containers/gantry/internal/errs"
)

// resolveMounts decides every mount of a new container. What is named later
// replaces what was named before at the same place: mounts of other containers,
// then binds, then long-form mounts; volumes of the image fill what is left.
// With shallow, the short form's "ro" does not reach below the source.
func (m *Manager) resolveMounts(ctx context.Context, c *Container, shallow bool) error {
	rec := &c.rec
	places := map[string]Mount{}
	if err := m.inheritMounts(rec, places); err != nil {
		return err
	}
	explicit := map[string]bool{}
	add := func(mnt Mount) error {
		if explicit[mnt.Destination] {
			return errs.InvalidArgument("Duplicate mount point: %s", mnt.Destination)
		}
		if _, taken := rec.HostConfig.Tmpfs[mnt.Destination]; taken {
			return errs.InvalidArgument("Duplicate mount point: %s", mnt.Destination)
		}
		explicit[mnt.Destination] = true
		places[mnt.Destination] = mnt
		return nil
	}
	for _, raw := range rec.HostConfig.Binds {
		mnt, err := parseBind(raw, rec.HostConfig.VolumeDriver)
		if err != nil {
			return err
		}
		if shallow && !mnt.RW && mnt.Spec.BindOptions != nil {
			mnt.Spec.BindOptions.ReadOnlyNonRecursive = true
		}
		if err := add(mnt); err != nil {
			return err
		}
	}
	for _, spec := range rec.HostConfig.Mounts {
		mnt, err := parseMount(spec)
		if err != nil {
			return err
		}
		if err := add(mnt); err != nil {
			return err
		}
	}
	for destination := range rec.Config.Volumes {
		mnt, err := anonymousVolume(destination, rec.HostConfig.VolumeDriver)
		if err != nil {
			return err
		}
		_, tmpfs := rec.HostConfig.Tmpfs[mnt.Destination]
		if _, taken := places[mnt.Destination]; !taken && !tmpfs {
			places[mnt.Destination] = mnt
		}
	}
	return m.provideMounts(ctx, c, places)
}

// inheritMounts takes over the volumes and binds of --volumes-from.
func (m *Manager) inheritMounts(rec *Record, places map[string]Mount) error {
	for _, from := range rec.HostConfig.VolumesFrom {
		ref, mode, err := parseVolumesFrom(from)
		if err != nil {
			return err
		}
		other, err := m.lookup(ref)
		if err != nil {
			// Not its class: to a client, what is not found is the image.
			return errs.InvalidArgument("%s", err)
		}
		for _, mnt := range other.copy().Mounts {
			if mnt.Type != mount.TypeBind && mnt.Type != mount.TypeVolume {
				continue
			}
			mnt.Mode, mnt.CopyUp = mode, false
			mnt.RW = mnt.RW && !strings.Contains(","+mode+",", ",ro,")
			mnt.Spec.ReadOnly = !mnt.RW
			mnt.Spec.Source = mnt.Source
			if mnt.Name != "" {
				mnt.Spec.Source = mnt.Name
			}
			places[mnt.Destination] = mnt
		}
	}
	return nil
}

// provideMounts makes sure the source of every mount exists. The volumes it
// takes are noted in the record one by one, so that unbuild can release them.
func (m *Manager) provideMounts(ctx context.Context, c *Container, places map[string]Mount) error {
	destinations := make([]string, 0, len(places))
	for d := range places {
		destinations = append(destinations, d)
	}
	sort.Strings(destinations)
	for _, d := range destinations {
		mnt := places[d]
		if err := m.provideMount(ctx, c, &mnt); err != nil {
			return err
		}
		c.mu.Lock() // Layers looks at containers that are being created
		c.rec.Mounts = append(c.rec.Mounts, mnt)
		c.mu.Unlock()
	}
	return nil
}

func (m *Manager) provideMount(ctx context.Context, c *Container, mnt *Mount) error {
	switch mnt.Type {
	case mount.TypeBind:
		return provideBind(mnt)
	case mount.TypeVolume:
		spec := mnt.Spec
		spec.Source = mnt.Name
		if mnt.Name == "" {
			var err error
			if spec, err = m.announceVolume(c, mnt); err != nil {
				return err
			}
		}
		v, err := m.opts.Volumes.Use(ctx, spec, c.rec.ID)
		if errdefs.IsNotFound(err) {
			return errs.InvalidArgument("%s", err) // as above: it is not the image
		}
		if err != nil {
			return err
		}
		mnt.Name, mnt.Driver, mnt.Source = v.Name, v.Driver, v.Source
		mnt.CopyUp = mnt.CopyUp && v.Empty
	case mount.TypeImage:
		image, err := m.opts.Images.Resolve(ctx, mnt.Spec.Source, nil)
		if err != nil {
			return errs.InvalidArgument("%s", err)
		}
		mnt.Name, mnt.Layers, mnt.RW = image.ID.String(), image.Layers, false
	}
	return nil
}

// announceVolume gives an anonymous volume its name and notes the container as
// one to be removed with it: should the engine die before the container is
// recorded, the next one takes the volume away.
func (m *Manager) announceVolume(c *Container, mnt *Mount) (mount.Mount, error) {
	spec := mnt.Spec
	name, err := newID()
	if err != nil {
		return spec, err
	}
	options := mount.VolumeOptions{}
	if spec.VolumeOptions != nil {
		options = *spec.VolumeOptions
	}
	options.Labels = maps.Clone(options.Labels)
	if options.Labels == nil {
		options.Labels = map[string]string{}
	}
	options.Labels["com.docker.volume.anonymous"] = ""
	spec.Source, spec.VolumeOptions = name, &options
	intended := *mnt
	intended.Name = name
	rec := c.copy()
	rec.State.Status, rec.RemoveVolumes = api.StateRemoving, true
	rec.Mounts = append(slices.Clone(rec.Mounts), intended)
	return spec, m.table.PutVolatile(rec.ID, &rec)
}

// provideBind checks the source of a bind, or makes the directory where the
// short form, or the long form's option, asks for it.
func provideBind(mnt *Mount) error {
	_, err := os.Stat(mnt.Source)
	if !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return errs.InvalidArgument("cannot use the mount source: %w", err)
		}
		return nil
	}
	if o := mnt.Spec.BindOptions; o == nil || !o.CreateMountpoint {
		return errs.InvalidArgument("invalid mount config for type \"bind\": bind source path does not exist: %s", mnt.Source)
	}
	if err := os.MkdirAll(mnt.Source, 0o755); err != nil {
		return fmt.Errorf("error while creating mount source path '%s': %w", mnt.Source, err)
	}
	return nil
}

// publishVolume tells of what happens with a volume of a container.
func (m *Manager) publishVolume(action events.Action, mnt *Mount, more ...string) {
	attributes := map[string]string{"driver": mnt.Driver}
	for i := 0; i+1 < len(more); i += 2 {
		attributes[more[i]] = more[i+1]
	}
	m.opts.Events.Publish(events.Message{
		Type:   events.VolumeEventType,
		Action: action,
		Actor:  events.Actor{ID: mnt.Name, Attributes: attributes},
	})
}

// leaveVolumes tells that a run no longer uses the container's volumes.
func (m *Manager) leaveVolumes(rec *Record) {
	for i := range rec.Mounts {
		if mnt := &rec.Mounts[i]; mnt.Type == mount.TypeVolume {
			m.publishVolume(events.ActionUnmount, mnt, "container", rec.ID)
		}
	}
}

// copyUp fills new, empty volumes with what the image has at their place.
func (m *Manager) copyUp(ctx context.Context, c *Container) error {
	var fill []*Mount
	mounts := slices.Clone(c.rec.Mounts)
	for i := range mounts {
		if mnt := &mounts[i]; mnt.Type == mount.TypeVolume && mnt.CopyUp {
			fill = append(fill, mnt)
		}
	}
	if len(fill) == 0 {
		return nil
	}
	root, err := m.detachedRoot(c.rec.ID)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, mnt := range fill {
		if err := copyTree(ctx, root, mnt.Destination, mnt.Source); err != nil {
			return fmt.Errorf("cannot copy %s of the image into volume %s: %w", mnt.Destination, mnt.Name, err)
		}
		mnt.CopyUp = false
	}
	c.mu.Lock()
	c.rec.Mounts = mounts
	c.mu.Unlock()
	return nil
}
