package server

import (
	"net/http"

	"github.com/moby/moby/api/types/build"
	ctypes "github.com/moby/moby/api/types/container"
	itypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/system"
	vtypes "github.com/moby/moby/api/types/volume"

	"github.com/gantry-containers/gantry/internal/engine"
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/image"
)

func (s *Server) getDiskUsage(w *response, r *request) error {
	containers, images, volumes, cache := true, true, true, true
	if kinds, ok := r.Form["type"]; ok && !r.before(1_42) {
		containers, images, volumes, cache = false, false, false, false
		for _, kind := range kinds {
			switch system.DiskUsageObject(kind) {
			case system.ContainerObject:
				containers = true
			case system.ImageObject:
				images = true
			case system.VolumeObject:
				volumes = true
			case system.BuildCacheObject:
				cache = true
			default:
				return errs.InvalidArgument("unknown object type: %s", kind)
			}
		}
	}
	u, err := s.system.DiskUsage(r.Context(), containers, images, volumes)
	if err != nil {
		return err
	}
	if r.before(1_52) {
		return writeJSON(w, http.StatusOK, legacyUsage(r, u, cache))
	}
	verbose := r.flag("verbose")
	answer := struct {
		*legacyDiskUsage // of those that do not know the newer form, and do not ask for it
		*system.DiskUsage
	}{nil, usageTotals(u, cache, verbose)}
	if !verbose {
		answer.legacyDiskUsage = legacyUsage(r, u, cache)
	}
	return writeJSON(w, http.StatusOK, &answer)
}

// collectImages removes images as the daemon does by itself when the disk is
// full, or tells what would go. It is Gantry's own.
func (s *Server) collectImages(w *response, r *request) (err error) {
	o := image.ReclaimOptions{DryRun: r.flag("dry-run")}
	if o.Watermarks.High, err = image.ParseWatermark(r.Form.Get("high")); err != nil {
		return err
	}
	if o.Watermarks.Low, err = image.ParseWatermark(r.Form.Get("low")); err != nil {
		return err
	}
	report, err := s.images.Reclaim(r.Context(), o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

type legacyDiskUsage struct {
	LayersSize  int64
	Images      []legacyImageSummary
	Containers  []legacySummary
	Volumes     []vtypes.Volume
	BuildCache  []build.CacheRecord
	BuilderSize int64 `json:",omitempty"`
}

// legacyUsage is the answer before API 1.52. It shows null for what was not
// asked for.
func legacyUsage(r *request, u *engine.Usage, cache bool) *legacyDiskUsage {
	answer := &legacyDiskUsage{Volumes: u.Volumes}
	if u.Images != nil {
		answer.LayersSize = u.Images.Total
		users := make([]int64, len(u.Images.Images))
		for i := range users {
			users[i] = u.Images.Images[i].Containers
		}
		answer.Images = legacyImages(r, u.Images.Images)
		for i := range users {
			answer.Images[i].Containers = users[i] // here they were always counted
		}
	}
	if u.Containers != nil {
		answer.Containers = legacySummaries(r, u.Containers)
	}
	if cache {
		answer.BuildCache = []build.CacheRecord{}
	}
	return answer
}

// usageTotals is the answer of API 1.52 and newer: sums, and the things they
// are the sums of when those are asked for.
func usageTotals(u *engine.Usage, cache, verbose bool) *system.DiskUsage {
	answer := &system.DiskUsage{}
	if u.Images != nil {
		answer.ImageUsage = &itypes.DiskUsage{
			ActiveCount: int64(u.Images.Active), TotalCount: int64(len(u.Images.Images)),
			TotalSize: u.Images.Total, Reclaimable: u.Images.Reclaimable,
		}
	}
	if u.Containers != nil {
		answer.ContainerUsage = &ctypes.DiskUsage{TotalCount: int64(len(u.Containers))}
		addContainers(answer.ContainerUsage, u.Containers)
	}
	if u.Volumes != nil {
		answer.VolumeUsage = &vtypes.DiskUsage{TotalCount: int64(len(u.Volumes))}
		addVolumes(answer.VolumeUsage, u.Volumes)
	}
	if cache {
		answer.BuildCacheUsage = &build.DiskUsage{}
	}
	if !verbose {
		return answer
	}
	if u.Images != nil {
		answer.ImageUsage.Items = u.Images.Images
	}
	if u.Containers != nil {
		answer.ContainerUsage.Items = u.Containers
	}
	if u.Volumes != nil {
		answer.VolumeUsage.Items = u.Volumes
	}
	return answer
}

func addContainers(to *ctypes.DiskUsage, list []ctypes.Summary) {
	for i := range list {
		to.TotalSize += list[i].SizeRw
		switch list[i].State {
		case ctypes.StateRunning, ctypes.StatePaused, ctypes.StateRestarting:
			to.ActiveCount++
		default:
			to.Reclaimable += list[i].SizeRw
		}
	}
}

func addVolumes(to *vtypes.DiskUsage, list []vtypes.Volume) {
	for i := range list {
		data := list[i].UsageData
		if data == nil || data.Size < 0 {
			continue
		}
		to.TotalSize += data.Size
		if data.RefCount > 0 {
			to.ActiveCount++
		} else {
			to.Reclaimable += data.Size
		}
	}
}
