package registry

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
)

// This file is about the session of an upload: what a registry calls the place
// where the bytes of a blob gather.

// begun notes the session of an answer, and tells whether there is one.
func (u *upload) begun(resp *http.Response) bool {
	location := resp.Header.Get("Location")
	if location == "" {
		return false
	}
	next, err := resp.Request.URL.Parse(location)
	if err != nil {
		return false
	}
	u.moved(next)
	if least, err := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && u.chunk > 0 {
		u.chunk = max(u.chunk, least)
	}
	return true
}

// moved notes where the session is; nil is nowhere.
func (u *upload) moved(to *url.URL) {
	u.location, u.old = to, u.old && to != nil
	if u.opts.Sending == nil {
		return
	}
	if to == nil {
		u.opts.Sending("")
	} else {
		u.opts.Sending(to.String())
	}
}

// abandon lets go of the session, so that the registry need not wait for it.
func (u *upload) abandon(ctx context.Context) {
	if u.location == nil {
		return
	}
	// A courtesy, for which nobody waits long.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if resp, err := u.repo.send(ctx, call{method: http.MethodDelete, url: u.location, actions: pushing}); err == nil {
		resp.Body.Close()
	}
	u.moved(nil)
}

// keeps tells whether an upload that failed is left for a later push to go on
// with: when it was interrupted, or the registry is not there.
func (u *upload) keeps(ctx context.Context, err error) bool {
	return u.opts.Sending != nil && (ctx.Err() != nil || errors.Is(err, errdefs.ErrUnavailable))
}

// takeUp goes on with the session of an earlier push. Where that cannot be, the
// upload begins anew: nothing that is wrong with it is worth failing for.
func (u *upload) takeUp(ctx context.Context) {
	session, err := url.Parse(u.opts.Session)
	if err != nil || !u.repo.isWriter(ctx, session) {
		return
	}
	has, resp, err := u.ask(ctx, session)
	if err != nil || has == 0 {
		return
	}
	u.abandon(ctx) // what a mount was answered with
	u.location, u.old = session, true
	u.goOn(resp, has)
	tell(ctx, "registry %s has %s of blob %s since an earlier push", u.repo.host, units.HumanSizeWithPrecision(float64(has), 3), u.desc.Digest)
}

// isWriter tells whether a URL is of the server that is pushed to.
func (r *Repository) isWriter(ctx context.Context, u *url.URL) bool {
	e := r.writer()
	root, _, err := e.ready(ctx)
	if err != nil {
		return false
	}
	_, ours, err := e.target(root, r.path, call{url: u})
	return err == nil && ours
}

// ask asks the registry how many bytes it has in a session; 0 is that it does
// not say.
func (u *upload) ask(ctx context.Context, session *url.URL) (int64, *http.Response, error) {
	resp, err := u.repo.send(ctx, call{method: http.MethodGet, url: session, actions: pushing})
	if err != nil {
		return 0, nil, err
	}
	resp.Body.Close()
	has, ok := received(resp.Header)
	if !ok || has > u.desc.Size || resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusOK {
		has = 0
	}
	return has, resp, nil
}

// goOn sends what follows the bytes the registry has.
func (u *upload) goOn(resp *http.Response, has int64) {
	u.begun(resp)
	u.offset = has
	u.resumed += has
	u.tell(has)
}

// resume asks the registry how much it has. Where it does not know any more,
// the upload starts again.
func (u *upload) resume(ctx context.Context) error {
	if u.location == nil {
		return nil
	}
	has, resp, err := u.ask(ctx, u.location)
	if err != nil {
		return err
	}
	if has > 0 {
		u.goOn(resp, has)
		return nil
	}
	// The answer to a finished upload may be what was lost.
	if there, err := u.repo.hasBlob(ctx, u.desc); err == nil && there {
		u.done = true
		u.moved(nil)
		return nil
	}
	u.abandon(ctx)
	u.offset = 0
	return nil
}

// received reads how many bytes of an upload a registry has. It is unknown
// after "0-0", which registries say for one byte and for none.
func received(h http.Header) (int64, bool) {
	value := strings.TrimPrefix(h.Get("Range"), "bytes=")
	from, to, ok := strings.Cut(value, "-")
	last, err := strconv.ParseInt(to, 10, 64)
	if !ok || from != "0" || err != nil || last <= 0 {
		return 0, false
	}
	return last + 1, true
}
