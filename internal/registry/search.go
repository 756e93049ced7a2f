package registry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	registrytypes "github.com/moby/moby/api/types/registry"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/filter"
)

// searchPath is the search of Docker's registry protocol 1.
const searchPath = "/v1/search"

// searchHost is where Docker Hub is searched.
const searchHost = "index.docker.io"

// Bounds of what a search may ask for and be answered.
const (
	defaultSearchLimit = 25
	maxSearchLimit     = 100
	maxSearchAnswer    = 8 << 20
)

// Search asks a registry which of its repositories fit the term, by the search
// call of Docker's registry protocol 1, GET /v1/search?q=&n=, which is the only
// one there is. A term may begin with the registry to ask, HOST[:PORT]/; it is
// Docker Hub otherwise. The filters are Docker's: is-official, is-automated
// (which nothing is any more) and stars, the least number of them. A limit of 0
// is 25, the most is 100.
func (c *Client) Search(ctx context.Context, term string, limit int, filters filter.Args, cred *AuthConfig) ([]registrytypes.SearchResult, error) {
	keep, err := searchFilter(filters)
	if err != nil || keep == nil {
		return []registrytypes.SearchResult{}, err
	}
	if limit == 0 {
		limit = defaultSearchLimit
	}
	if limit < 1 || limit > maxSearchLimit {
		return nil, errs.InvalidArgument("limit %d is outside the range of [1, %d]", limit, maxSearchLimit)
	}
	if strings.Contains(term, "://") {
		return nil, errs.InvalidArgument("invalid repository name: repository name (%s) should not have a scheme", term)
	}
	host, query := splitSearch(term)
	found, err := c.search(ctx, host, query, limit, cred)
	if err != nil {
		return nil, err
	}
	results := []registrytypes.SearchResult{}
	for _, r := range found.Results {
		r.IsAutomated = false //nolint:staticcheck // old clients read it
		if keep(r) {
			results = append(results, r)
		}
	}
	return results, nil
}

// search makes the request. Credentials go along without being asked for, as
// registries answer with what the person may see.
func (c *Client) search(ctx context.Context, host, query string, limit int, cred *AuthConfig) (*registrytypes.SearchResults, error) {
	e, err := c.server(host, cred)
	if err != nil {
		return nil, err
	}
	e.auth.volunteer()
	scopes := []string{"registry:catalog:search"}
	if e.auth.identity() != "" {
		// A search answers strangers too, with less: where the token server
		// is, only the base of the protocol tells.
		resp, err := e.do(ctx, "", call{method: http.MethodGet, absolute: "/v2/", scopes: scopes})
		if err != nil {
			return nil, err
		}
		drain(resp)
	}
	resp, err := e.do(ctx, "", call{
		method: http.MethodGet, absolute: searchPath + "?" + url.Values{"q": {query}, "n": {strconv.Itoa(limit)}}.Encode(),
		header: http.Header{"X-Docker-Token": {"true"}}, scopes: scopes,
	})
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode == http.StatusNotFound:
		drain(resp)
		return nil, errs.NotFound("registry %s cannot be searched: it does not know %s", host, searchPath)
	case resp.StatusCode != http.StatusOK:
		return nil, refusal(host, resp)
	}
	defer resp.Body.Close()
	if isHTML(resp.Header) {
		return nil, errs.InvalidArgument("registry %s answered with a web page where a search was asked for", host)
	}
	found := &registrytypes.SearchResults{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxSearchAnswer)).Decode(found); err != nil {
		return nil, errs.InvalidArgument("registry %s answered a search with what cannot be read: %w", host, err)
	}
	return found, nil
}

// searchFilter makes a test of the filters; nil when nothing can pass.
func searchFilter(filters filter.Args) (func(registrytypes.SearchResult) bool, error) {
	if err := filters.Validate("is-automated", "is-official", "stars"); err != nil {
		return nil, err
	}
	automated, err := filters.Bool("is-automated", false)
	if err != nil || automated {
		return nil, err
	}
	official, err := filters.Bool("is-official", false)
	if err != nil {
		return nil, err
	}
	stars := 0
	for _, s := range filters.Get("stars") {
		n, err := strconv.Atoi(s)
		if err != nil {
			return nil, errs.InvalidArgument("invalid filter 'stars=%s': %w", s, err)
		}
		stars = max(stars, n)
	}
	return func(r registrytypes.SearchResult) bool {
		return (!filters.Has("is-official") || r.IsOfficial == official) && (!filters.Has("stars") || r.StarCount >= stars)
	}, nil
}

// splitSearch takes the registry off the front of a term, by the rule for names
// of images.
func splitSearch(term string) (host, query string) {
	first, rest, ok := strings.Cut(term, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return searchHost, strings.TrimPrefix(term, "library/")
	}
	if first == "docker.io" || first == searchHost {
		return searchHost, strings.TrimPrefix(rest, "library/")
	}
	return first, rest
}
