package server

import (
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	itypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
)

type legacyImageInspect struct {
	*itypes.InspectResponse
	Parent        string
	Comment       string
	DockerVersion string
	Author        string
	Config        legacyImageConfig
	VirtualSize   int64 `json:",omitempty"`
	GraphDriver   storage.DriverData
}

// legacyImageConfig shows fields that hold nothing.
type legacyImageConfig struct {
	*dockerspec.DockerOCIImageConfig
	*legacyImageConfig149
	Cmd        []string
	Entrypoint []string
	Env        []string
	Labels     map[string]string
	OnBuild    []string
	User       string
	Volumes    map[string]struct{}
	WorkingDir string
}

// legacyImageConfig149 are fields of a container's configuration, which before
// API 1.50 images showed with nothing in them.
type legacyImageConfig149 struct {
	AttachStderr bool
	AttachStdin  bool
	AttachStdout bool
	Domainname   string
	Hostname     string
	Image        string
	OpenStdin    bool
	StdinOnce    bool
	Tty          bool
}

func legacyImage(r *request, img *itypes.InspectResponse, parent string) *legacyImageInspect {
	answer := &legacyImageInspect{InspectResponse: img, Parent: parent, Comment: img.Comment, Author: img.Author}
	img.Identity = nil // came with API 1.53
	dropIdentity(img.Manifests)
	if img.RepoTags == nil {
		img.RepoTags = []string{}
	}
	if img.RepoDigests == nil {
		img.RepoDigests = []string{}
	}
	if r.before(1_44) {
		answer.VirtualSize = img.Size
		if img.Created == "" {
			img.Created = time.Time{}.Format(time.RFC3339Nano)
		}
	}
	if r.before(1_48) {
		img.Descriptor = nil
	}
	if img.GraphDriver != nil {
		answer.GraphDriver = *img.GraphDriver
	}
	if r.before(1_50) {
		answer.Config.legacyImageConfig149 = &legacyImageConfig149{}
	}
	if c := img.Config; c != nil {
		answer.Config.DockerOCIImageConfig = c
		answer.Config.Cmd, answer.Config.Entrypoint, answer.Config.Env = c.Cmd, c.Entrypoint, c.Env
		answer.Config.Labels, answer.Config.OnBuild, answer.Config.User = c.Labels, c.OnBuild, c.User
		answer.Config.Volumes, answer.Config.WorkingDir = c.Volumes, c.WorkingDir
	}
	return answer
}

// dropIdentity takes out what came with API 1.54.
func dropIdentity(manifests []itypes.ManifestSummary) {
	for i := range manifests {
		if data := manifests[i].ImageData; data != nil {
			data.Identity = nil
		}
	}
}

type legacyImageSummary struct {
	*itypes.Summary
	VirtualSize int64 `json:",omitempty"`
}

func legacyImages(r *request, list []itypes.Summary) []legacyImageSummary {
	answer := make([]legacyImageSummary, len(list))
	for i := range list {
		img := &list[i]
		answer[i].Summary = img
		dropIdentity(img.Manifests)
		switch {
		case r.before(1_43) && len(img.RepoTags) == 0 && len(img.RepoDigests) == 0:
			img.RepoTags, img.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		default:
			if img.RepoTags == nil {
				img.RepoTags = []string{}
			}
			if img.RepoDigests == nil {
				img.RepoDigests = []string{}
			}
		}
		if r.before(1_44) {
			answer[i].VirtualSize = img.Size
		}
		if r.before(1_48) {
			img.Descriptor = nil
		}
		if r.before(1_51) {
			img.Containers = -1
		}
	}
	return answer
}
