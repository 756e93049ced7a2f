// Package metrics counts what a registry does, for Prometheus.
//
// It owns the names of the figures and how requests are sorted into routes. No
// figure has the name of a repository or a user in it: whoever may read them
// learns how much is going on, not what. What is not counted per request, the
// storage, the collection of garbage and the webhooks, it asks for when it is
// asked.
package metrics

import (
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/gantry-containers/gantry/internal/registry/notify"
)

const namespace = "gantry_registry"

// Storage is how much a registry holds.
type Storage struct {
	Repositories int
	Blobs        int   // each once, however many repositories have it
	Bytes        int64 // of those
}

// Collection is what one collection of garbage did.
type Collection struct {
	Duration  time.Duration
	Blobs     int   // removed
	Manifests int   // removed
	Tags      int   // removed by retention
	Bytes     int64 // freed
	Failed    bool
}

// Metrics counts for one registry.
type Metrics struct {
	registry *prometheus.Registry

	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	received *prometheus.CounterVec
	sent     *prometheus.CounterVec
	running  *prometheus.GaugeVec

	storage    *prometheus.GaugeVec
	mirrored   *prometheus.CounterVec
	gcRuns     *prometheus.CounterVec
	gcRemoved  *prometheus.CounterVec
	gcFreed    prometheus.Counter
	gcDuration prometheus.Gauge
	gcLast     prometheus.Gauge
}

// New returns figures that are all zero.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	m.requests = counter("http_requests_total", "Requests answered.", "route", "method", "code")
	m.received = counter("http_request_bytes_total", "Bytes of request bodies read.", "route")
	m.sent = counter("http_response_bytes_total", "Bytes of response bodies sent.", "route")
	m.running = gauge("http_requests_in_progress", "Requests being answered; those of the route upload are uploads in progress.", "route")
	m.seconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: "http_request_duration_seconds", Help: "Time from a request's header to the end of its answer.",
		Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
	}, []string{"route", "method"})
	m.registry.MustRegister(m.seconds)
	m.storage = gauge("storage", "What is stored, as it was counted last.", "what")
	m.mirrored = counter("mirror_total", "What pull-through mirroring did.", "what")
	m.gcRuns = counter("gc_runs_total", "Collections of garbage.", "result")
	m.gcRemoved = counter("gc_removed_total", "What collections of garbage removed.", "what")
	m.gcFreed = counter("gc_freed_bytes_total", "Bytes collections of garbage freed.").WithLabelValues()
	m.gcDuration = gauge("gc_last_duration_seconds", "How long the last collection of garbage took.").WithLabelValues()
	m.gcLast = gauge("gc_last_timestamp_seconds", "When the last collection of garbage ended, in Unix time.").WithLabelValues()
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Webhooks has the queues of the notifier shown.
func (m *Metrics) Webhooks(stats func() []notify.Stats) {
	m.registry.MustRegister(&webhooks{
		stats:   stats,
		pending: prometheus.NewDesc(namespace+"_webhook_pending", "Events waiting for an endpoint.", []string{"webhook"}, nil),
		events:  prometheus.NewDesc(namespace+"_webhook_events_total", "Events delivered and given up.", []string{"webhook", "result"}, nil),
		failed:  prometheus.NewDesc(namespace+"_webhook_failures_total", "Attempts to deliver that failed.", []string{"webhook"}, nil),
	})
}

type webhooks struct {
	stats                   func() []notify.Stats
	pending, events, failed *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *webhooks) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.pending
	ch <- c.events
	ch <- c.failed
}

// Collect implements prometheus.Collector.
func (c *webhooks) Collect(ch chan<- prometheus.Metric) {
	for _, s := range c.stats() {
		ch <- prometheus.MustNewConstMetric(c.pending, prometheus.GaugeValue, float64(s.Pending), s.Name)
		ch <- prometheus.MustNewConstMetric(c.events, prometheus.CounterValue, float64(s.Delivered), s.Name, "delivered")
		ch <- prometheus.MustNewConstMetric(c.events, prometheus.CounterValue, float64(s.Dropped), s.Name, "dropped")
		ch <- prometheus.MustNewConstMetric(c.failed, prometheus.CounterValue, float64(s.Failed), s.Name)
	}
}

// SetStorage replaces the figures of the storage.
func (m *Metrics) SetStorage(s Storage) {
	m.storage.WithLabelValues("repositories").Set(float64(s.Repositories))
	m.storage.WithLabelValues("blobs").Set(float64(s.Blobs))
	m.storage.WithLabelValues("bytes").Set(float64(s.Bytes))
}

// Collected counts a collection of garbage.
func (m *Metrics) Collected(c Collection) {
	result := "success"
	if c.Failed {
		result = "failure"
	}
	m.gcRuns.WithLabelValues(result).Inc()
	m.gcRemoved.WithLabelValues("blobs").Add(float64(c.Blobs))
	m.gcRemoved.WithLabelValues("manifests").Add(float64(c.Manifests))
	m.gcRemoved.WithLabelValues("tags").Add(float64(c.Tags))
	m.gcFreed.Add(float64(c.Bytes))
	m.gcDuration.Set(c.Duration.Seconds())
	m.gcLast.Set(float64(time.Now().Unix()))
}

// Mirrored counts something the mirror did: "hit", "fetch", "revalidated",
// "stale", "error", "bytes".
func (m *Metrics) Mirrored(what string, n float64) { m.mirrored.WithLabelValues(what).Add(n) }

// ServeHTTP answers with all figures in the text format of Prometheus, or what
// else the client asks for.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// Count has the requests to next counted, and told to the log at level debug.
func (m *Metrics) Count(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		route, method := routeOf(r.URL.Path), methodOf(r.Method)
		running := m.running.WithLabelValues(route)
		running.Inc()
		out := &writer{ResponseWriter: w}
		in := &reader{ReadCloser: r.Body}
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = in
		}
		// Also when the handler gives up by http.ErrAbortHandler.
		defer func() {
			running.Dec()
			took := time.Since(start)
			m.requests.WithLabelValues(route, method, strconv.Itoa(out.code())).Inc()
			m.seconds.WithLabelValues(route, method).Observe(took.Seconds())
			m.received.WithLabelValues(route).Add(float64(in.n))
			m.sent.WithLabelValues(route).Add(float64(out.n))
			log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", out.code(), "bytes", out.n,
				"duration", took, "remote", r.RemoteAddr, "agent", r.UserAgent())
		}()
		next.ServeHTTP(out, r)
	})
}

// methodOf bounds how many values the label has.
func methodOf(method string) string {
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE":
		return method
	}
	return "other"
}

// routeOf sorts paths into few kinds.
func routeOf(path string) string {
	rest, v2 := strings.CutPrefix(path, "/v2/")
	switch {
	case v2 && rest == "", path == "/v2":
		return "base"
	case v2 && rest == "_catalog":
		return "catalog"
	case v2 && strings.Contains(rest, "/blobs/uploads"):
		return "upload"
	case v2 && strings.Contains(rest, "/blobs/"):
		return "blob"
	case v2 && strings.Contains(rest, "/manifests/"):
		return "manifest"
	case v2 && strings.HasSuffix(rest, "/tags/list"):
		return "tags"
	case v2 && strings.Contains(rest, "/referrers/"):
		return "referrers"
	case path == "/token":
		return "token"
	case path == "/metrics":
		return "metrics"
	case strings.HasPrefix(path, "/v1/"):
		return "search"
	case strings.HasPrefix(path, "/api/"):
		return "api"
	}
	return "page"
}

// writer notes what was answered. It keeps io.ReaderFrom, by which the kernel
// copies a blob to the socket.
type writer struct {
	http.ResponseWriter
	status int
	n      int64
}

func (w *writer) code() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.n += int64(n)
	return n, err
}

// ReadFrom implements io.ReaderFrom.
func (w *writer) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(w.ResponseWriter, r)
	w.n += n
	return n, err
}

// Flush implements http.Flusher.
func (w *writer) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() } // HTTP/1 and 2 both can

// Unwrap is what http.ResponseController asks for.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

type reader struct {
	io.ReadCloser
	n int64
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.n += int64(n)
	return n, err
}
