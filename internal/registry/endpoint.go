package registry

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// endpoint is one server that is asked for a repository.
type endpoint struct {
	client    *Client
	host      string // with its port
	config    hostConfig
	can       capability
	opts      Options
	namespace string // the registry it stands in for, which it is told; "" is itself
	aide      bool   // a mirror or neighbour, which we can do without
	neighbour bool
	open      bool // may be spoken to in plain HTTP
	auth      *authorizer

	mu     sync.Mutex // guards what follows
	root   *url.URL   // up to and with /v2; nil before it is asked for the first time
	sender *sender
}

// endpoint makes one of what is configured for a server.
func (c *Client) endpoint(host string, config hostConfig, cred credential) *endpoint {
	return &endpoint{
		client: c, host: host, config: config, can: config.can, opts: c.opts,
		auth: &authorizer{host: host, cred: cred, insecure: c.isInsecure},
	}
}

// asAide asks the server as one that must not keep us waiting.
func (e *endpoint) asAide() *endpoint {
	e.aide = true
	e.opts.Attempts = min(e.opts.Attempts, aideAttempts)
	e.opts.impatient = true
	if e.config.dialTimeout == 0 {
		e.config.dialTimeout = mirrorDial
	}
	return e
}

// ready finds out how the server is spoken to, once.
func (e *endpoint) ready(ctx context.Context) (*url.URL, *sender, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.root != nil {
		return e.root, e.sender, nil
	}
	if e.resting() { // since somebody else found out, while we waited
		return nil, nil, errs.Unavailable("%s does not answer", e.host)
	}
	c := e.client
	// What is configured for this machine is meant; else it needs none.
	insecure := e.open || c.isListedInsecure(ctx, e.host) || isLoopback(bareHost(e.host)) && e.config.tls.empty()
	link, err := newLink(e.config.tls, insecure, e.config.dialTimeout)
	if err != nil {
		return nil, nil, err
	}
	own := c.transport(link)
	root := e.config.url
	if root == nil {
		root = &url.URL{Scheme: "https", Host: e.host, Path: "/v2"}
		if insecure {
			if root.Scheme, err = c.findScheme(ctx, e.host, own, e.opts.IdleTimeout/2); err != nil {
				e.excuse(err)
				return nil, nil, err
			}
		}
	}
	e.root = root
	e.sender = &sender{
		http: &http.Client{
			Transport:     &byHost{root.Host, own, c.transport(link.anonymous())},
			CheckRedirect: checkRedirect(e.config.header),
		},
		opts: e.opts,
	}
	e.auth.secure, e.auth.sender = root.Scheme == "https" && !insecure, e.sender
	return e.root, e.sender, nil
}

// resting tells of a mirror or neighbour that did not answer a while ago.
func (e *endpoint) resting() bool {
	e.client.mu.Lock()
	defer e.client.mu.Unlock()
	return e.aide && time.Now().Before(e.client.resting[e.host])
}

// excuse leaves a mirror or neighbour alone that does not answer.
func (e *endpoint) excuse(err error) {
	if !e.aide || !silent(err) {
		return
	}
	e.rest(restTime)
}

// rest has nobody ask the mirror or neighbour for so long.
func (e *endpoint) rest(d time.Duration) {
	e.client.mu.Lock()
	defer e.client.mu.Unlock()
	if until := time.Now().Add(d); until.After(e.client.resting[e.host]) {
		e.client.resting[e.host] = until
	}
}

// What a call is allowed to do, as a token server calls it.
const (
	pulling  = "pull"
	pushing  = "pull,push"
	deleting = "delete"
)

// call is one request for something of a repository.
type call struct {
	method   string
	path     string   // below the repository, with its query
	absolute string   // instead: a path of the server, without the API's root
	url      *url.URL // instead: where the registry said to go on
	header   http.Header
	actions  string   // of the token; pulling when empty
	also     []string // further scopes of the token
	scopes   []string // instead of actions on the repository
	// body gives the bytes to send, each time anew; length is their number.
	body   func() (io.ReadCloser, error)
	length int64
	repeat bool // a body that may be sent again without asking
}

// do sends a call for the repository at path. An answer of 401 gets one more
// chance with a fresh token. What the answer says is the caller's to judge, its
// body the caller's to close.
func (e *endpoint) do(ctx context.Context, path string, c call) (*http.Response, error) {
	root, sender, err := e.ready(ctx)
	if err != nil {
		return nil, err
	}
	target, ours, err := e.target(root, path, c)
	if err != nil {
		return nil, err
	}
	scopes := c.scopes
	if scopes == nil {
		scopes = append([]string{"repository:" + path + ":" + cmp.Or(c.actions, pulling)}, c.also...)
	}
	var authorization string
	if ours {
		if authorization, err = e.auth.header(ctx, scopes); err != nil {
			return nil, e.failure(err)
		}
	}
	resp, err := e.attempt(ctx, sender, target, c, authorization, ours)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || !ours || !sameOrigin(target, resp.Request.URL) {
		return resp, e.failure(err)
	}
	fresh, err := e.auth.challenged(ctx, resp, scopes, authorization)
	if err != nil {
		resp.Body.Close()
		return nil, e.failure(err)
	}
	if fresh == "" {
		return resp, nil
	}
	drain(resp)
	resp, err = e.attempt(ctx, sender, target, c, fresh, ours)
	return resp, e.failure(err)
}

// target is the URL of a call, and whether it is this server's, so that it may
// see credentials. A server behind a proxy that adds TLS may name itself in
// plain HTTP.
func (e *endpoint) target(root *url.URL, path string, c call) (*url.URL, bool, error) {
	if c.url != nil {
		u := *c.url
		if root.Scheme == "https" && u.Scheme == "http" && u.Host == root.Host {
			u.Scheme = "https"
		}
		return &u, sameOrigin(root, &u), nil
	}
	below := c.absolute
	if below == "" {
		below = root.Path + "/" + path + c.path
	}
	u, err := root.Parse(below)
	if err != nil {
		return nil, false, errs.InvalidArgument("cannot ask registry %s: %w", e.host, err)
	}
	if e.namespace != "" {
		query := u.Query()
		query.Set("ns", e.namespace) // as containerd does
		u.RawQuery = query.Encode()
	}
	return u, true, nil
}

// failure makes a sentence of a request that got no answer.
func (e *endpoint) failure(err error) error {
	if err == nil {
		return nil
	}
	e.client.forget(e.host)
	e.mu.Lock()
	e.root = nil // it may come back with another scheme
	e.mu.Unlock()
	return cannotReach(e.host, err)
}

// attempt sends a call, again where that is allowed.
func (e *endpoint) attempt(ctx context.Context, sender *sender, target *url.URL, c call, authorization string, ours bool) (*http.Response, error) {
	patience := e.opts.IdleTimeout
	if c.method == http.MethodPut && c.body == nil {
		patience *= commitPatience
	}
	return sender.do(ctx, patience, c.body == nil || c.repeat, func(ctx context.Context) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, c.method, target.String(), nil)
		if err != nil {
			return nil, err
		}
		if ours {
			maps.Copy(req.Header, e.config.header)
		}
		maps.Copy(req.Header, c.header)
		if authorization != "" {
			req.Header.Set("Authorization", authorization)
		}
		if c.body != nil {
			if req.Body, err = c.body(); err != nil {
				return nil, err
			}
			req.ContentLength = c.length
		}
		return req, nil
	})
}

// commitPatience is how many times longer than for a byte we wait for a registry
// that has all bytes of a blob, and may have to copy them within its storage.
const commitPatience = 10

// errIdle ends a request on which nothing moved.
var errIdle = errors.New("the registry sent nothing for too long")

// watchdog ends a request when no byte went either way for a while. It sleeps
// while the caller is busy with what came.
type watchdog struct {
	patience time.Duration
	ctx      context.Context
	cancel   context.CancelCauseFunc
	timer    *time.Timer
}

func watch(ctx context.Context, patience time.Duration) (*watchdog, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{patience: patience, ctx: ctx, cancel: cancel}
	w.timer = time.AfterFunc(patience, func() { cancel(errIdle) })
	return w, ctx
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// explain puts what ended the request in place of "context canceled".
func (w *watchdog) explain(err error) error {
	if err != nil && err != io.EOF && context.Cause(w.ctx) == errIdle {
		return errIdle
	}
	return err
}

// incoming is the body of an answer. Closing it ends the request.
type incoming struct {
	io.ReadCloser
	dog *watchdog
}

func (r *incoming) Read(p []byte) (int, error) {
	r.dog.timer.Reset(r.dog.patience)
	n, err := r.ReadCloser.Read(p)
	r.dog.timer.Stop()
	return n, r.dog.explain(err)
}

func (r *incoming) Close() error {
	defer r.dog.stop()
	return r.ReadCloser.Close()
}

// sent is the body of a request, whose bytes keep it alive. After the last one
// the registry has some work to do.
type sent struct {
	io.ReadCloser
	dog *watchdog
}

func (r *sent) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil {
		r.dog.timer.Reset(r.dog.patience * commitPatience)
	} else {
		r.dog.timer.Reset(r.dog.patience)
	}
	return n, err
}
