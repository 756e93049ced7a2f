package image

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// diffConfig lists the settings that are not the same.
func diffConfig(old, now *dockerspec.DockerOCIImage) []ConfigDiff {
	list := configDiffs{}
	a, b := &old.Config, &now.Config
	list.text("Author", old.Author, now.Author)
	list.words("Cmd", a.Cmd, b.Cmd)
	list.words("Entrypoint", a.Entrypoint, b.Entrypoint)
	list.pairs("Env", pairsOf(a.Env), pairsOf(b.Env))
	list.pairs("ExposedPorts", keysOf(a.ExposedPorts), keysOf(b.ExposedPorts))
	if !reflect.DeepEqual(a.Healthcheck, b.Healthcheck) {
		d := ConfigDiff{Field: "Healthcheck"}
		if a.Healthcheck != nil {
			d.Old = a.Healthcheck
		}
		if b.Healthcheck != nil {
			d.New = b.Healthcheck
		}
		list = append(list, d)
	}
	list.pairs("Labels", a.Labels, b.Labels)
	list.words("OnBuild", a.OnBuild, b.OnBuild)
	list.text("Platform", FormatPlatform(platformOf(old)), FormatPlatform(platformOf(now)))
	list.words("Shell", a.Shell, b.Shell)
	list.text("StopSignal", a.StopSignal, b.StopSignal)
	list.text("User", a.User, b.User)
	list.pairs("Volumes", keysOf(a.Volumes), keysOf(b.Volumes))
	list.text("WorkingDir", a.WorkingDir, b.WorkingDir)
	return list
}

type configDiffs []ConfigDiff

func (l *configDiffs) text(field, old, now string) {
	if old == now {
		return
	}
	d := ConfigDiff{Field: field}
	if old != "" {
		d.Old = old
	}
	if now != "" {
		d.New = now
	}
	*l = append(*l, d)
}

func (l *configDiffs) words(field string, old, now []string) {
	if slices.Equal(old, now) {
		return
	}
	d := ConfigDiff{Field: field}
	if len(old) > 0 {
		d.Old = old
	}
	if len(now) > 0 {
		d.New = now
	}
	*l = append(*l, d)
}

// pairs compares by key. A value may be empty and there all the same.
func (l *configDiffs) pairs(field string, old, now map[string]string) {
	keys := slices.Collect(maps.Keys(old))
	keys = slices.AppendSeq(keys, maps.Keys(now))
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		before, had := old[key]
		after, has := now[key]
		if had == has && before == after {
			continue
		}
		d := ConfigDiff{Field: field, Key: key}
		if had {
			d.Old = before
		}
		if has {
			d.New = after
		}
		*l = append(*l, d)
	}
}

func pairsOf(env []string) map[string]string {
	pairs := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		pairs[name] = value
	}
	return pairs
}

func keysOf(set map[string]struct{}) map[string]string {
	pairs := map[string]string{}
	for key := range set {
		pairs[key] = ""
	}
	return pairs
}
