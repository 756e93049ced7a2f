package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// maxWait bounds how long a registry can make us wait with Retry-After.
const maxWait = 30 * time.Second

// sender sends requests to one server. It repeats those that failed in a way
// that passes: an overloaded registry (429, 5xx), a connection cut before the
// answer, silence.
type sender struct {
	http *http.Client
	opts Options
}

// do sends the request that build makes, each time anew. A request that carries
// a part of an upload is not repeated here: only the one who sends it can find
// out what of it arrived.
func (s *sender) do(ctx context.Context, patience time.Duration, repeat bool, build func(ctx context.Context) (*http.Request, error)) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := s.try(ctx, patience, build)
		last := !repeat || attempt >= s.opts.Attempts
		var wait time.Duration
		switch {
		case err != nil && (last || ctx.Err() != nil || !passing(err) || s.opts.impatient && errors.Is(err, errIdle)):
			return nil, err
		case err == nil && (last || !overloaded(resp.StatusCode)):
			return resp, nil
		case err == nil:
			wait = retryAfter(resp.Header)
			drain(resp)
		}
		wait = max(wait, backoff(s.opts.Backoff, attempt))
		if resp != nil && wait >= time.Second {
			tell(ctx, "registry %s answered %d %s: trying again in %s", resp.Request.URL.Host, resp.StatusCode, http.StatusText(resp.StatusCode), wait.Round(time.Second))
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// try is one request, which is given up when nothing moves for too long.
func (s *sender) try(ctx context.Context, patience time.Duration, build func(ctx context.Context) (*http.Request, error)) (*http.Response, error) {
	w, ctx := watch(ctx, patience)
	req, err := build(ctx)
	if err != nil {
		w.stop()
		return nil, err
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", s.opts.UserAgent)
	}
	if req.Body != nil {
		req.Body = &sent{req.Body, w}
	}
	resp, err := s.http.Do(req)
	if err != nil {
		defer w.stop()
		return nil, w.explain(err)
	}
	w.timer.Stop()
	resp.Body = &incoming{resp.Body, w}
	if limit := rateLimit(resp.Header); limit.low() && resp.StatusCode < 400 {
		tell(ctx, "registry %s limits how often it is asked: %s", resp.Request.URL.Host, limit)
	}
	return resp, nil
}

func drain(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection is used again
	resp.Body.Close()
}

func overloaded(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// passing tells whether a failed request is worth repeating. A host that does
// not exist or refuses the connection is not: the person waits for the answer.
func passing(err error) bool {
	if errors.Is(err, errIdle) {
		return true
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return false
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var timeout net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.As(err, &timeout) && timeout.Timeout()
}

// retryAfter is how long we wait as the registry asks; 0 when it does not say.
func retryAfter(h http.Header) time.Duration { return min(askedWait(h), maxWait) }

// askedWait reads how long a registry asks to be left alone.
func askedWait(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 {
		return min(time.Duration(seconds), 366*24*3600) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// backoff is the wait after the given number of attempts, with a quarter of it
// left to chance so that several clients do not come back together.
func backoff(first time.Duration, attempts int) time.Duration {
	wait := min(first<<(attempts-1), maxWait)
	return wait - rand.N(wait/4+1)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
