// Package server is the Engine API: it speaks Docker's protocol over HTTP and
// hands every request to one manager.
//
// It owns the route table, the negotiation of API versions, how requests are
// decoded and how answers are shaped for the version a client speaks: the
// managers know only the newest types, and what an older client expects beside
// or instead of them is added here. It also owns the listeners. It must not know
// how anything is done: a handler decodes, calls one manager, encodes.
//
// Two things it has beyond Docker's, for our own command line, which does without
// them at a daemon that has not. A create may ask to be followed by the attach and
// the start in the same request (run.go). And the condition first-exit of a wait
// is the end of a container's first run, whenever it is asked for: the head of the
// answer comes when the start is over, and is the start's error when it failed; of
// a container that removes itself the answer comes when it is gone.
package server

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/trace"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Options are what a Server is told beside the engine it speaks for.
type Options struct {
	Version string       // of the engine, for the Server header
	Debug   bool         // serve /debug
	Log     *slog.Logger // nil discards
}

// Server answers the Engine API. It is an http.Handler.
type Server struct {
	backend
	version string
	debug   atomic.Bool
	log     *slog.Logger
	routes  []route

	// streams is canceled when the daemon stops: requests that would never end
	// by themselves (events, logs, stats, wait) end then.
	streams    context.Context
	endStreams context.CancelFunc

	runs sync.WaitGroup // requests that start a container on a connection taken over
}

func newServer(b backend, o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{backend: b, version: o.Version, log: o.Log, routes: routes()}
	s.debug.Store(o.Debug)
	s.streams, s.endStreams = context.WithCancel(context.Background())
	return s
}

// ServeHTTP finds the route and answers, with an error in Docker's form when
// there is none or its handler fails.
func (s *Server) ServeHTTP(rw http.ResponseWriter, hr *http.Request) {
	w := &response{ResponseWriter: rw}
	version, path := splitVersion(hr.URL.Path)
	rt, name := s.find(hr.Method, path)
	if rt == nil {
		writeError(w, http.StatusNotFound, "page not found")
		return
	}
	h := w.Header()
	h.Set("Server", "Docker/"+s.version+" ("+runtime.GOOS+")")
	h.Set("Api-Version", MaxAPIVersion)
	h.Set("Docker-Experimental", "false")
	h.Set("Ostype", runtime.GOOS)

	ctx, stop := s.requestContext(hr.Context(), rt)
	defer stop()
	if trace.IsEnabled() {
		var task *trace.Task
		ctx, task = trace.NewTask(ctx, rt.method+" "+rt.pattern)
		defer task.End()
	}
	r := &request{Request: hr.WithContext(ctx), api: maxAPI, name: name}
	s.log.Debug("request", "method", r.Method, "uri", r.RequestURI)
	if err := s.handle(w, r, rt, version); err != nil {
		s.fail(w, r, version, err)
	}
}

// requestContext is the client's, ended also by the stop of the daemon where
// the request would not end otherwise.
func (s *Server) requestContext(ctx context.Context, rt *route) (context.Context, func()) {
	if !rt.stream {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.streams, cancel)
	return ctx, func() { stop(); cancel() }
}

func (s *Server) handle(w *response, r *request, rt *route, version string) error {
	if err := r.negotiate(version); err != nil {
		return err
	}
	if r.before(rt.since) {
		return pageNotFound
	}
	if err := s.allow(r, rt); err != nil {
		return err
	}
	if err := r.parse(w, rt.body); err != nil {
		return err
	}
	return rt.handle(s, w, r)
}

// fail answers with an error. Clients of a version so old that they take an
// error for plain text get it as that.
func (s *Server) fail(w *response, r *request, version string, err error) {
	status := s.note(r, err)
	if w.hijacked {
		return
	}
	if w.started {
		// Too late to say so. Cut the connection: an answer that ended well
		// would make half an archive look like a whole one.
		panic(http.ErrAbortHandler)
	}
	if version != "" && parseVersion(version) < minAPI {
		http.Error(w, err.Error(), status)
		return
	}
	writeError(w, status, err.Error())
}

// note logs an error that a client is told, and returns the status it stands for.
func (s *Server) note(r *request, err error) int {
	status := statusOf(err)
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented && r.Context().Err() == nil {
		s.log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	} else {
		s.log.Debug("request refused", "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	}
	return status
}

// allow applies the access rule of the route. Whoever reaches the listener of
// an admin route is as good as root, so what guards it is the mode of the
// socket or the client's certificate. Only a browser can be made to speak for
// somebody who never meant to: the page of another site is refused.
func (s *Server) allow(r *request, rt *route) error {
	switch rt.access {
	case accessOpen:
		return nil
	case accessDebug:
		if !s.debug.Load() {
			return pageNotFound
		}
	}
	if crossSite(r.Request) {
		return errs.Forbidden("a page of %s may not use this engine", cmp.Or(r.Header.Get("Origin"), r.Host))
	}
	return nil
}

// crossSite tells whether a browser sent the request for a page of another
// site. Programs send none of the headers by which a browser is known. A name
// in place of the host's address may be one that an attacker has pointed here
// (DNS rebinding): to the browser its page is then of the same site, so that a
// browser is served only by address or as localhost.
func crossSite(r *http.Request) bool {
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return true
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		_, host, ok := strings.Cut(origin, "://")
		if !ok || host != r.Host {
			return true
		}
	}
	// With TLS the certificate tells whose name it is.
	return r.TLS == nil && fromBrowser(r.Header) && !ownName(r.Host)
}

func fromBrowser(h http.Header) bool {
	for _, key := range []string{"Origin", "Referer", "Accept-Language", "Sec-Fetch-Site", "Sec-Fetch-Mode"} {
		if h.Get(key) != "" {
			return true
		}
	}
	return strings.HasPrefix(h.Get("User-Agent"), "Mozilla/")
}

// ownName tells whether the Host of a request is an address or localhost, which
// nobody can point elsewhere.
func ownName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// SetDebug says whether /debug is served.
func (s *Server) SetDebug(on bool) { s.debug.Store(on) }

// EndStreams ends the requests that wait for things to happen; nothing else.
func (s *Server) EndStreams() { s.endStreams() }

// readHeaderTimeout is how long a client may take to send the head of a
// request; bodies and answers may take for ever.
const readHeaderTimeout = 5 * time.Minute
