package container

import (
	"bytes"
	"encoding/json"
	"strings"
	"text/template"

	"github.com/gantry-containers/gantry/internal/errs"
)

// tagInfo is what a log tag may speak of.
type tagInfo struct {
	FullID, ID, Name, ImageName, ImageFullID, ImageID, DaemonName, Command string
	ContainerLabels                                                        map[string]string
}

// expandTag fills in the template of --log-opt tag.
func expandTag(tag string, rec *Record) (string, error) {
	t, err := template.New("log-tag").Funcs(tagFunctions()).Parse(tag)
	if err != nil {
		return "", errs.InvalidArgument("failed to initialize logging driver: %w", err)
	}
	image := rec.ImageID.Encoded()
	info := &tagInfo{
		FullID: rec.ID, ID: rec.ID[:12], Name: rec.Name,
		ImageName: rec.Config.Image, ImageFullID: rec.ImageID.String(), ImageID: image[:min(12, len(image))],
		DaemonName: "gantry", Command: strings.Join(rec.argv(), " "), ContainerLabels: rec.Config.Labels,
	}
	var b strings.Builder
	if err := t.Execute(&b, info); err != nil {
		return "", errs.InvalidArgument("failed to initialize logging driver: %w", err)
	}
	return b.String(), nil
}

// tagFunctions are those Docker's templates know.
func tagFunctions() template.FuncMap {
	return template.FuncMap{
		"join": strings.Join, "split": strings.Split, "lower": strings.ToLower, "upper": strings.ToUpper,
		"json": func(v any) (string, error) {
			var b bytes.Buffer
			encoder := json.NewEncoder(&b)
			encoder.SetEscapeHTML(false)
			err := encoder.Encode(v)
			return strings.TrimSpace(b.String()), err
		},
		"title": func(s string) string { return strings.ToUpper(s[:min(1, len(s))]) + s[min(1, len(s)):] },
		"pad": func(s string, before, after int) string {
			if s == "" {
				return s
			}
			return strings.Repeat(" ", max(before, 0)) + s + strings.Repeat(" ", max(after, 0))
		},
		"truncate": func(s string, n int) string { return s[:min(max(n, 0), len(s))] },
	}
}
