package server

import (
	"net/http"
	"strings"

	"github.com/distribution/reference"
	itypes "github.com/moby/moby/api/types/image"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/image"
)

func (s *Server) listImages(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	if f := r.Form.Get("filter"); f != "" && r.before(1_41) {
		filters["reference"] = append(filters["reference"], f)
	}
	list, err := s.images.List(r.Context(), image.ListOptions{
		All:        r.flag("all"),
		Filters:    filters,
		SharedSize: r.flag("shared-size") && !r.before(1_42),
		Containers: !r.before(1_51),
		Manifests:  r.flag("manifests") && !r.before(1_47),
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, legacyImages(r, list))
}

func (s *Server) inspectImage(w *response, r *request) error {
	platform, err := r.platform(1_49)
	if err != nil {
		return err
	}
	manifests := r.flag("manifests") && !r.before(1_48)
	if manifests && platform != nil {
		return errs.InvalidArgument("conflicting options: manifests and platform options cannot both be set")
	}
	img, err := s.images.Inspect(r.Context(), r.name, image.InspectOptions{Platform: platform, Manifests: manifests})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, legacyImage(r, img, s.images.Parent(img.ID)))
}

func (s *Server) imageHistory(w *response, r *request) error {
	platform, err := r.platform(1_48)
	if err != nil {
		return err
	}
	history, err := s.images.History(r.Context(), r.name, platform)
	if err != nil {
		return err
	}
	if history == nil {
		history = []itypes.HistoryResponseItem{}
	}
	return writeJSON(w, http.StatusOK, history)
}

// diffImages compares two images. It is Gantry's own.
func (s *Server) diffImages(w *response, r *request) error {
	from, to := r.Form.Get("from"), r.Form.Get("to")
	if from == "" || to == "" {
		return errs.InvalidArgument("two images are needed, as from and to")
	}
	diff, err := s.images.Diff(r.Context(), from, to)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, diff)
}

func (s *Server) tagImage(w *response, r *request) error {
	repo, tag := r.Form.Get("repo"), r.Form.Get("tag")
	if err := checkRepoTag(repo, tag); err != nil {
		return err
	}
	if repo == "" {
		return errs.InvalidArgument("a repository to tag the image with is needed")
	}
	if err := s.images.Tag(r.name, repo, tag); err != nil {
		return err
	}
	w.WriteHeader(http.StatusCreated)
	return nil
}

// checkRepoTag refuses what cannot name an image: the words of the reference
// grammar are the user's mistake, not the manager's.
func checkRepoTag(repo, tag string) error {
	if repo == "" {
		return nil
	}
	ref, err := reference.ParseNormalizedNamed(repo)
	if err != nil {
		return errs.InvalidArgument("%w", err)
	}
	if _, ok := ref.(reference.Digested); ok {
		return errs.InvalidArgument("refusing to create a tag with a digest reference")
	}
	if tag != "" {
		if _, err := reference.WithTag(reference.TrimNamed(ref), tag); err != nil {
			return errs.InvalidArgument("%w", err)
		}
	}
	if reference.FamiliarName(ref) == "sha256" {
		return errs.InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
	}
	return nil
}

func (s *Server) removeImage(w *response, r *request) error {
	if strings.TrimSpace(r.name) == "" {
		return errs.InvalidArgument("image name cannot be blank")
	}
	platforms, err := r.platforms("platforms", 1_50)
	if err != nil {
		return err
	}
	o := image.RemoveOptions{Force: r.flag("force"), NoPrune: r.flag("noprune")}
	switch len(platforms) {
	case 0:
	case 1:
		o.Platform = &platforms[0]
	default:
		return errs.InvalidArgument("multiple platform parameters not supported")
	}
	list, err := s.images.Remove(r.Context(), r.name, o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *Server) saveImages(w *response, r *request) error {
	platforms, err := r.platforms("platform", 1_48)
	if err != nil {
		return err
	}
	if len(platforms) > 1 {
		return errs.InvalidArgument("multiple platform parameters not supported")
	}
	names := r.Form["names"]
	if r.name != "" {
		names = []string{r.name}
	}
	w.Header().Set("Content-Type", "application/x-tar")
	return s.images.Save(r.Context(), names, w, platforms)
}
