package serve

import (
	"net/http"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// Lister is what an Authorizer implements whose users may not all know of every
// repository.
type Lister interface {
	// MayList tells, for who makes the request, which repositories a list
	// of them shows.
	MayList(r *http.Request) func(repository string) bool
}

// ParseManifest is what a depot has to know of a manifest that came as the
// Content-Type says, with the checks a push is subject to: for an Upstream that
// stores what it fetched. Digest, time and user are the caller's to fill in.
func ParseManifest(contentType string, body []byte) (depot.Manifest, error) {
	return parseManifest(contentType, body)
}

// repositories are up to n names after last that who asks may know of.
func (s *Server) repositories(rq *request, last string, n int) ([]string, error) {
	lister, ok := s.o.Access.(Lister)
	if !ok {
		return s.depot.Repositories(rq.Context(), last, n)
	}
	may := lister.MayList(rq.Request)
	var names []string
	for {
		page, err := s.depot.Repositories(rq.Context(), last, n)
		if err != nil {
			return nil, err
		}
		for _, name := range page {
			if may(name) {
				if names = append(names, name); len(names) == n {
					return names, nil
				}
			}
		}
		if len(page) < n {
			return names, nil
		}
		last = page[len(page)-1]
	}
}
