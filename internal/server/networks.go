package server

import (
	"net/http"
	"strconv"

	"github.com/gantry-containers/gantry/internal/errs"
)

func (s *Server) listNetworks(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	if err := filters.Validate("dangling", "driver", "id", "label", "name", "scope", "type"); err != nil {
		return err
	}
	list, err := s.networks.List(r.Context(), filters)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, legacyNetworks(list))
}

func (s *Server) inspectNetwork(w *response, r *request) error {
	if v := r.Form.Get("verbose"); v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return errs.InvalidArgument("invalid value for verbose: %s", v)
		}
	}
	if scope := r.Form.Get("scope"); scope != "" && scope != "local" {
		return errs.NotFound("network %s not found", r.name) // all networks are of this machine
	}
	n, err := s.networks.Inspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, legacyNetwork(n))
}

// removeNetwork refuses: there are no networks but those the engine needs.
func (s *Server) removeNetwork(_ *response, r *request) error {
	n, err := s.networks.Inspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	return errs.Forbidden("%s is a pre-defined network and cannot be removed", n.Name)
}
