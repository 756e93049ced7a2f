package runflags

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

// parseMount reads the comma-separated key=value pairs of --mount. Options of
// one type of mount are refused with another.
func parseMount(v string) (mount.Mount, error) {
	m := mount.Mount{Type: mount.TypeVolume}
	fields, err := csv.NewReader(strings.NewReader(v)).Read()
	if err != nil {
		return m, err
	}
	for _, field := range fields {
		k, val, ok := strings.Cut(field, "=")
		k = strings.ToLower(k)
		if !ok {
			if !isMountSwitch(k) {
				return m, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
			}
			val = "true"
		}
		if err := mountField(&m, k, val, field); err != nil {
			return m, err
		}
	}
	return m, checkMount(&m)
}

// isMountSwitch names the keys that may stand without a value.
func isMountSwitch(k string) bool {
	switch k {
	case "readonly", "ro", "volume-nocopy", "bind-nonrecursive":
		return true
	}
	return false
}

func mountField(m *mount.Mount, k, v, field string) (err error) {
	switch kind, _, _ := strings.Cut(k, "-"); {
	case k == "type":
		m.Type = mount.Type(strings.ToLower(v))
	case k == "source" || k == "src":
		m.Source = v
		if strings.HasPrefix(v, ".") {
			if abs, err := filepath.Abs(v); err == nil {
				m.Source = abs
			}
		}
	case k == "target" || k == "dst" || k == "destination":
		m.Target = v
	case k == "readonly" || k == "ro":
		if m.ReadOnly, err = strconv.ParseBool(v); err != nil {
			return badMountValue(k, v)
		}
	case k == "consistency":
		m.Consistency = mount.Consistency(strings.ToLower(v))
	case kind == "bind":
		return bindField(m, k, v, field)
	case kind == "volume":
		return volumeField(m, k, v, field)
	case kind == "tmpfs":
		return tmpfsField(m, k, v, field)
	case k == "image-subpath":
		m.ImageOptions = &mount.ImageOptions{Subpath: v}
	default:
		return unknownMountKey(k, field)
	}
	return nil
}

func unknownMountKey(k, field string) error {
	return fmt.Errorf("unexpected key '%s' in '%s'", k, field)
}
func badMountValue(k, v string) error { return fmt.Errorf("invalid value for %s: %s", k, v) }

func bindField(m *mount.Mount, k, v, field string) (err error) {
	if m.BindOptions == nil {
		m.BindOptions = &mount.BindOptions{}
	}
	o := m.BindOptions
	switch k {
	case "bind-propagation":
		o.Propagation = mount.Propagation(strings.ToLower(v))
	case "bind-nonrecursive":
		if o.NonRecursive, err = strconv.ParseBool(v); err != nil {
			return badMountValue(k, v)
		}
	case "bind-recursive":
		switch v {
		case "enabled":
		case "disabled":
			o.NonRecursive = true
		case "writable":
			o.ReadOnlyNonRecursive = true
		case "readonly":
			o.ReadOnlyForceRecursive = true
		default:
			return fmt.Errorf(`invalid value for %s: %s (must be "enabled", "disabled", "writable", or "readonly")`, k, v)
		}
	default:
		return unknownMountKey(k, field)
	}
	return nil
}

func volumeField(m *mount.Mount, k, v, field string) (err error) {
	if m.VolumeOptions == nil {
		m.VolumeOptions = &mount.VolumeOptions{Labels: map[string]string{}, DriverConfig: &mount.Driver{}}
	}
	o := m.VolumeOptions
	switch k {
	case "volume-subpath":
		o.Subpath = v
	case "volume-nocopy":
		if o.NoCopy, err = strconv.ParseBool(v); err != nil {
			return badMountValue(k, v)
		}
	case "volume-label":
		addPair(o.Labels, v)
	case "volume-driver":
		o.DriverConfig.Name = v
	case "volume-opt":
		if o.DriverConfig.Options == nil {
			o.DriverConfig.Options = map[string]string{}
		}
		addPair(o.DriverConfig.Options, v)
	default:
		return unknownMountKey(k, field)
	}
	return nil
}

func addPair(m map[string]string, kv string) {
	if k, v, _ := strings.Cut(kv, "="); k != "" {
		m[k] = v
	}
}

func tmpfsField(m *mount.Mount, k, v, field string) error {
	if m.TmpfsOptions == nil {
		m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	switch k {
	case "tmpfs-size":
		size, err := units.RAMInBytes(v)
		if err != nil {
			return badMountValue(k, v)
		}
		m.TmpfsOptions.SizeBytes = size
	case "tmpfs-mode":
		mode, err := strconv.ParseUint(v, 8, 32)
		if err != nil {
			return badMountValue(k, v)
		}
		m.TmpfsOptions.Mode = os.FileMode(mode)
	default:
		return unknownMountKey(k, field)
	}
	return nil
}

func checkMount(m *mount.Mount) error {
	if m.Type == "" {
		return errors.New("type is required")
	}
	if m.Target == "" {
		return errors.New("target is required")
	}
	for _, o := range []struct {
		given bool
		kind  mount.Type
	}{
		{m.VolumeOptions != nil, mount.TypeVolume}, {m.ImageOptions != nil, mount.TypeImage},
		{m.BindOptions != nil, mount.TypeBind}, {m.TmpfsOptions != nil, mount.TypeTmpfs},
	} {
		if o.given && m.Type != o.kind {
			return fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", o.kind, m.Type)
		}
	}
	b := m.BindOptions
	switch {
	case b == nil:
	case b.ReadOnlyNonRecursive && !m.ReadOnly:
		return errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
	case b.ReadOnlyForceRecursive && !m.ReadOnly:
		return errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
	case b.ReadOnlyForceRecursive && b.Propagation != mount.PropagationRPrivate:
		return errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
	}
	return nil
}
