package serve

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// request is one request on its way through.
type request struct {
	*http.Request
	w          http.ResponseWriter
	repository string
	reference  string        // of manifests: a tag or a digest
	digest     digest.Digest // of blobs, and of referrers
	upload     string        // the upload's ID
	user       string
	query      url.Values // parsed when there is a query, else nil
	writer     *active    // of a request that brings a body for a blob
}

// rule is what may be done with one kind of path. The names of repositories
// have slashes in them, so that the standard mux cannot tell the kinds apart.
type rule struct {
	method string
	action Action
	handle func(*Server, *request) error
	writes bool // needs a depot that can be written to
}

func blobRules() []rule {
	return []rule{
		{"GET", Pull, (*Server).getBlob, false},
		{"HEAD", Pull, (*Server).getBlob, false},
		{"DELETE", Delete, (*Server).deleteBlob, true},
	}
}

func manifestRules() []rule {
	return []rule{
		{"GET", Pull, (*Server).getManifest, false},
		{"HEAD", Pull, (*Server).getManifest, false},
		{"PUT", Push, (*Server).putManifest, true},
		{"DELETE", Delete, (*Server).deleteManifest, true},
	}
}

func startRules() []rule {
	return []rule{{"POST", Push, (*Server).startUpload, true}}
}

func uploadRules() []rule {
	return []rule{
		{"GET", Push, (*Server).statusUpload, true},
		{"HEAD", Push, (*Server).statusUpload, true},
		{"PATCH", Push, (*Server).patchUpload, true},
		{"PUT", Push, (*Server).putUpload, true},
		{"DELETE", Push, (*Server).cancelUpload, true},
	}
}

func tagRules() []rule {
	return []rule{{"GET", Pull, (*Server).listTags, false}, {"HEAD", Pull, (*Server).listTags, false}}
}

func referrerRules() []rule {
	return []rule{{"GET", Pull, (*Server).listReferrers, false}, {"HEAD", Pull, (*Server).listReferrers, false}}
}

func catalogRules() []rule {
	return []rule{{"GET", Catalog, (*Server).listRepositories, false}, {"HEAD", Catalog, (*Server).listRepositories, false}}
}

func baseRules() []rule {
	return []rule{{"GET", Access, (*Server).base, false}, {"HEAD", Access, (*Server).base, false}}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Asked for by clients older than the specification, harmless to others.
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	// A blob is what somebody pushed: no browser is to take it for a script.
	w.Header().Set("X-Content-Type-Options", "nosniff")
	rq := &request{Request: r, w: w}
	if r.URL.RawQuery != "" {
		rq.query = r.URL.Query()
	}
	if r.ContentLength != 0 {
		s.deadline(rq) // also for a body nobody here reads: net/http waits for its end
	}
	if err := s.serve(rq); err != nil {
		s.fail(rq, err)
	}
}

func (s *Server) serve(rq *request) error {
	rules, err := rq.route()
	if err != nil {
		return err
	}
	for _, rule := range rules {
		if rule.method != rq.Method {
			continue
		}
		if err := s.authorize(rq, rule.action); err != nil {
			return err
		}
		if rule.writes && s.writes == nil {
			return refuse(http.StatusMethodNotAllowed, codeUnsupported, "this registry can be pulled from, and nothing else")
		}
		return rule.handle(s, rq)
	}
	var allowed []string
	for _, rule := range rules {
		allowed = append(allowed, rule.method)
	}
	rq.w.Header().Set("Allow", strings.Join(allowed, ", "))
	return refuse(http.StatusMethodNotAllowed, codeUnsupported, "%s is not a method of this path", rq.Method)
}

// route takes the path apart and says what may be done with it.
func (rq *request) route() ([]rule, error) {
	path, ok := strings.CutPrefix(rq.URL.Path, "/v2/")
	if !ok {
		if rq.URL.Path == "/v2" {
			return baseRules(), nil
		}
		return nil, notHere()
	}
	switch path {
	case "":
		return baseRules(), nil
	case "_catalog":
		return catalogRules(), nil
	}
	rest, last := cutLast(path)
	name, kind := cutLast(rest)
	switch {
	case kind == "uploads" && strings.HasSuffix(name, "/blobs"):
		rq.repository = strings.TrimSuffix(name, "/blobs")
		rq.upload = last
		if last == "" {
			return rq.named(startRules())
		}
		return rq.named(uploadRules())
	case kind == "blobs" && last == "uploads":
		rq.repository = name
		return rq.named(startRules())
	case kind == "blobs":
		rq.repository, rq.digest = name, digest.Digest(last)
		return rq.digested(blobRules())
	case kind == "manifests":
		rq.repository, rq.reference = name, last
		return rq.referenced(manifestRules())
	case kind == "tags" && last == "list":
		rq.repository = name
		return rq.named(tagRules())
	case kind == "referrers":
		rq.repository, rq.digest = name, digest.Digest(last)
		return rq.digested(referrerRules())
	}
	return nil, notHere()
}

func notHere() error {
	return refuse(http.StatusNotFound, codeUnsupported, "this is no path of the distribution protocol")
}

// cutLast cuts at the last slash.
func cutLast(path string) (before, after string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func (rq *request) named(rules []rule) ([]rule, error) {
	if err := depot.CheckRepository(rq.repository); err != nil {
		return nil, refuse(http.StatusBadRequest, codeNameInvalid, "%w", err)
	}
	return rules, nil
}

func (rq *request) digested(rules []rule) ([]rule, error) {
	if _, err := rq.named(nil); err != nil {
		return nil, err
	}
	if err := depot.CheckDigest(rq.digest); err != nil {
		return nil, refuse(http.StatusBadRequest, codeDigestInvalid, "%w", err)
	}
	return rules, nil
}

// referenced checks a reference. What is neither a tag nor a digest names a
// manifest that cannot be there, which is what a pull is told; to a push it is a
// mistake.
func (rq *request) referenced(rules []rule) ([]rule, error) {
	if _, err := rq.named(nil); err != nil {
		return nil, err
	}
	reads := rq.Method == http.MethodGet || rq.Method == http.MethodHead
	if strings.Contains(rq.reference, ":") {
		rq.digest = digest.Digest(rq.reference)
		if err := depot.CheckDigest(rq.digest); err != nil {
			return nil, refuse(http.StatusBadRequest, codeDigestInvalid, "%w", err)
		}
		return rules, nil
	}
	if err := depot.CheckTag(rq.reference); err != nil {
		if reads {
			return nil, refuse(http.StatusNotFound, codeManifestUnknown, "%w", err)
		}
		return nil, refuse(http.StatusBadRequest, codeManifestInvalid, "%w", err)
	}
	return rules, nil
}

// authorize asks who makes the request and whether it may be made.
func (s *Server) authorize(rq *request, action Action) error {
	if s.o.Access == nil {
		return nil
	}
	user, err := s.o.Access.Authorize(rq.Request, rq.repository, action)
	if err != nil {
		return &accessError{err, action}
	}
	rq.user = user
	return nil
}

// base answers /v2/: this is a registry ("Determining Support").
func (s *Server) base(rq *request) error {
	return rq.json(http.StatusOK, struct{}{})
}
