package server

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/build"
	vtypes "github.com/moby/moby/api/types/volume"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/filter"
)

func prune[R any](w *response, r *request, do func(context.Context, filter.Args) (*R, error)) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	report, err := do(r.Context(), filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, report)
}

func (s *Server) pruneContainers(w *response, r *request) error {
	return prune(w, r, s.containers.Prune)
}

func (s *Server) pruneImages(w *response, r *request) error { return prune(w, r, s.images.Prune) }

func (s *Server) pruneNetworks(w *response, r *request) error { return prune(w, r, s.networks.Prune) }

func (s *Server) pruneVolumes(w *response, r *request) error {
	return prune(w, r, func(ctx context.Context, filters filter.Args) (*vtypes.PruneReport, error) {
		if r.before(1_42) {
			filters["all"] = append(filters["all"], "true") // named volumes were pruned too
		}
		return s.volumes.Prune(ctx, filters)
	})
}

// pruneBuildCache removes nothing: without a builder there is no cache. A prune
// of the whole system asks for it all the same, so what is wrong with the
// request is told, and otherwise that nothing went.
func (s *Server) pruneBuildCache(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	fields := []string{"id", "parent", "type", "description", "inuse", "shared", "private"}
	if err := filters.Validate(append(fields, "until", "label", "label!")...); err != nil {
		return err
	}
	if _, err := filters.Until(time.Now()); err != nil {
		return err
	}
	for _, field := range fields {
		if len(filters.Get(field)) > 1 {
			return errs.InvalidArgument("filter '%s' expects only one value", field)
		}
	}
	for _, key := range []string{"keep-storage", "reserved-space", "max-used-space", "min-free-space"} {
		if v := r.Form.Get(key); v != "" {
			if _, err := strconv.ParseInt(v, 10, 64); err != nil {
				return errs.InvalidArgument("%s is in bytes and expects an integer, got %s", key, v)
			}
		}
	}
	return writeJSON(w, http.StatusOK, &build.CachePruneReport{})
}
