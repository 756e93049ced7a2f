package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ntypes "github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/errs"
)

// A client that cannot agree on a version is told what to do, in words its own
// maker chose.
func TestVersions(t *testing.T) {
	f := newFixture()
	f.networks.inspect = &ntypes.Inspect{Network: ntypes.Network{Name: "bridge"}}
	for _, tt := range []struct {
		path    string
		status  int
		message string
	}{
		{"/version", 200, ""},
		{"/v1.51/version", 200, ""},
		{"/v1.24/version", 200, ""},
		{"/v1.24.1/version", 200, ""},
		{"/v1.40//version", 200, ""},
		{"/v1.99/version", 400, "client version 1.99 is too new. Maximum supported API version is 1.51"},
		{"/v1.52/version", 400, "client version 1.52 is too new. Maximum supported API version is 1.51"},
		{"/v2.0/version", 400, "client version 2.0 is too new. Maximum supported API version is 1.51"},
		{"/v99999999999999999999.1/version", 400, "client version 99999999999999999999.1 is too new. Maximum supported API version is 1.51"},
		{"/v1.51/nowhere", 404, "page not found"},
		{"/nowhere", 404, "page not found"},
		{"/v1.51", 404, "page not found"},
		{"/vx/version", 404, "page not found"},
		{"/", 404, "page not found"},
		{"/images/nowhere", 404, "page not found"},
		{"/v1.24/system/df", 404, "page not found"},
		{"/debug/vars", 404, "page not found"},
		{"/plugins", 200, ""},
		{"/swarm", 503, "This node is not a swarm manager."},
		{"/v1.24/nodes", 503, "This node is not a swarm manager."},
		{"POST /v1.24/networks/create", 501, "this engine has no user-defined networks yet: its networks are bridge, host and none"},
		{"POST /networks/x/connect", 501, "this engine has no user-defined networks yet: its networks are bridge, host and none"},
		{"POST /networks/x/disconnect", 501, "this engine has no user-defined networks yet: its networks are bridge, host and none"},
		{"DELETE /networks/bridge", 403, "bridge is a pre-defined network and cannot be removed"},
		{"POST /build", 501, "this engine does not build images yet"},
	} {
		method, path, ok := strings.Cut(tt.path, " ")
		if !ok {
			method, path = "GET", tt.path
		}
		w := f.ask(method, path, "")
		if tt.status == 200 {
			if w.Code != 200 {
				t.Errorf("%s: %d %s", tt.path, w.Code, w.Body)
			}
			continue
		}
		wantError(t, w, tt.status, tt.message)
	}
}

func TestTooOldIsPlainText(t *testing.T) {
	for _, version := range []string{"1.23", "1.0", "0.9", "1"} {
		w := newFixture().ask("GET", "/v"+version+"/containers/json", "")
		want := "client version " + version + " is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version\n"
		if w.Code != 400 || w.Body.String() != want || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("got %d %q %v", w.Code, w.Body, w.Header())
		}
	}
}

func TestPing(t *testing.T) {
	f := newFixture()
	for _, method := range []string{"GET", "HEAD"} {
		w := f.ask(method, "/_ping", "")
		body := "OK"
		if method == "HEAD" {
			body = ""
		}
		if w.Code != 200 || w.Body.String() != body {
			t.Errorf("%s: %d %q", method, w.Code, w.Body)
		}
		for key, want := range map[string]string{
			"Api-Version": "1.51", "Docker-Experimental": "false", "Ostype": "linux", "Server": "Docker/1.0 (linux)",
			"Builder-Version": "2", "Swarm": "inactive", "Cache-Control": "no-cache, no-store, must-revalidate", "Pragma": "no-cache",
		} {
			if got := w.Header().Get(key); got != want {
				t.Errorf("%s: %s is %q, want %q", method, key, got, want)
			}
		}
	}
	if w := f.ask("OPTIONS", "/containers/x/json", ""); w.Code != 200 || w.Header().Get("Api-Version") != "1.51" {
		t.Errorf("OPTIONS: %d %v", w.Code, w.Header())
	}
	if w := f.ask("POST", "/_ping", ""); w.Code != 404 {
		t.Errorf("POST: %d", w.Code)
	}
}

func TestStatusOfErrors(t *testing.T) {
	f := newFixture()
	for _, tt := range []struct {
		err    error
		status int
	}{
		{errs.NotFound("x"), 404},
		{errs.InvalidArgument("x"), 400},
		{errs.Conflict("x"), 409},
		{errs.Forbidden("x"), 403},
		{errs.Unauthorized("x"), 401},
		{errs.Unavailable("x"), 503},
		{errs.NotImplemented("x"), 501},
		{errs.System("x"), 500},
		{errs.Conflict("%w", errs.NotFound("x")), 409}, // the outermost decides
	} {
		f.containers.err = tt.err
		wantError(t, f.ask("POST", "/containers/c/start", ""), tt.status, "x")
	}
	f.containers.err = errs.NotModified("already")
	if w := f.ask("POST", "/containers/c/start", ""); w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("not modified: %d %q", w.Code, w.Body)
	}
}

// A page in somebody's browser must not be able to start containers through a
// daemon that listens on localhost.
func TestForeignPagesAreRefused(t *testing.T) {
	f := newFixture()
	for _, header := range [][2]string{
		{"Origin", "http://evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"},
	} {
		if w := f.ask("POST", "/containers/c/start", "", header[0], header[1]); w.Code != 403 {
			t.Errorf("%v: %d", header, w.Code)
		}
	}
	// A name that leads here may be anybody's (DNS rebinding); an address may not.
	for _, test := range []struct {
		host    string
		headers map[string]string
		want    int
	}{
		{"evil.example:2375", map[string]string{"Origin": "http://evil.example:2375"}, 403},
		{"evil.example:2375", map[string]string{"User-Agent": "Mozilla/5.0 (X11)"}, 403},
		{"evil.example", map[string]string{"Accept-Language": "en"}, 403},
		{"127.0.0.1:2375", map[string]string{"Origin": "http://127.0.0.1:2375", "User-Agent": "Mozilla/5.0 (X11)"}, 204},
		{"[::1]:2375", map[string]string{"Origin": "http://[::1]:2375"}, 204},
		{"localhost:2375", map[string]string{"Origin": "http://localhost:2375", "Sec-Fetch-Site": "same-origin"}, 204},
		{"build.internal:2375", map[string]string{"User-Agent": "Docker-Client/28.5.2 (linux)"}, 204},
		{"api.moby.localhost", nil, 204},
	} {
		r := httptest.NewRequest("POST", "/containers/c/start", nil)
		r.Host = test.host
		for key, value := range test.headers {
			r.Header.Set(key, value)
		}
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		if w.Code != test.want {
			t.Errorf("%s %v: %d", test.host, test.headers, w.Code)
		}
	}
}

func TestDebug(t *testing.T) {
	f := newFixture()
	f.SetDebug(true)
	for _, path := range []string{"/debug/vars", "/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/cmdline"} {
		if w := f.ask("GET", path, ""); w.Code != http.StatusOK || w.Body.Len() == 0 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// Every line of the table can be reached: no earlier one hides it.
func TestRoutesAreReachable(t *testing.T) {
	f := newFixture()
	for i := range f.routes {
		rt := &f.routes[i]
		path := strings.ReplaceAll(rt.pattern, "{name}", "a/b:c")
		found, name := f.find(rt.method, path)
		if found != rt {
			t.Errorf("%s %s is hidden by %v", rt.method, path, found)
		}
		if strings.Contains(rt.pattern, "{name}") && name != "a/b:c" {
			t.Errorf("%s %s: name is %q", rt.method, path, name)
		}
	}
}
