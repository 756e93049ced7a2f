package registry

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// endpoint is one server that is asked for a repository.
type endpoint struct {
	client *Client
	host   string // as a person names it, with its port
	root   string // URL up to and with /v2
	sender *sender
	auth   *authorizer
}

// What a call is allowed to do, as a token server calls it.
const (
	pulling  = "pull"
	pushing  = "pull,push"
	deleting = "delete"
)

// call is one request for something of a repository.
type call struct {
	method  string
	path    string   // below the repository, with its query
	url     *url.URL // instead of path: where the registry said to go on
	header  http.Header
	actions string   // of the token; pulling when empty
	also    []string // further scopes of the token
	scopes  []string // instead of actions on the repository
	// body gives the bytes to send, each time anew; length is their number.
	body   func() (io.ReadCloser, error)
	length int64
	repeat bool // a body that may be sent again without asking
}

// do sends a call for the repository at path. An answer of 401 gets one more
// chance with a fresh token. What the answer says is the caller's to judge, its
// body the caller's to close.
func (e *endpoint) do(ctx context.Context, path string, c call) (*http.Response, error) {
	target := c.url
	if target == nil {
		u, err := url.Parse(e.root + "/" + path + c.path)
		if err != nil {
			return nil, errs.InvalidArgument("cannot ask registry %s: %w", e.host, err)
		}
		target = u
	}
	target, ours := e.owns(target)
	scopes := c.scopes
	if scopes == nil {
		scopes = append([]string{"repository:" + path + ":" + cmp.Or(c.actions, pulling)}, c.also...)
	}
	var authorization string
	var err error
	if ours {
		if authorization, err = e.auth.header(ctx, scopes); err != nil {
			return nil, e.failure(err)
		}
	}
	resp, err := e.attempt(ctx, target, c, authorization)
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
	resp, err = e.attempt(ctx, target, c, fresh)
	return resp, e.failure(err)
}

// owns tells whether a URL is this server's, so that it may see credentials. A
// server behind a proxy that adds TLS may name itself in plain HTTP.
func (e *endpoint) owns(u *url.URL) (*url.URL, bool) {
	root, err := url.Parse(e.root)
	if err != nil {
		return u, false
	}
	if root.Scheme == "https" && u.Scheme == "http" && u.Host == root.Host {
		copied := *u
		copied.Scheme = "https"
		u = &copied
	}
	return u, sameOrigin(root, u)
}

// failure makes a sentence of a request that got no answer.
func (e *endpoint) failure(err error) error {
	if err == nil {
		return nil
	}
	e.client.forget(e.host)
	return cannotReach(e.host, err)
}

// attempt sends a call, again where that is allowed.
func (e *endpoint) attempt(ctx context.Context, target *url.URL, c call, authorization string) (*http.Response, error) {
	patience := e.client.opts.IdleTimeout
	if c.method == http.MethodPut && c.body == nil {
		patience *= commitPatience
	}
	return e.sender.do(ctx, patience, c.body == nil || c.repeat, func(ctx context.Context) (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, c.method, target.String(), nil)
		if err != nil {
			return nil, err
		}
		for key, values := range c.header {
			req.Header[key] = values
		}
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
