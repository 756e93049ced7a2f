package server

import (
	"expvar"
	"net/http/pprof"
)

func (s *Server) debugVars(w *response, r *request) error {
	expvar.Handler().ServeHTTP(w, r.Request)
	return nil
}

// debugProfile serves what `go tool pprof` and `go tool trace` read.
func (s *Server) debugProfile(w *response, r *request) error {
	switch r.name {
	case "":
		pprof.Index(w, r.Request)
	case "cmdline":
		pprof.Cmdline(w, r.Request)
	case "profile":
		pprof.Profile(w, r.Request)
	case "symbol":
		pprof.Symbol(w, r.Request)
	case "trace":
		pprof.Trace(w, r.Request)
	default:
		pprof.Handler(r.name).ServeHTTP(w, r.Request)
	}
	return nil
}
