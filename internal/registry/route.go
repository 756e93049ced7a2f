package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/gantry-containers/gantry/internal/errs"
)

// How long we wait for servers that are asked for speed only, and how long one
// that did not answer is left alone.
const (
	neighbourDial = time.Second
	neighbourIdle = 10 * time.Second
	mirrorDial    = 5 * time.Second
	restTime      = 30 * time.Second
	distrustTime  = 10 * time.Minute // for one that sent something else than was asked for
	aideAttempts  = 2                // of a request
)

// Repository is one repository of a registry as one caller may see it: tokens
// are kept for as long as the value lives, and are never shared. What has a
// digest is asked for at neighbours first, then at mirrors, then at the
// registry; a tag at mirrors that may resolve one, then at the registry, and at
// neighbours only when that cannot be reached.
type Repository struct {
	client     *Client
	host       string // of the registry, with its port
	path       string // name of the repository within the registry
	origin     *endpoint
	mirrors    []*endpoint
	neighbours []*endpoint
}

// Repository is the repository of a name. Nobody is asked yet. The credentials
// go to that registry, and the token server it names, and to nobody else: a
// mirror gets those that name it as their server.
func (c *Client) Repository(_ context.Context, name reference.Named, cred *AuthConfig) (*Repository, error) {
	s := c.settings.Load()
	namespace := reference.Domain(name)
	r := &Repository{client: c, host: registryHost(namespace), path: reference.Path(name)}
	hosts, err := findHosts(s.HostDirs, namespace)
	if err != nil {
		return nil, err
	}
	own := hostConfig{can: canAll}
	if last := len(hosts) - 1; last >= 0 {
		own, hosts = hosts[last], hosts[:last]
	}
	r.origin = r.server(own, namespace, cred)
	for _, host := range hosts {
		r.mirrors = append(r.mirrors, r.server(host, namespace, cred).asAide())
	}
	if err := r.addHubMirrors(s, cred); err != nil {
		return nil, err
	}
	return r, r.addNeighbours(s, namespace)
}

// server is one that is configured for the registry.
func (r *Repository) server(config hostConfig, namespace string, cred *AuthConfig) *endpoint {
	host := r.host
	if config.url != nil {
		host = config.url.Host
	}
	e := r.client.endpoint(host, config, credentialFor(host, host == r.host, cred))
	if host != r.host {
		e.namespace = namespace
	}
	return e
}

// addHubMirrors adds the configured mirrors of Docker Hub.
func (r *Repository) addHubMirrors(s *Settings, cred *AuthConfig) error {
	if r.host != dockerHub {
		return nil
	}
	for _, mirror := range s.Mirrors {
		u, err := url.Parse(mirror)
		if err != nil {
			return errs.InvalidArgument("invalid mirror: %q is not a valid URI", mirror)
		}
		config, err := r.client.configOf(u.Host)
		if err != nil {
			return err
		}
		config.url, config.can = u.JoinPath("v2"), canPull|canResolve
		r.mirrors = append(r.mirrors, r.client.endpoint(u.Host, config, credentialFor(u.Host, false, cred)).asAide())
	}
	return nil
}

// addNeighbours adds the configured neighbours. What they serve is checked by
// its digest, so nobody needs a certificate.
func (r *Repository) addNeighbours(s *Settings, namespace string) error {
	for _, neighbour := range s.Neighbours {
		u, err := neighbourURL(neighbour)
		if err != nil {
			return err
		}
		if u.Host == r.host {
			continue
		}
		config := hostConfig{can: canPull | canResolve, dialTimeout: neighbourDial}
		if u.Scheme != "" {
			config.url = u.JoinPath("v2")
		}
		e := r.client.endpoint(u.Host, config, credential{}).asAide()
		e.open = u.Scheme == ""
		e.namespace, e.neighbour = namespace, true
		e.opts.IdleTimeout = min(e.opts.IdleTimeout, neighbourIdle)
		r.neighbours = append(r.neighbours, e)
	}
	return nil
}

// configOf is what is configured for a server by its own name, without what
// stands in for it.
func (c *Client) configOf(host string) (hostConfig, error) {
	hosts, err := findHosts(c.settings.Load().HostDirs, host)
	if err != nil || len(hosts) == 0 {
		return hostConfig{can: canAll}, err
	}
	own := hosts[len(hosts)-1]
	if own.url != nil && own.url.Host != host {
		return hostConfig{can: canAll}, nil
	}
	return own, nil
}

// readers are the servers to ask for a tag or digest, in order.
func (r *Repository) readers(ref string) []*endpoint {
	need := canResolve
	var list []*endpoint
	if _, err := digest.Parse(ref); err == nil {
		need = canPull
		list = append(list, r.neighbours...)
	}
	for _, e := range r.mirrors {
		if e.can&need != 0 {
			list = append(list, e)
		}
	}
	if r.origin.can&need != 0 {
		list = append(list, r.origin)
	}
	if need == canResolve {
		list = append(list, r.neighbours...) // see read
	}
	return list
}

// read asks one server after the other until one has what is wanted. The error
// is the registry's own where it was asked.
func (r *Repository) read(ctx context.Context, ref string, ask func(*endpoint) error) error {
	var failure error
	originFailed := false
	_, derr := digest.Parse(ref)
	for _, e := range r.readers(ref) {
		last := e.neighbour && derr != nil // a tag, which only counts when its registry is silent
		if last && (!originFailed || !silent(failure)) {
			break
		}
		if e.resting() {
			continue
		}
		err := ask(e)
		if err == nil {
			if last {
				tell(ctx, "registry %s does not answer: %s is what neighbour %s has under that name, which may be old", r.host, ref, e.host)
			}
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		e.excuse(err)
		if !originFailed {
			failure = err
		}
		originFailed = originFailed || e == r.origin
	}
	if failure == nil {
		return errs.Unavailable("no server of registry %s may be asked for %s", r.host, ref)
	}
	return failure
}

// silent tells of a registry that could not be asked, or would not say.
func silent(err error) bool { return errors.Is(err, errdefs.ErrUnavailable) }

// writer is the server to push to: the first that takes it.
func (r *Repository) writer() *endpoint {
	for _, e := range r.mirrors {
		if e.can&canPush != 0 {
			return e
		}
	}
	return r.origin
}

// send asks the server that is pushed to.
func (r *Repository) send(ctx context.Context, c call) (*http.Response, error) {
	e := r.writer()
	if e.can&canPush == 0 {
		return nil, errs.Forbidden("nothing can be pushed to registry %s: its configuration does not allow it", r.host)
	}
	return e.do(ctx, r.path, c)
}

// noticeKey is the context's key for who is told.
type noticeKey struct{}

// WithNotices has tell called, possibly by several goroutines at once, with
// sentences for the person who waits: that a registry limits how often it may
// be asked, that a request is repeated, that a tag comes from a neighbour.
func WithNotices(ctx context.Context, tell func(sentence string)) context.Context {
	return context.WithValue(ctx, noticeKey{}, tell)
}

// credentialFor is the part of a person's credentials that a server may see:
// all that was given for the registry it is, or that names it.
func credentialFor(host string, isRegistry bool, cred *AuthConfig) credential {
	if cred == nil {
		return credential{}
	}
	if !isRegistry {
		if named, err := serverHost(cred); err != nil || cred.ServerAddress == "" || !strings.EqualFold(named, host) {
			return credential{}
		}
	}
	return credentialOf(cred)
}

func tell(ctx context.Context, format string, args ...any) {
	if f, ok := ctx.Value(noticeKey{}).(func(string)); ok {
		f(fmt.Sprintf(format, args...))
	}
}
