// Package registryd is what gantryd does in its role as a registry, between its
// first line and its last: it reads the configuration, puts access, mirror,
// catalogue, webhooks, metrics and the web page around the protocol, listens,
// follows the signals, and stops in order.
//
// It owns the role's flags and file, its TLS certificates, and the times at
// which garbage is collected. It is a process of its own and knows nothing of
// the engine.
package registryd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/access"
	"github.com/gantry-containers/gantry/internal/registry/catalog"
	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/metrics"
	"github.com/gantry-containers/gantry/internal/registry/mirror"
	"github.com/gantry-containers/gantry/internal/registry/notify"
	"github.com/gantry-containers/gantry/internal/registry/serve"
	"github.com/gantry-containers/gantry/internal/webui"
)

// Server is a registry, listening.
type Server struct {
	log   *slog.Logger
	level *slog.LevelVar

	depot    depot.Depot
	catalog  *catalog.Catalog
	protocol *serve.Server
	metrics  *metrics.Metrics
	certs    *certificates
	site     atomic.Pointer[site]
	collect  sync.Mutex // held by the collection of garbage under way

	bodyTimeout time.Duration // of requests that are no uploads

	mu       sync.RWMutex // guards notifier: held for reading while it is told something
	notifier *notify.Notifier

	public  []net.Listener
	private []net.Listener // of metrics
	control net.Listener
}

// site is what a reload exchanges.
type site struct {
	config *Config
	access *access.Access
	mirror *mirror.Mirror
	api    http.Handler
	pages  http.Handler
}

func level(text string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(text)); err != nil {
		return l, errs.InvalidArgument("invalid log level: %s", text)
	}
	return l, nil
}

// Start opens the storage and the listeners. When it returns, a client may
// connect: its request waits until Serve is called.
func Start(ctx context.Context, c *Config) (*Server, error) {
	s := &Server{level: new(slog.LevelVar), metrics: metrics.New(), bodyTimeout: 30 * time.Second}
	l, err := level(c.Log.Level)
	if err != nil {
		return nil, err
	}
	s.level.Set(l)
	options := &slog.HandlerOptions{Level: s.level}
	if c.Log.Format == "json" {
		s.log = slog.New(slog.NewJSONHandler(os.Stderr, options))
	} else {
		s.log = slog.New(slog.NewTextHandler(os.Stderr, options))
	}
	if err := s.start(ctx, c); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, c *Config) error {
	if err := os.MkdirAll(c.Root, 0o700); err != nil {
		return errs.System("cannot make the root: %w", err)
	}
	var err error
	if s.depot, err = openDepot(ctx, c); err != nil {
		return err
	}
	if s.catalog, err = catalog.Open(ctx, s.depot, s.log); err != nil {
		return err
	}
	if err := s.configure(ctx, c); err != nil {
		return err
	}
	s.metrics.Webhooks(s.webhooks)
	s.protocol = serve.New(serve.Options{
		Depot: s.depot, ReadOnly: c.ReadOnly, Access: gate{s}, Upstream: behindUs{s}, Notify: s.notify, Log: s.log,
	})
	if s.control, err = listenControl(filepath.Join(c.Root, controlSocket)); err != nil {
		return err
	}
	return s.listen(c)
}

// configure makes the parts a reload can exchange, and exchanges them when all
// of them could be made.
func (s *Server) configure(ctx context.Context, c *Config) error {
	o := c.accessOptions()
	o.Log = s.log
	a, err := access.New(o)
	if err != nil {
		return err
	}
	m, err := s.mirrors(c)
	if err != nil {
		return err
	}
	if _, err := c.retention(); err != nil {
		return err
	}
	certs := &certificates{}
	if c.tls() {
		if err := certs.load(c, s.log); err != nil {
			return err
		}
	}
	if err := s.hooks(ctx, c); err != nil {
		return err
	}
	api := catalog.NewAPI(s.catalog, a, s.log)
	if s.certs == nil {
		s.certs = certs
	} else {
		s.certs.present.Store(certs.present.Load())
	}
	s.site.Store(&site{config: c, access: a, mirror: m, api: api, pages: webui.New(api, s.log)})
	return nil
}

// hooks exchanges the webhooks. Their queues are records, which the new ones
// take over.
func (s *Server) hooks(ctx context.Context, c *Config) error {
	var endpoints []notify.Endpoint
	for _, w := range c.Webhooks {
		endpoints = append(endpoints, notify.Endpoint{
			Name: w.Name, URL: w.URL, Headers: w.Headers, Events: w.Events, Blobs: w.Blobs,
			Timeout: time.Duration(w.Timeout), Backoff: time.Duration(w.Backoff),
			MaxBackoff: time.Duration(w.MaxBackoff), MaxAge: time.Duration(w.MaxAge),
		})
	}
	if err := notify.Check(endpoints); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.notifier != nil {
		s.notifier.Close()
	}
	n, err := notify.New(ctx, notify.Options{Endpoints: endpoints, Records: s.depot, Log: s.log})
	if err != nil {
		return err
	}
	s.notifier = n
	return nil
}

func (s *Server) webhooks() []notify.Stats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.notifier.Stats()
}

// notify is told what happened by the protocol.
func (s *Server) notify(e serve.Event) {
	s.catalog.Notify(e)
	s.mu.RLock()
	s.notifier.Notify(e)
	s.mu.RUnlock()
	if e.Descriptor.MediaType != "application/octet-stream" && (e.Action == serve.EventPush || e.Action == serve.EventDelete) {
		s.log.Info(string(e.Action), "repository", e.Repository, "tag", e.Tag, "digest", e.Descriptor.Digest, "user", e.User, "remote", e.Remote)
	}
}

// Addresses are those it listens on, as "127.0.0.1:5000", with the ports the
// system gave where 0 was asked for.
func (s *Server) Addresses() []string {
	var list []string
	for _, l := range s.public {
		list = append(list, l.Addr().String())
	}
	return list
}

// Serve answers until the context ends, and lets running requests end then.
func (s *Server) Serve(ctx context.Context) error {
	defer s.close()
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	background.Go(func() { s.follow(work) })
	background.Go(func() { s.collects(work) })

	c := s.site.Load().config
	public := s.server(behind(c.proxies, http.HandlerFunc(s.route)))
	private := s.server(s.metrics)
	control := s.server(s.controlHandler())
	failed := make(chan error, len(s.public)+len(s.private)+1)
	run := func(server *http.Server, listeners ...net.Listener) {
		for _, l := range listeners {
			go func() { failed <- server.Serve(l) }()
		}
	}
	run(public, s.public...)
	run(private, s.private...)
	run(control, s.control)
	s.log.Info("the registry is served", "addresses", s.Addresses(), "tls", c.tls(), "root", c.Root)

	var lost <-chan struct{} // never, where nobody else could have the storage
	if b, ok := s.depot.(interface{ Lost() <-chan struct{} }); ok {
		lost = b.Lost()
	}
	var err error
	select {
	case <-lost:
		err = errs.Conflict("another registry has taken over the bucket: this one stops")
	case err = <-failed:
		err = errs.System("the registry stopped listening: %w", err)
	case <-ctx.Done():
		s.log.Info("the registry stops")
	}
	timeout := time.Duration(c.ShutdownTimeout)
	graceful, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	if serr := public.Shutdown(graceful); serr != nil {
		s.log.Warn("requests were cut off", "after", timeout)
		public.Close()
	}
	private.Close()
	control.Close()
	stop()
	background.Wait()
	return err
}

func (s *Server) server(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler: h, Protocols: protocols,
		// Bodies have limits of their own: a layer may take hours.
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// close gives back what start took, in the opposite order.
func (s *Server) close() {
	for _, l := range append(append(s.public, s.private...), s.control) {
		if l != nil {
			l.Close()
		}
	}
	if s.notifier != nil {
		s.notifier.Close()
	}
	if s.catalog != nil {
		s.catalog.Close()
	}
	if s.depot != nil {
		if err := s.depot.Close(); err != nil {
			s.log.Error("the storage was not closed in order", "error", err)
		}
	}
}

// follow reads the configuration again at SIGHUP.
func (s *Server) follow(ctx context.Context) {
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-daily.C: // a self-made certificate is renewed
			if c := s.site.Load().config; c.TLS.SelfSigned {
				if err := s.certs.load(c, s.log); err != nil {
					s.log.Error("the certificate was not renewed", "error", err)
				}
			}
		case <-reload:
			if err := s.reload(ctx); err != nil {
				s.log.Error("the configuration stays as it was", "error", err)
			}
		}
	}
}

func (s *Server) reload(ctx context.Context) error {
	old := s.site.Load().config
	c, err := old.Reload()
	if err != nil {
		return err
	}
	if fixed(old) != fixed(c) {
		s.log.Warn("listen, root, s3, read-only and whether there is TLS stay as they were until a restart")
		c.Listen, c.Root, c.S3, c.ReadOnly, c.TLS = old.Listen, old.Root, old.S3, old.ReadOnly, old.TLS
	}
	if err := s.configure(ctx, c); err != nil {
		return err
	}
	if l, err := level(c.Log.Level); err == nil {
		s.level.Set(l)
	}
	s.log.Info("the configuration was read again")
	return nil
}

// fixed is what a reload cannot change.
func fixed(c *Config) string {
	return fmt.Sprint(strings.Join(c.Listen, " "), c.Root, c.S3, c.ReadOnly, c.tls(), c.TLS.ClientCA, c.Metrics.Listen, c.TrustedProxies)
}
