package server

import (
	"github.com/distribution/reference"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/image"
)

// pushImage pushes one tag, or all of a repository when none is named.
func (s *Server) pushImage(w *response, r *request) error {
	platform, err := r.platform(1_46)
	if err != nil {
		return err
	}
	ref, err := reference.ParseNormalizedNamed(r.name)
	if err != nil {
		return errs.InvalidArgument("%w", err)
	}
	if tag := r.Form.Get("tag"); tag != "" {
		if ref, err = reference.WithTag(reference.TrimNamed(ref), tag); err != nil {
			return errs.InvalidArgument("%w", err)
		}
	}
	out := newProgress(w)
	return out.end(r, s.images.Push(r.Context(), ref.String(), image.PushOptions{
		Platform: platform,
		Auth:     registryAuth(r),
		AllTags:  reference.IsNameOnly(ref),
		Progress: out.send,
	}))
}
