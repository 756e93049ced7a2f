package serve

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// page is what the n and last parameters ask for. n is at most Limits.Page; -1
// stands for no wish, which is answered with that page too.
func (s *Server) page(rq *request) (n int, last string, err error) {
	n = s.o.Limits.Page
	if text := rq.query.Get("n"); text != "" {
		asked, err := strconv.Atoi(text)
		if err != nil || asked < 0 {
			return 0, "", refuse(http.StatusBadRequest, codeUnsupported, "n=%s is no number of entries", clip(text))
		}
		n = min(asked, n)
	}
	return n, rq.query.Get("last"), nil
}

// next sets the Link header to the page after this one (RFC 8288).
func (rq *request) next(n int, last string) {
	query := url.Values{"n": {strconv.Itoa(n)}, "last": {last}}
	if t := rq.query.Get("artifactType"); t != "" {
		query.Set("artifactType", t)
	}
	if ns := rq.query.Get("ns"); ns != "" {
		query.Set("ns", ns)
	}
	rq.w.Header().Set("Link", "<"+rq.URL.EscapedPath()+"?"+query.Encode()+`>; rel="next"`)
}

type tagList struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

// listTags lists a repository's tags ("Listing Tags").
func (s *Server) listTags(rq *request) error {
	n, last, err := s.page(rq)
	if err != nil {
		return err
	}
	tags := []string{}
	if n > 0 {
		// One more than asked for tells whether there is a next page.
		if tags, err = s.depot.Tags(rq.Context(), rq.repository, last, n+1); err != nil {
			return err
		}
	}
	if len(tags) == 0 {
		exists, err := s.depot.Exists(rq.Context(), rq.repository)
		if err != nil {
			return err
		}
		if !exists {
			return refuse(http.StatusNotFound, codeNameUnknown, "this registry has no repository %s", rq.repository)
		}
		tags = []string{}
	}
	if len(tags) > n {
		tags = tags[:n]
		rq.next(n, tags[n-1])
	}
	return rq.json(http.StatusOK, tagList{rq.repository, tags})
}

type catalog struct {
	Repositories []string `json:"repositories"`
}

// listRepositories lists the repositories, as registries do by convention: the
// specification leaves the catalog out.
func (s *Server) listRepositories(rq *request) error {
	n, last, err := s.page(rq)
	if err != nil {
		return err
	}
	names := []string{}
	if n > 0 {
		if names, err = s.repositories(rq, last, n+1); err != nil {
			return err
		}
	}
	if len(names) > n {
		names = names[:n]
		rq.next(n, names[n-1])
	}
	if names == nil {
		names = []string{}
	}
	return rq.json(http.StatusOK, catalog{names})
}

// maxReferrers bounds a page of referrers in bytes, as the answer is itself a
// manifest to clients, which take 4 MiB at least.
const maxReferrers = 3 << 20

// listReferrers lists what refers to a manifest, which need not be there
// ("Listing Referrers").
func (s *Server) listReferrers(rq *request) error {
	n, last, err := s.page(rq)
	if err != nil {
		return err
	}
	wanted := rq.query.Get("artifactType")
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	size := 0
	take := func(m depot.Manifest) bool {
		if wanted == "" || m.ArtifactType == wanted {
			size += weight(m)
			if len(index.Manifests) == n || size > maxReferrers && len(index.Manifests) > 0 {
				rq.next(n, last)
				return false
			}
			index.Manifests = append(index.Manifests, descriptor(m))
		}
		last = m.Digest.String()
		return true
	}
	if n > 0 {
		if err := depot.EachReferrer(rq.Context(), s.depot, rq.repository, rq.digest, last, take); err != nil {
			return err
		}
	}
	h := rq.w.Header()
	if wanted != "" {
		h.Set("OCI-Filters-Applied", "artifactType")
	}
	h.Set("Content-Type", ocispec.MediaTypeImageIndex)
	return rq.json(http.StatusOK, index)
}

// weight is about what a descriptor takes in the answer, in bytes.
func weight(m depot.Manifest) int {
	total := 256 + len(m.ArtifactType)
	for k, v := range m.Annotations {
		total += len(k) + len(v) + 16
	}
	return total
}
