// Package webui is the web page of a registry: to find repositories, read what
// they are about, see tags, layers and history, and give stars.
//
// It owns the pages, embedded, which need no network but the registry's own, and
// no script to be of use. What they show it asks the public API for, in the name
// of the visitor: it is handed that API as an http.Handler and links nothing
// else of the registry. Everything it shows was written by somebody else, so
// html/template escapes all of it, Markdown is rendered without HTML, and the
// content security policy lets run only what is in this package.
package webui

import (
	"bytes"
	"embed"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

//go:embed pages/*.html static/*
var files embed.FS

// UI serves the pages. It is an http.Handler for "/".
type UI struct {
	api   http.Handler
	log   *slog.Logger
	mux   *http.ServeMux
	pages func() (*template.Template, error) // parsed when the first visitor comes
}

// New returns the pages over the API.
func New(api http.Handler, log *slog.Logger) *UI {
	ui := &UI{api: api, log: log, mux: http.NewServeMux()}
	ui.pages = sync.OnceValues(func() (*template.Template, error) {
		return template.New("").Funcs(functions()).ParseFS(files, "pages/*.html")
	})
	ui.mux.HandleFunc("GET /{$}", ui.home)
	ui.mux.HandleFunc("GET /r/{name...}", ui.repository)
	ui.mux.HandleFunc("GET /sign-in", ui.signInPage)
	ui.mux.HandleFunc("POST /sign-in", ui.signIn)
	ui.mux.HandleFunc("POST /sign-out", ui.signOut)
	ui.mux.HandleFunc("POST /star", ui.star)
	ui.mux.HandleFunc("GET /static/{file}", ui.static)
	ui.mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/static/icon.svg", http.StatusMovedPermanently)
	})
	ui.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		ui.problem(w, r, &apiError{http.StatusNotFound, "There is nothing at this address."})
	})
	return ui
}

// policy lets a page load from this registry, and run no script but ours.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// ServeHTTP sets the headers every answer has.
func (ui *UI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if err := http.NewCrossOriginProtection().Check(r); err != nil {
		ui.problem(w, r, &apiError{http.StatusForbidden, "The request comes from another site."})
		return
	}
	ui.mux.ServeHTTP(w, r)
}

// frame is what every page has.
type frame struct {
	Title   string
	Session session
	Query   string
	Here    string // path and query, to come back to after signing in
	Page    any
}

// show renders a page. It is rendered whole before the first byte is sent, so
// that a failure is not half a page.
func (ui *UI) show(w http.ResponseWriter, r *http.Request, status int, name string, f frame) {
	if f.Session == (session{}) {
		_ = ui.get(r, "/api/v1/session", &f.Session) // without an answer the page is a stranger's
	}
	f.Here = r.URL.RequestURI()
	pages, err := ui.pages()
	var page bytes.Buffer
	if err == nil {
		err = pages.ExecuteTemplate(&page, name, f)
	}
	if err != nil {
		ui.log.Error("a page failed", "page", name, "error", err)
		http.Error(w, "the page failed", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "private, no-cache")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w) // the visitor is gone
}

// problem is the page for what cannot be shown.
func (ui *UI) problem(w http.ResponseWriter, r *http.Request, err error) {
	e := asAPIError(err)
	ui.show(w, r, e.status, "problem.html", frame{Title: http.StatusText(e.status), Page: map[string]any{
		"Status": e.status, "Text": http.StatusText(e.status), "Message": e.message,
	}})
}

func (ui *UI) static(w http.ResponseWriter, r *http.Request) {
	sub, err := fs.Sub(files, "static")
	if err != nil {
		http.NotFound(w, r)
		return
	}
	age := "max-age=3600"
	if r.URL.RawQuery != "" { // an address made by asset
		age = "max-age=31536000, immutable"
	}
	w.Header().Set("Cache-Control", "public, "+age)
	http.ServeFileFS(w, r, sub, r.PathValue("file"))
}

func (ui *UI) home(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	ask := url.Values{"q": {q.Get("q")}, "sort": {q.Get("sort")}, "page": {q.Get("page")}, "n": {"20"}}
	var found found
	if err := ui.get(r, "/api/v1/search?"+ask.Encode(), &found); err != nil {
		ui.problem(w, r, err)
		return
	}
	title := "Repositories"
	if found.Query != "" {
		title = "Search for " + found.Query
	}
	ui.show(w, r, http.StatusOK, "home.html", frame{Title: title, Query: found.Query, Page: homePage{found, q.Get("sort"), r.Host}})
}

// homePage is what home.html shows.
type homePage struct {
	found
	Sort string
	Host string
}

// Link is the address of another page of the same search.
func (p homePage) Link(page int, sort string) string { return listLink(p.Query, sort, page) }

func listLink(query, sort string, page int) string {
	q := url.Values{}
	if query != "" {
		q.Set("q", query)
	}
	if sort != "" {
		q.Set("sort", sort)
	}
	if page > 1 {
		q.Set("page", itoa(page))
	}
	if len(q) == 0 {
		return "/"
	}
	return "/?" + q.Encode()
}

// repositoryPage is what repository.html shows.
type repositoryPage struct {
	details
	View   string // "overview", "tags", "activity", "image"
	Host   string
	Readme template.HTML // rendered here, from Markdown, and nowhere else
	Tags   tagList
	Image  image
	Latest string // the tag of the pull command
}

// Link is an address below the repository.
func (p repositoryPage) Link(key, value string) string {
	u := url.URL{Path: "/r/" + p.Name}
	if value != "" {
		u.RawQuery = url.Values{key: {value}}.Encode()
	}
	return u.String()
}

// Command is what pulls the tag or digest, "" being the tag latest.
func (p repositoryPage) Command(reference string) string {
	name := p.Host + "/" + p.Name
	switch {
	case strings.Contains(reference, ":"):
		name += "@" + reference
	case reference != "" && reference != "latest":
		name += ":" + reference
	}
	return "docker pull " + name
}

func (ui *UI) repository(w http.ResponseWriter, r *http.Request) {
	name, q := r.PathValue("name"), r.URL.Query()
	at := (&url.URL{Path: name}).EscapedPath()
	p := repositoryPage{View: "overview", Host: r.Host}
	err := ui.get(r, "/api/v1/repositories/"+at, &p.details)
	if err == nil {
		p.Latest = latest(p.Pushes)
		switch reference := q.Get("tag"); {
		case reference != "":
			p.View = "image"
			err = ui.get(r, "/api/v1/images/"+at+"?"+url.Values{"reference": {reference}}.Encode(), &p.Image)
		case q.Get("view") == "tags", q.Get("last") != "":
			p.View = "tags"
			err = ui.get(r, "/api/v1/tags/"+at+"?"+url.Values{"last": {q.Get("last")}}.Encode(), &p.Tags)
		case q.Get("view") == "activity":
			p.View = "activity"
		default:
			p.Readme, err = ui.readme(r, at)
		}
	}
	if err != nil {
		ui.problem(w, r, err)
		return
	}
	ui.show(w, r, http.StatusOK, "repository.html", frame{Title: name, Page: p})
}

func (ui *UI) readme(r *http.Request, at string) (template.HTML, error) {
	var answer struct{ Markdown string }
	if err := ui.get(r, "/api/v1/readme/"+at, &answer); err != nil {
		return "", err
	}
	return render(answer.Markdown)
}

// latest is the tag to pull: latest where it was pushed, else the newest.
func latest(pushes []push) string {
	for _, p := range pushes {
		if p.Tag == "latest" {
			return "latest"
		}
	}
	if len(pushes) > 0 {
		return pushes[0].Tag
	}
	return ""
}
