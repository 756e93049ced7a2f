package registryd

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// behind believes the X-Forwarded headers of proxies that are trusted, and of
// nobody else: who asks (the last address that is no trusted proxy's), by which
// scheme and under which name. It is what limits guessing by address, and what
// the URLs in answers are made of.
func behind(proxies []netip.Prefix, next http.Handler) http.Handler {
	if len(proxies) == 0 {
		return next
	}
	trusted := func(addr netip.Addr) bool {
		return slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil || !trusted(peer.Addr()) {
			next.ServeHTTP(w, r)
			return
		}
		r = r.Clone(r.Context())
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		for _, hop := range slices.Backward(hops) {
			addr, err := netip.ParseAddr(strings.TrimSpace(hop))
			if err != nil {
				break
			}
			r.RemoteAddr = netip.AddrPortFrom(addr, 0).String()
			if !trusted(addr) {
				break
			}
		}
		switch proto := r.Header.Get("X-Forwarded-Proto"); proto {
		case "http", "https":
			r.URL.Scheme = proto
		}
		if host := r.Header.Get("X-Forwarded-Host"); host != "" && !strings.ContainsAny(host, " ,/\\\"<>") {
			r.Host = host
		}
		next.ServeHTTP(w, r)
	})
}
