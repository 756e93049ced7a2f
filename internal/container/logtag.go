package container

import (
	"strings"
	"text/template"
)

// tagInfo is what a log tag may speak of.
type tagInfo struct {
	FullID, ID, Name, ImageName, ImageFullID, ImageID, DaemonName, Command string
	ContainerLabels                                                        map[string]string
}

// expandTag fills in the template of --log-opt tag; a template that is none is
// used as it was written.
func expandTag(tag string, rec *Record) string {
	t, err := template.New("tag").Parse(tag)
	if err != nil {
		return tag
	}
	image := rec.ImageID.Encoded()
	info := &tagInfo{
		FullID: rec.ID, ID: rec.ID[:12], Name: rec.Name,
		ImageName: rec.Config.Image, ImageFullID: rec.ImageID.String(), ImageID: image[:min(12, len(image))],
		DaemonName: "gantry", Command: strings.Join(rec.argv(), " "), ContainerLabels: rec.Config.Labels,
	}
	var b strings.Builder
	if t.Execute(&b, info) != nil {
		return tag
	}
	return b.String()
}
