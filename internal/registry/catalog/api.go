package catalog

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/access"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// API is the catalogue over HTTP. Requests are authenticated as those of /v2/
// are, or by the session of a browser; what the user may not read does not
// exist.
//
//	GET    /api/v1/session                 who is asking
//	POST   /api/v1/session                 {"username", "password"}: sign in, by a cookie
//	DELETE /api/v1/session                 sign out
//	GET    /api/v1/search?q=&n=&page=&sort= repositories that fit
//	GET    /api/v1/repositories/NAME       one of them, with its pushes
//	GET    /api/v1/tags/NAME?last=&n=      its tags, in the order of their names
//	GET    /api/v1/readme/NAME             {"markdown"}
//	GET    /api/v1/images/NAME?reference=  what a tag or digest stands for
//	PUT    /api/v1/stars/NAME              give it a star
//	DELETE /api/v1/stars/NAME              take it back
//	GET    /v1/_ping, /v1/search?q=&n=&page= what docker search asks
//
// Errors are {"message": "a sentence"}.
type API struct {
	catalog *Catalog
	access  *access.Access
	log     *slog.Logger
	mux     *http.ServeMux
}

// NewAPI returns the API of the catalogue, for whom access lets see it.
func NewAPI(c *Catalog, a *access.Access, log *slog.Logger) *API {
	api := &API{catalog: c, access: a, log: log, mux: http.NewServeMux()}
	for pattern, handle := range map[string]func(*visit) error{
		"GET /api/v1/session":                api.session,
		"DELETE /api/v1/session":             api.signOut,
		"GET /api/v1/search":                 api.search,
		"GET /api/v1/repositories/{name...}": api.repository,
		"GET /api/v1/tags/{name...}":         api.tags,
		"GET /api/v1/readme/{name...}":       api.readme,
		"GET /api/v1/images/{name...}":       api.image,
		"PUT /api/v1/stars/{name...}":        api.star,
		"DELETE /api/v1/stars/{name...}":     api.star,
		"GET /v1/search":                     api.searchV1,
	} {
		api.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { api.serve(w, r, handle) })
	}
	api.mux.HandleFunc("POST /api/v1/session", api.signIn)
	api.mux.HandleFunc("GET /v1/_ping", ping)
	return api
}

// ServeHTTP refuses what a page of another site makes a browser send.
func (api *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		answer(w, http.StatusForbidden, problem{"the request comes from another site"})
		return
	}
	api.mux.ServeHTTP(w, r)
}

// visit is a request and who makes it.
type visit struct {
	*http.Request
	w    http.ResponseWriter
	id   access.Identity
	name string // of the repository, when the path has one
}

type problem struct {
	Message string `json:"message"`
}

func (api *API) serve(w http.ResponseWriter, r *http.Request, handle func(*visit) error) {
	id, err := api.access.IdentifyBrowser(r)
	if err == nil {
		v := &visit{Request: r, w: w, id: id, name: r.PathValue("name")}
		if v.name != "" && (depot.CheckRepository(v.name) != nil || !api.access.MayRead(id, v.name)) {
			err = errs.NotFound("there is no repository %s", v.name)
		} else {
			err = handle(v)
		}
	}
	if err != nil {
		api.fail(w, r, err)
	}
}

func (api *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	var throttled *access.ThrottledError
	switch {
	case errors.As(err, &throttled):
		status = http.StatusTooManyRequests
		throttled.SetHeader(w.Header())
	case errors.Is(err, errdefs.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, errdefs.ErrInvalidArgument):
		status = http.StatusBadRequest
	case errors.Is(err, errdefs.ErrPermissionDenied):
		status = http.StatusForbidden
	case errors.Is(err, errdefs.ErrUnauthenticated):
		status = http.StatusUnauthorized
		if r.Header.Get("Sec-Fetch-Mode") == "" { // a browser would open its own dialog
			w.Header().Set("WWW-Authenticate", api.access.Challenge(r, access.CatalogScope, 0))
		}
	default:
		api.log.Error("the catalogue failed a request", "path", r.URL.Path, "error", err)
		err = errors.New("the registry failed: its log says why")
	}
	answer(w, status, problem{err.Error()})
}

func answer(w http.ResponseWriter, status int, document any) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "private, no-cache")
	h.Set("Vary", "Authorization, Cookie")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(document) // the client is gone
}

// Session is who is asking.
type Session struct {
	User string `json:"user,omitempty"`
	// SignIn tells whether there are accounts to sign in with, Stars whether
	// who asks may give them.
	SignIn bool `json:"signIn"`
	Stars  bool `json:"stars"`
}

func (api *API) session(v *visit) error {
	answer(v.w, http.StatusOK, Session{v.id.User, api.access.SignsIn(), api.access.Open() || v.id.User != ""})
	return nil
}

func (api *API) signIn(w http.ResponseWriter, r *http.Request) {
	var form struct{ Username, Password string }
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&form); err != nil {
		api.fail(w, r, errs.InvalidArgument("cannot read the user name and the password: %w", err))
		return
	}
	if !api.access.SignsIn() {
		api.fail(w, r, errs.NotFound("this registry has no accounts to sign in with"))
		return
	}
	if err := api.access.SignIn(w, r, form.Username, form.Password); err != nil {
		api.fail(w, r, err)
		return
	}
	answer(w, http.StatusOK, Session{form.Username, true, true})
}

func (api *API) signOut(v *visit) error {
	if err := api.access.SignOut(v.w, v.Request); err != nil {
		return err
	}
	answer(v.w, http.StatusOK, Session{"", api.access.SignsIn(), api.access.Open()})
	return nil
}

// Found is a page of what a search found.
type Found struct {
	Query        string       `json:"query"`
	Total        int          `json:"total"`
	Page         int          `json:"page"` // from 1 on
	Pages        int          `json:"pages"`
	Repositories []Repository `json:"repositories"`
}

const (
	defaultPage = 25 // entries of a page, as docker search has them
	largestPage = 100
)

func (api *API) find(v *visit) (Found, int, error) {
	q := v.URL.Query()
	n, err := number(q.Get("n"), defaultPage, largestPage)
	if err != nil {
		return Found{}, 0, err
	}
	page, err := number(q.Get("page"), 1, 1<<30)
	if err != nil {
		return Found{}, 0, err
	}
	all := api.catalog.Search(Query{
		Text: q.Get("q"), Sort: q.Get("sort"), Who: api.voter(v),
		MayRead: func(name string) bool { return api.access.MayRead(v.id, name) },
	})
	f := Found{Query: q.Get("q"), Total: len(all), Page: page, Pages: max(1, (len(all)+n-1)/n), Repositories: []Repository{}}
	if from := (page - 1) * n; from < len(all) {
		f.Repositories = all[from:min(len(all), from+n)]
	}
	return f, n, nil
}

// number reads a parameter of at least 1.
func number(text string, fallback, most int) (int, error) {
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return 0, errs.InvalidArgument("%q is not a number of at least 1", text)
	}
	return min(n, most), nil
}

func (api *API) search(v *visit) error {
	found, _, err := api.find(v)
	if err == nil {
		answer(v.w, http.StatusOK, found)
	}
	return err
}

// searchV1 answers docker search, in the protocol of registries of version 1
// that Docker Hub still speaks for it.
func (api *API) searchV1(v *visit) error {
	found, n, err := api.find(v)
	if err != nil {
		return err
	}
	type result struct {
		Name        string `json:"name"`
		Description string `json:"description"`
		StarCount   int    `json:"star_count"`
		PullCount   int64  `json:"pull_count"`
		IsOfficial  bool   `json:"is_official"`
		IsAutomated bool   `json:"is_automated"`
		IsTrusted   bool   `json:"is_trusted"`
	}
	results := []result{}
	for _, r := range found.Repositories {
		results = append(results, result{Name: r.Name, Description: r.Description, StarCount: r.Stars, PullCount: r.Pulls})
	}
	answer(v.w, http.StatusOK, map[string]any{
		"query": found.Query, "num_results": found.Total, "num_pages": found.Pages, "page": found.Page, "page_size": n, "results": results,
	})
	return nil
}

// ping tells Docker that credentials go with every request.
func ping(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("X-Docker-Registry-Standalone", "true")
	answer(w, http.StatusOK, map[string]bool{"standalone": true})
}

// Details are a repository on its own page.
type Details struct {
	Repository
	Pushes []Push `json:"pushes"` // the newest first
	// May are the rights of who asks: "pull", "push", "delete".
	May []string `json:"may"`
}

func (api *API) repository(v *visit) error {
	r, pushes, ok := api.catalog.get(v.name, api.voter(v))
	if !ok {
		return errs.NotFound("there is no repository %s", v.name)
	}
	if pushes == nil {
		pushes = []Push{}
	}
	answer(v.w, http.StatusOK, Details{r, pushes, api.access.Rights(v.id, v.name).Actions()})
	return nil
}

// TagList is a page of tags.
type TagList struct {
	Tags []TagInfo `json:"tags"`
	Last string    `json:"last,omitempty"` // where the next page goes on; "" after the last
}

// TagInfo is a tag as lists show it.
type TagInfo struct {
	Push
	MediaType string   `json:"mediaType"`
	Platforms []string `json:"platforms"`
	Size      int64    `json:"size"` // of all that is to be sent for it, in bytes
}

func (api *API) tags(v *visit) error {
	q := v.URL.Query()
	n, err := number(q.Get("n"), defaultPage, largestPage)
	if err != nil {
		return err
	}
	ctx := v.Context()
	names, err := api.catalog.depot.Tags(ctx, v.name, q.Get("last"), n+1)
	if err != nil {
		return err
	}
	list := TagList{Tags: []TagInfo{}}
	if len(names) > n {
		names = names[:n]
		list.Last = names[n-1]
	}
	for _, name := range names {
		tag, err := api.catalog.depot.Tag(ctx, v.name, name)
		if errors.Is(err, errdefs.ErrNotFound) {
			continue // deleted meanwhile
		}
		if err != nil {
			return err
		}
		info := TagInfo{Push: Push{tag.Name, tag.Digest.String(), tag.By, tag.Time.UTC()}, Platforms: []string{}}
		if image, err := api.catalog.look(ctx, v.name, tag.Digest.String(), false); err == nil {
			info.MediaType = image.MediaType
			for _, p := range image.Platforms {
				info.Size += p.Size
				if p.Platform != "" && !p.Attestation {
					info.Platforms = append(info.Platforms, p.Platform)
				}
			}
		}
		list.Tags = append(list.Tags, info)
	}
	answer(v.w, http.StatusOK, list)
	return nil
}

func (api *API) readme(v *visit) error {
	text, err := api.catalog.Readme(v.Context(), v.name)
	if err == nil {
		answer(v.w, http.StatusOK, map[string]string{"markdown": strings.ToValidUTF8(text, "�")})
	}
	return err
}

func (api *API) image(v *visit) error {
	reference := v.URL.Query().Get("reference")
	if reference == "" {
		reference = "latest"
	}
	if !strings.Contains(reference, ":") && depot.CheckTag(reference) != nil {
		return errs.NotFound("there is no tag %q in repository %s", clip(reference), v.name)
	}
	image, err := api.catalog.Image(v.Context(), v.name, reference)
	if err == nil {
		answer(v.w, http.StatusOK, image)
	}
	return err
}

func clip(s string) string { return s[:min(len(s), 128)] }

func (api *API) star(v *visit) error {
	who := api.voter(v)
	if who == "" {
		if !api.access.Open() {
			return errs.Unauthorized("sign in to give a star")
		}
		// Without accounts a browser is all there is to tell people apart by.
		id := rand.Text()
		http.SetCookie(v.w, &http.Cookie{
			Name: browserCookie, Value: id, Path: "/", MaxAge: 365 * 24 * 3600,
			HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: v.TLS != nil || v.URL.Scheme == "https",
		})
		who = voter(browserVoter, id)
	}
	if err := api.catalog.Star(v.Context(), v.name, who, v.Method == http.MethodPut); err != nil {
		return err
	}
	r, _, _ := api.catalog.get(v.name, who)
	answer(v.w, http.StatusOK, r)
	return nil
}

const browserCookie = "gantry_browser"

// voter is who asks, as stars know him; "" for who cannot have given any.
func (api *API) voter(v *visit) string {
	if v.id.User != "" {
		return voter(userVoter, v.id.User)
	}
	if cookie, err := v.Cookie(browserCookie); err == nil && api.access.Open() && cookie.Value != "" {
		return voter(browserVoter, cookie.Value)
	}
	return ""
}
