package access

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Guessing passwords is slowed by two counts of failures, each forgotten after
// a quarter of an hour without one. An address (of IPv6 a network of 64 bits,
// which is what one customer has) is refused for a while, longer with each
// further failure. A user whose password is guessed from many addresses is not
// locked out, as that would be a weapon; his attempts are made to wait.
const (
	freeFailures  = 8
	forgetAfter   = 15 * time.Minute
	firstRefusal  = time.Second
	longestWait   = 2 * time.Minute
	longestDelay  = 3 * time.Second
	throttleLimit = 16384
	longestUser   = 255 // bytes of a name that are remembered: anybody can send a longer one
)

// ThrottledError is the answer to who guessed too often. It is an
// errdefs.ErrResourceExhausted, which is HTTP 429.
type ThrottledError struct {
	RetryAfter time.Duration
}

// Error says how long to wait.
func (e *ThrottledError) Error() string {
	return fmt.Sprintf("too many wrong passwords: try again in %v", e.RetryAfter.Round(time.Second))
}

// Is gives the error its class.
func (e *ThrottledError) Is(target error) bool { return target == errdefs.ErrResourceExhausted }

type throttle struct {
	mu     sync.Mutex // guards counts
	counts map[string]*count
}

type count struct {
	failures int
	last     time.Time
}

func newThrottle() *throttle { return &throttle{counts: map[string]*count{}} }

// attempt is one check of a password.
type attempt struct {
	throttle      *throttle
	address, user string
	now           time.Time
}

func (t *throttle) of(r *http.Request, user string, now time.Time) *attempt {
	return &attempt{t, "from " + network(r.RemoteAddr), "user " + user[:min(len(user), longestUser)], now}
}

// network is what shares a count: an address of IPv4, a /64 of IPv6.
func network(remote string) string {
	addr, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	ip := addr.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return ip.String()
	}
	return prefix.String()
}

// begin refuses the attempt, or makes it wait.
func (a *attempt) begin(ctx context.Context) error {
	if err := a.refused(); err != nil {
		return err
	}
	t := a.throttle
	t.mu.Lock()
	delay := t.pause(a.user, a.now, longestDelay/64, longestDelay)
	t.mu.Unlock()
	if delay == 0 {
		return nil
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// refused is a *ThrottledError while the address may not guess, or nil.
func (a *attempt) refused() error {
	t := a.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	if left := t.pause(a.address, a.now, firstRefusal, longestWait) - a.since(a.address); left > 0 {
		return &ThrottledError{max(left, time.Second)}
	}
	return nil
}

// pause doubles with each failure beyond those that are free.
func (t *throttle) pause(key string, now time.Time, first, longest time.Duration) time.Duration {
	c := t.counts[key]
	if c == nil || c.failures < freeFailures {
		return 0
	}
	if now.Sub(c.last) > forgetAfter {
		delete(t.counts, key)
		return 0
	}
	return min(longest, first<<min(c.failures-freeFailures, 20))
}

func (a *attempt) since(key string) time.Duration {
	if c := a.throttle.counts[key]; c != nil {
		return a.now.Sub(c.last)
	}
	return 0
}

func (a *attempt) failed() {
	t := a.throttle
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.counts) >= throttleLimit {
		t.forget(a.now)
	}
	for _, key := range []string{a.address, a.user} {
		c := t.counts[key]
		if c == nil {
			c = &count{}
			t.counts[key] = c
		}
		c.failures++
		c.last = a.now
	}
}

// forget makes room: first of what is old, and of everything when a flood of
// addresses leaves nothing old.
func (t *throttle) forget(now time.Time) {
	for key, c := range t.counts {
		if now.Sub(c.last) > forgetAfter {
			delete(t.counts, key)
		}
	}
	if len(t.counts) >= throttleLimit {
		clear(t.counts)
	}
}

// succeeded forgives the address: the user knows his password. His own count
// stays, or a guesser with an account of his own could reset it.
func (a *attempt) succeeded() {
	a.throttle.mu.Lock()
	defer a.throttle.mu.Unlock()
	delete(a.throttle.counts, a.address)
}

// SetHeader adds Retry-After, in seconds.
func (e *ThrottledError) SetHeader(h http.Header) {
	h.Set("Retry-After", fmt.Sprint(int((e.RetryAfter+time.Second-1)/time.Second)))
}
