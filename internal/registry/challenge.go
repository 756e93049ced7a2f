package registry

import "strings"

// challenge is one way a server offers to log in (RFC 9110, section 11.6.1).
type challenge struct {
	scheme string            // in lower case
	params map[string]string // by names in lower case
}

// parseChallenges reads WWW-Authenticate headers, of which each may hold several
// challenges. What cannot be understood is left out.
func parseChallenges(headers []string) []challenge {
	var list []challenge
	for _, rest := range headers {
		for rest != "" {
			var word string
			rest = strings.TrimLeft(rest, " \t,")
			if word, rest = cutToken(rest); word == "" {
				// Credentials of a scheme that has them here, or nonsense.
				_, rest, _ = strings.Cut(rest, ",")
				continue
			}
			after := strings.TrimLeft(rest, " \t")
			if !strings.HasPrefix(after, "=") || len(list) == 0 {
				// Not a parameter, so the name of a scheme.
				list = append(list, challenge{strings.ToLower(word), map[string]string{}})
				continue
			}
			var value string
			var ok bool
			if value, rest, ok = cutValue(strings.TrimLeft(after[1:], " \t")); !ok {
				break
			}
			list[len(list)-1].params[strings.ToLower(word)] = value
		}
	}
	return list
}

// cutToken takes a token (RFC 9110, section 5.6.2) off the front.
func cutToken(s string) (token, rest string) {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return s[:i], s[i:]
		}
	}
	return s, ""
}

// cutValue takes a token or a quoted string off the front. Values that should
// have been quoted are common, so anything up to a comma or a space will do.
func cutValue(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ", \t")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}
