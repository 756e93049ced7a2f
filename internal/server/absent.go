package server

import (
	"net/http"

	"github.com/gantry-containers/gantry/internal/errs"
)

// noSwarm answers as every engine that is in no swarm: programs that can use one
// ask whether there is one, and take "page not found" for a broken engine.
func (s *Server) noSwarm(*response, *request) error {
	return errs.Unavailable("This node is not a swarm manager.")
}

// listPlugins is empty: what Docker's plugins add is built in, or is not there.
func (s *Server) listPlugins(w *response, _ *request) error {
	return writeJSON(w, http.StatusOK, []struct{}{})
}
