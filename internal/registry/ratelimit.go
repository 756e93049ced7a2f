package registry

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RateLimit is how often a registry may be asked, as far as it tells (the
// RateLimit-Limit and RateLimit-Remaining headers of Docker Hub and others).
type RateLimit struct {
	Limit     int           // requests in a window; -1 is not told
	Remaining int           // of them; -1 is not told
	Window    time.Duration // 0 is not told
	Source    string        // whom the registry counts them for: an address or an account; "" is not told
}

// rateLimit reads the headers of an answer; nil when there are none.
func rateLimit(h http.Header) *RateLimit {
	limit, window := limitValue(h.Get("Ratelimit-Limit"))
	remaining, other := limitValue(h.Get("Ratelimit-Remaining"))
	if limit < 0 && remaining < 0 {
		return nil
	}
	source := h.Get("Docker-Ratelimit-Source")
	if len(source) > 100 || strings.ContainsFunc(source, func(c rune) bool { return c < ' ' || c > '~' }) {
		source = ""
	}
	return &RateLimit{Limit: limit, Remaining: remaining, Window: max(window, other), Source: source}
}

// limitValue reads "100;w=21600": 100 in 21,600 seconds.
func limitValue(s string) (count int, window time.Duration) {
	number, rest, _ := strings.Cut(s, ";")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if err != nil || n < 0 {
		return -1, 0
	}
	for parameter := range strings.SplitSeq(rest, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if seconds, err := strconv.Atoi(value); err == nil && strings.EqualFold(key, "w") && seconds > 0 {
			window = time.Duration(min(seconds, 366*24*3600)) * time.Second
		}
	}
	return n, window
}

// String says the limit as "0 of 100 requests in 6h0m0s are left for 192.0.2.1".
func (l *RateLimit) String() string {
	var b strings.Builder
	switch {
	case l.Remaining >= 0 && l.Limit >= 0:
		fmt.Fprintf(&b, "%d of %d requests", l.Remaining, l.Limit)
	case l.Limit >= 0:
		fmt.Fprintf(&b, "at most %d requests", l.Limit)
	default:
		fmt.Fprintf(&b, "%d requests", l.Remaining)
	}
	if l.Window > 0 {
		fmt.Fprintf(&b, " in %s", l.Window)
	}
	if l.Remaining >= 0 {
		b.WriteString(" are left")
	} else {
		b.WriteString(" are allowed")
	}
	if l.Source != "" {
		b.WriteString(" for " + l.Source)
	}
	return b.String()
}

// low tells of a limit a person should know of: a tenth of it is left.
func (l *RateLimit) low() bool {
	return l != nil && l.Remaining >= 0 && l.Limit > 0 && l.Remaining*10 <= l.Limit
}
