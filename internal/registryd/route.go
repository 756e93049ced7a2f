package registryd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/access"
	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// route is the table of paths. It is no http.ServeMux, as that answers a path it
// would write differently with a redirect, and the protocol has its own errors.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	site := s.site.Load()
	if site.config.Host != "" {
		r.Host = site.config.Host // it goes into addresses others follow
	}
	var next http.Handler
	path := r.URL.Path
	switch {
	case path == "/v2" || strings.HasPrefix(path, "/v2/"):
		next = s.protocol
	case path == "/token":
		next = http.HandlerFunc(site.access.ServeToken)
	case path == "/.well-known/jwks.json":
		next = http.HandlerFunc(site.access.ServeKeys)
	case strings.HasPrefix(path, "/v1/"), strings.HasPrefix(path, "/api/"):
		next = site.api
	case path == "/metrics":
		next = http.HandlerFunc(s.figures)
	case path == "/healthz":
		next = http.HandlerFunc(s.health)
	default:
		next = site.pages
	}
	if r.ContentLength != 0 {
		// The protocol knows uploads and has deadlines of its own; to all the
		// rest bodies are small, and a client that stalls holds a connection.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.bodyTimeout))
	}
	s.metrics.Count(next, s.log).ServeHTTP(w, r)
}

// figures are for everybody with an account, where there are accounts.
func (s *Server) figures(w http.ResponseWriter, r *http.Request) {
	a := s.site.Load().access
	id, err := a.Identify(r)
	if err == nil && id.User == "" && !a.Open() {
		err = errs.Unauthorized("authentication required")
	}
	if err != nil {
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	s.metrics.ServeHTTP(w, r)
}

// health is for load balancers: that the storage answers.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if _, err := s.depot.Repositories(r.Context(), "", 1); err != nil {
		http.Error(w, "the storage does not answer", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// gate is the serve.Authorizer of the present configuration.
type gate struct{ s *Server }

var _ serve.Authorizer = gate{}

func rightsOf(actions ...serve.Action) access.Rights {
	var rights access.Rights
	for _, action := range actions {
		switch action {
		case serve.Pull:
			rights |= access.Read
		case serve.Push:
			rights |= access.Read | access.Write
		case serve.Delete:
			rights |= access.Delete
		}
	}
	return rights
}

// Authorize implements serve.Authorizer.
func (g gate) Authorize(r *http.Request, repository string, action serve.Action) (string, error) {
	site := g.s.site.Load()
	asked := repository
	if action == serve.Catalog {
		asked = access.CatalogScope
	}
	id, err := site.access.Authorize(r, asked, rightsOf(action))
	if err != nil {
		return id.User, err
	}
	if action == serve.Push {
		if host, ok := site.mirror.Of(repository); ok {
			return "", errs.Forbidden("repository %s is a mirror of %s and cannot be pushed to", repository, host)
		}
	}
	return id.User, nil
}

// MayList tells which repositories a list shows to who asks.
func (g gate) MayList(r *http.Request) func(repository string) bool {
	a := g.s.site.Load().access
	id, err := a.Identify(r)
	if err != nil {
		return func(string) bool { return false }
	}
	return func(repository string) bool { return a.MayRead(id, repository) }
}

// Challenge implements serve.Authorizer.
func (g gate) Challenge(r *http.Request, repository string, actions ...serve.Action) string {
	if len(actions) == 1 && actions[0] == serve.Catalog {
		repository = access.CatalogScope
	}
	return g.s.site.Load().access.Challenge(r, repository, rightsOf(actions...))
}

// behindUs is the serve.Upstream of the present configuration.
type behindUs struct{ s *Server }

var _ serve.Upstream = behindUs{}

// Manifest implements serve.Upstream.
func (u behindUs) Manifest(ctx context.Context, repository, reference string) error {
	return u.s.site.Load().mirror.Manifest(ctx, repository, reference)
}

// Blob implements serve.Upstream.
func (u behindUs) Blob(ctx context.Context, repository string, dgst digest.Digest) (io.ReadCloser, depot.Info, error) {
	return u.s.site.Load().mirror.Blob(ctx, repository, dgst)
}

// Stat implements serve.Upstream.
func (u behindUs) Stat(ctx context.Context, repository string, dgst digest.Digest) (depot.Info, error) {
	return u.s.site.Load().mirror.Stat(ctx, repository, dgst)
}
