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

// noBuilds and noNetworks say what is not there yet, where "page not found"
// would tell nobody why.
func (s *Server) noBuilds(*response, *request) error {
	return errs.NotImplemented("this engine does not build images yet")
}

func (s *Server) noNetworks(*response, *request) error {
	return errs.NotImplemented("this engine has no user-defined networks yet: its networks are bridge, host and none")
}

// listPlugins is empty: what Docker's plugins add is built in, or is not there.
func (s *Server) listPlugins(w *response, _ *request) error {
	return writeJSON(w, http.StatusOK, []struct{}{})
}
