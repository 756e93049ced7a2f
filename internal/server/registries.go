package server

import (
	"net/http"
	"strconv"

	"github.com/moby/moby/api/pkg/authconfig"

	"github.com/gantry-containers/gantry/internal/errs"
)

// login tries the credentials of the body on the registry they name. What
// remembers them is the client.
func (s *Server) login(w *response, r *request) error {
	cred, err := authconfig.DecodeRequestBody(r.Body)
	if err != nil {
		return errs.InvalidArgument("%w", err)
	}
	token, err := s.registries.Login(r.Context(), cred)
	if err != nil {
		return err
	}
	// Docker leaves the field out for no version, and clients of old ones read it.
	return writeJSON(w, http.StatusOK, &struct {
		IdentityToken string
		Status        string
	}{token, "Login Succeeded"})
}

func (s *Server) searchImages(w *response, r *request) error {
	limit := 0
	if text := r.Form.Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil {
			return errs.InvalidArgument("invalid limit specified: %w", err)
		}
		if limit < 0 {
			return errs.InvalidArgument("invalid limit specified: %d is less than none", limit)
		}
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	results, err := s.registries.Search(r.Context(), r.Form.Get("term"), limit, filters, registryAuth(r))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, results)
}

func (s *Server) inspectDistribution(w *response, r *request) error {
	info, err := s.registries.Inspect(r.Context(), r.name, registryAuth(r))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, info)
}
