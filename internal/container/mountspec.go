package container

import (
	"path"
	"path/filepath"
	"strings"

	api "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/gantry-containers/gantry/internal/errs"
)

// parseBind reads the short form of a mount, as -v takes it: "/container",
// "name:/container[:options]" or "/host:/container[:options]".
func parseBind(raw, volumeDriver string) (Mount, error) {
	parts := strings.SplitN(raw, ":", 4)
	spec := mount.Mount{Type: mount.TypeVolume}
	mode := ""
	switch {
	case parts[0] == "" || len(parts) == 4:
		return Mount{}, errs.InvalidArgument("invalid volume specification: '%s'", raw)
	case len(parts) == 1:
		spec.Target = parts[0]
	case len(parts) == 2 && !strings.HasPrefix(parts[1], "/") && validMode(parts[1]):
		return Mount{}, errs.InvalidArgument("invalid volume specification: '%s'", raw)
	default:
		spec.Source, spec.Target = parts[0], parts[1]
		if len(parts) == 3 {
			mode = parts[2]
		}
	}
	if !validMode(mode) {
		return Mount{}, errs.InvalidArgument("invalid mode: %s", mode)
	}
	if path.IsAbs(spec.Source) {
		spec.Type = mount.TypeBind
		spec.BindOptions = &mount.BindOptions{CreateMountpoint: true}
	} else if volumeDriver != "" {
		spec.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: volumeDriver}}
	}
	for _, option := range strings.Split(mode, ",") {
		applyMode(&spec, option)
	}
	m, err := parseMount(spec)
	if err != nil {
		return Mount{}, errs.InvalidArgument("invalid volume specification: '%s': %w", raw, err)
	}
	m.Mode = mode
	return m, nil
}

// anonymousVolume is a volume without a name, at a place that the image or the
// user declares. All of it is the place, whatever is in it: images come from
// anywhere, and one that says "/etc:/x" must not get the host's /etc.
func anonymousVolume(destination, volumeDriver string) (Mount, error) {
	spec := mount.Mount{Type: mount.TypeVolume, Target: path.Join("/", destination)}
	if volumeDriver != "" {
		spec.VolumeOptions = &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: volumeDriver}}
	}
	return parseMount(spec)
}

func applyMode(spec *mount.Mount, option string) {
	switch {
	case option == "ro":
		spec.ReadOnly = true
	case option == "nocopy" || option == "copy": // of a bind, parseMount refuses it
		if spec.VolumeOptions == nil {
			spec.VolumeOptions = &mount.VolumeOptions{}
		}
		spec.VolumeOptions.NoCopy = option == "nocopy"
	case isPropagation(option): // of a volume, parseMount refuses it
		if spec.BindOptions == nil {
			spec.BindOptions = &mount.BindOptions{}
		}
		spec.BindOptions.Propagation = mount.Propagation(option)
	}
}

// validMode tells whether every option of a short form is known and none of a
// kind is given twice.
func validMode(mode string) bool {
	if mode == "" {
		return true
	}
	kinds := map[string]bool{}
	for _, option := range strings.Split(mode, ",") {
		kind := ""
		switch option {
		case "ro", "rw":
			kind = "access"
		case "z", "Z":
			kind = "label"
		case "nocopy", "copy":
			kind = "copy"
		case "consistent", "cached", "delegated":
			kind = "consistency"
		default:
			if !isPropagation(option) {
				return false
			}
			kind = "propagation"
		}
		if kinds[kind] {
			return false
		}
		kinds[kind] = true
	}
	return true
}

func isPropagation(s string) bool {
	for _, p := range mount.Propagations {
		if string(p) == s {
			return true
		}
	}
	return false
}

// parseMount checks the long form of a mount and resolves its defaults.
func parseMount(spec mount.Mount) (Mount, error) {
	if err := checkMount(&spec); err != nil {
		return Mount{}, err
	}
	m := Mount{
		Type:        spec.Type,
		Destination: path.Clean(spec.Target),
		RW:          !spec.ReadOnly,
		Spec:        spec,
	}
	switch spec.Type {
	case mount.TypeBind:
		m.Source = path.Clean(spec.Source)
		m.Propagation = mount.PropagationRPrivate
		if spec.BindOptions != nil && spec.BindOptions.Propagation != "" {
			m.Propagation = spec.BindOptions.Propagation
		}
	case mount.TypeVolume:
		m.Name = spec.Source
		m.CopyUp = spec.VolumeOptions == nil || !spec.VolumeOptions.NoCopy
	}
	return m, nil
}

func checkMount(spec *mount.Mount) error {
	switch {
	case spec.Target == "":
		return invalidMount(spec, "field Target must not be empty")
	case !path.IsAbs(spec.Target):
		return relativeMount(spec, spec.Target)
	case path.Clean(spec.Target) == "/":
		return invalidMount(spec, "invalid specification: destination can't be '/'")
	case spec.Type != mount.TypeBind && spec.BindOptions != nil:
		return invalidMount(spec, "field BindOptions must not be specified")
	case spec.Type != mount.TypeVolume && spec.VolumeOptions != nil:
		return invalidMount(spec, "field VolumeOptions must not be specified")
	case spec.Type != mount.TypeImage && spec.ImageOptions != nil:
		return invalidMount(spec, "field ImageOptions must not be specified")
	case spec.Type != mount.TypeTmpfs && spec.TmpfsOptions != nil:
		return invalidMount(spec, "field TmpfsOptions must not be specified")
	}
	switch spec.Type {
	case mount.TypeBind:
		return checkBind(spec)
	case mount.TypeVolume:
		return checkVolume(spec)
	case mount.TypeTmpfs:
		if spec.Source != "" {
			return invalidMount(spec, "field Source must not be specified")
		}
		return nil
	case mount.TypeImage:
		if spec.Source == "" {
			return invalidMount(spec, "field Source must not be empty")
		}
		if o := spec.ImageOptions; o != nil && o.Subpath != "" && !filepath.IsLocal(o.Subpath) {
			return invalidMount(spec, "subpath must be a relative path within the volume")
		}
		return nil
	}
	return invalidMount(spec, "mount type unknown")
}

func checkBind(spec *mount.Mount) error {
	switch {
	case spec.Source == "":
		return invalidMount(spec, "field Source must not be empty")
	case !path.IsAbs(spec.Source):
		return relativeMount(spec, spec.Source)
	}
	if o := spec.BindOptions; o != nil && o.Propagation != "" && !isPropagation(string(o.Propagation)) {
		return invalidMount(spec, "invalid propagation mode: "+string(o.Propagation))
	}
	return nil
}

func checkVolume(spec *mount.Mount) error {
	if spec.ReadOnly && spec.Source == "" {
		return invalidMount(spec, "must not set ReadOnly mode when using anonymous volumes")
	}
	if o := spec.VolumeOptions; o != nil && o.Subpath != "" {
		if spec.Source == "" {
			return invalidMount(spec, "must not set Subpath when using anonymous volumes")
		}
		if !filepath.IsLocal(o.Subpath) {
			return invalidMount(spec, "subpath must be a relative path within the volume")
		}
	}
	return nil
}

func relativeMount(spec *mount.Mount, place string) error {
	return invalidMount(spec, "invalid mount path: '"+place+"' mount path must be absolute")
}

func invalidMount(spec *mount.Mount, why string) error {
	return errs.InvalidArgument("invalid mount config for type %q: %s", spec.Type, why)
}

// parseVolumesFrom reads "container[:mode]".
func parseVolumesFrom(s string) (ref, mode string, err error) {
	ref, mode, _ = strings.Cut(s, ":")
	if ref == "" {
		return "", "", errs.InvalidArgument("volumes-from specification cannot be an empty string")
	}
	switch mode {
	case "", "rw", "ro", "z", "Z", "rw,z", "ro,z", "rw,Z", "ro,Z":
		return ref, mode, nil
	}
	return "", "", errs.InvalidArgument("invalid mode: %s", mode)
}

// mountPoint is how inspect and lists show a mount.
func (m *Mount) mountPoint() api.MountPoint {
	return api.MountPoint{
		Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination,
		Driver: m.Driver, Mode: m.Mode, RW: m.RW, Propagation: m.Propagation,
	}
}
