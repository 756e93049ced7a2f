package runflags

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/moby/moby/api/types/mount"
	"github.com/spf13/pflag"
)

// mounts are what is mounted into the container, in the four syntaxes.
type mounts struct {
	volume       List
	mount        parsed[mount.Mount]
	tmpfs        List
	volumesFrom  List
	volumeDriver string
}

func (m *mounts) add(fs *pflag.FlagSet) {
	m.mount = parsed[mount.Mount]{name: "mount", parse: parseMount}
	fs.VarP(&m.volume, "volume", "v", "Bind mount a volume")
	fs.Var(&m.mount, "mount", "Attach a filesystem mount to the container")
	fs.Var(&m.tmpfs, "tmpfs", "Mount a tmpfs directory")
	fs.Var(&m.volumesFrom, "volumes-from", "Mount volumes from the specified container(s)")
	fs.StringVar(&m.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
}

func (m *mounts) apply(c *Container) error {
	c.Config.Volumes = map[string]struct{}{}
	for i, v := range m.volume.values {
		if slices.Contains(m.volume.values[:i], v) {
			continue
		}
		bind, anonymous, err := parseVolume(v)
		switch {
		case err != nil:
			return err
		case anonymous:
			c.Config.Volumes[v] = struct{}{}
		default:
			c.HostConfig.Binds = append(c.HostConfig.Binds, bind)
		}
	}
	c.HostConfig.Tmpfs = map[string]string{}
	for _, v := range m.tmpfs.values {
		target, options, _ := strings.Cut(v, ":")
		c.HostConfig.Tmpfs[target] = options
	}
	c.HostConfig.Mounts = m.mount.values
	c.HostConfig.VolumesFrom = m.volumesFrom.values
	c.HostConfig.VolumeDriver = m.volumeDriver
	return nil
}

// parseVolume reads [source:]target[:options]. A source that starts with a dot
// is relative to the working directory. Without a source the volume is
// anonymous. The engine validates targets and options.
func parseVolume(v string) (bind string, anonymous bool, err error) {
	if v == "" {
		return "", false, errors.New("invalid empty volume spec")
	}
	if len(v) <= 2 {
		return v, true, nil
	}
	parts := splitVolume(v)
	if slices.Contains(parts, "") {
		return "", false, fmt.Errorf("invalid spec: %s: empty section between colons", v)
	}
	if len(parts) > 3 {
		return "", false, fmt.Errorf("invalid spec: %s: too many colons", v)
	}
	if len(parts) == 1 {
		return v, true, nil
	}
	if source := parts[0]; strings.HasPrefix(source, ".") {
		if abs, err := filepath.Abs(source); err == nil {
			return abs + strings.TrimPrefix(v, source), false, nil
		}
	}
	return v, false, nil
}

// splitVolume splits at colons other than the one after a drive letter.
func splitVolume(v string) []string {
	var parts []string
	start := 0
	for i, r := range v {
		if r != ':' {
			continue
		}
		if section := v[start:i]; len([]rune(section)) == 1 && unicode.IsLetter([]rune(section)[0]) {
			continue
		}
		parts = append(parts, v[start:i])
		start = i + 1
	}
	return append(parts, v[start:])
}
