package metrics

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/registry/notify"
)

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

func TestFigures(t *testing.T) {
	m := New()
	file := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(file, bytes.Repeat([]byte("x"), 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := false
	server := httptest.NewServer(m.Count(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == "PUT":
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusCreated)
		case strings.HasSuffix(r.URL.Path, "/cut"):
			panic(http.ErrAbortHandler)
		default:
			_, kept = w.(io.ReaderFrom)
			http.ServeFile(w, r, file)
		}
	}), slog.New(slog.DiscardHandler)))
	defer server.Close()
	do := func(method, path, body string) {
		req, err := http.NewRequest(method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return // the one that is cut
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	do("GET", "/v2/team/app/blobs/sha256:aa", "")
	do("PUT", "/v2/team/app/manifests/latest", "12345")
	do("BREW", "/v2/secret/blobs/cut", "")
	m.SetStorage(Storage{Repositories: 2, Blobs: 3, Bytes: 4})
	m.Collected(Collection{Blobs: 5, Bytes: 6, Duration: time.Second})
	m.Webhooks(func() []notify.Stats { return []notify.Stats{{Name: "ci", Pending: 7, Delivered: 8}} })
	if !kept {
		t.Error("blobs are not copied by the kernel any more")
	}
	text := scrape(t, m)
	for _, want := range []string{
		`http_requests_total{code="200",method="GET",route="blob"} 1`,
		`http_requests_total{code="201",method="PUT",route="manifest"} 1`,
		`http_requests_total{code="200",method="other",route="blob"} 1`,
		`http_response_bytes_total{route="blob"} 100000`,
		`http_request_bytes_total{route="manifest"} 5`,
		`http_requests_in_progress{route="blob"} 0`,
		`http_request_duration_seconds_count{method="GET",route="blob"} 1`,
		`storage{what="bytes"} 4`, `gc_removed_total{what="blobs"} 5`, `gc_freed_bytes_total 6`,
		`webhook_pending{webhook="ci"} 7`, `webhook_events_total{result="delivered",webhook="ci"} 8`,
	} {
		if !strings.Contains(text, namespace+"_"+want+"\n") {
			t.Errorf("no line %s", want)
		}
	}
	if strings.Contains(text, "team") || strings.Contains(text, "secret") {
		t.Error("the figures name repositories")
	}
}

func TestRoutes(t *testing.T) {
	for path, want := range map[string]string{
		"/v2/": "base", "/v2/_catalog": "catalog", "/v2/a/b/blobs/uploads/x": "upload", "/v2/a/blobs/sha256:x": "blob",
		"/v2/a/manifests/v1": "manifest", "/v2/a/tags/list": "tags", "/v2/a/referrers/sha256:x": "referrers",
		"/token": "token", "/v1/search": "search", "/api/v1/search": "api", "/": "page", "/r/a": "page",
	} {
		if got := routeOf(path); got != want {
			t.Error(fmt.Sprint(path, " is ", got, ", want ", want))
		}
	}
}
