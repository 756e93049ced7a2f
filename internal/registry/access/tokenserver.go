package access

import (
	"crypto"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gantry-containers/gantry/internal/errs"
)

const cryptoSHA256 = crypto.SHA256

// maxForm bounds the body of POST /token and what is read of a scope.
const (
	maxForm   = 64 << 10
	maxScopes = 100
)

// tokenAnswer is the answer of a token server, to GET by the Docker registry
// token specification and to POST by its OAuth2 variant.
type tokenAnswer struct {
	Token        string    `json:"token,omitempty"`
	AccessToken  string    `json:"access_token"`
	Scope        string    `json:"scope,omitempty"`
	ExpiresIn    int       `json:"expires_in"`
	IssuedAt     time.Time `json:"issued_at"`
	RefreshToken string    `json:"refresh_token,omitempty"`
}

// IssuesTokens tells whether ServeToken has anything to serve.
func (a *Access) IssuesTokens() bool { return a.issuer != nil }

// ServeToken is the token server: GET with basic credentials, or none, and POST
// as OAuth2 has it, with the grants password and refresh_token.
func (a *Access) ServeToken(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	var answer *tokenAnswer
	var err error
	switch {
	case a.issuer == nil:
		err = errs.NotFound("the registry issues no tokens")
	case r.Method == http.MethodGet:
		answer, err = a.getToken(r)
	case r.Method == http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		answer, err = a.postToken(r)
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	if err != nil {
		refuseToken(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the client is gone
}

// ServeKeys is the public half of the key that signs, as a JSON Web Key Set: for
// other registries that are to trust this token server.
func (a *Access) ServeKeys(w http.ResponseWriter, _ *http.Request) {
	if a.issuer == nil {
		http.Error(w, "the registry issues no tokens", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{a.issuer.key.Public()}}) // the client is gone
}

func refuseToken(w http.ResponseWriter, err error) {
	status, code := http.StatusInternalServerError, "UNKNOWN"
	var throttled *ThrottledError
	switch {
	case errors.As(err, &throttled):
		status, code = http.StatusTooManyRequests, "TOOMANYREQUESTS"
		throttled.SetHeader(w.Header())
	case errors.Is(err, errdefs.ErrUnauthenticated):
		status, code = http.StatusUnauthorized, "UNAUTHORIZED"
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
	case errors.Is(err, errdefs.ErrInvalidArgument):
		status, code = http.StatusBadRequest, "UNSUPPORTED"
	case errors.Is(err, errdefs.ErrNotFound):
		status, code = http.StatusNotFound, "UNSUPPORTED"
	}
	type problem struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body := map[string]any{"errors": []problem{{code, err.Error()}}, "details": err.Error()}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client is gone
}

func (a *Access) getToken(r *http.Request) (*tokenAnswer, error) {
	id := Identity{}
	if user, password, ok := r.BasicAuth(); ok {
		var err error
		if id, err = a.login(r, user, password); err != nil {
			return nil, err
		}
	} else if r.Header.Get("Authorization") != "" {
		return nil, errs.Unauthorized("tokens are given for a user name and a password")
	}
	q := r.URL.Query()
	answer, err := a.token(id.User, q.Get("service"), q["scope"], q.Get("offline_token") == "true")
	if err != nil {
		return nil, err
	}
	answer.Token, answer.Scope = answer.AccessToken, ""
	return answer, nil
}

func (a *Access) postToken(r *http.Request) (*tokenAnswer, error) {
	if err := r.ParseForm(); err != nil {
		return nil, errs.InvalidArgument("cannot read the form: %w", err)
	}
	f := r.PostForm
	var user string
	kept := ""
	switch f.Get("grant_type") {
	case "password":
		id, err := a.login(r, f.Get("username"), f.Get("password"))
		if err != nil {
			return nil, err
		}
		if user = id.User; user == "" {
			return nil, errs.Unauthorized("incorrect username or password")
		}
	case "refresh_token":
		kept = f.Get("refresh_token")
		c, err := a.issuer.verify(kept, useRefresh, a.serviceOf(f.Get("service")), a.now())
		if err != nil {
			return nil, err
		}
		if !a.accounts.current(c.Subject, c.Password) {
			return nil, errs.Unauthorized("the account of the token has changed: log in again")
		}
		user = c.Subject
	default:
		return nil, errs.InvalidArgument("unknown grant type %q", f.Get("grant_type"))
	}
	answer, err := a.token(user, f.Get("service"), f["scope"], kept == "" && f.Get("access_type") == "offline")
	if err == nil && kept != "" {
		answer.RefreshToken = kept
	}
	return answer, err
}

// serviceOf is the service a token is asked for. It may be another registry that
// trusts this token server; a refresh token is good for the one it was made for
// only (Docker's OAuth2 token authentication, "service").
func (a *Access) serviceOf(asked string) string {
	if asked == "" {
		return a.issuer.service
	}
	return asked
}

// token is what the user is entitled to of what was asked. To get less is no
// error: the registry says what is missing.
func (a *Access) token(user, service string, scopes []string, offline bool) (*tokenAnswer, error) {
	now := a.now()
	c := &claims{Access: a.granted(user, scopes), Use: useAccess}
	c.Subject, c.Audience = user, jwt.Audience{a.serviceOf(service)}
	if user != "" {
		c.Password = a.accounts.tag(user)
	}
	token, err := a.issuer.sign(c, now, a.issuer.lifetime)
	if err != nil {
		return nil, err
	}
	answer := &tokenAnswer{AccessToken: token, ExpiresIn: int(a.issuer.lifetime / time.Second), IssuedAt: now.UTC(), Scope: spell(c.Access)}
	if offline && user != "" {
		refresh := &claims{Use: useRefresh, Password: c.Password}
		refresh.Subject, refresh.Audience = user, c.Audience
		if answer.RefreshToken, err = a.issuer.sign(refresh, now, refreshLifetime); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// granted is the part of the scopes the user has a right to.
func (a *Access) granted(user string, scopes []string) []grant {
	grants := []grant{}
	for _, scope := range strings.Fields(strings.Join(scopes, " ")) {
		if len(grants) == maxScopes {
			break
		}
		g, ok := parseScope(scope)
		if !ok {
			continue
		}
		switch g.Type {
		case "repository":
			g.Actions = a.grantedActions(user, g)
		case "registry":
			// Lists and searches show each user what he may read.
			g.Actions = slices.DeleteFunc(g.Actions, func(action string) bool {
				return g.Name != "catalog" || action != "*" && action != "search"
			})
		default:
			continue
		}
		if len(g.Actions) > 0 {
			grants = append(grants, g)
		}
	}
	return grants
}

func (a *Access) grantedActions(user string, g grant) []string {
	rights := a.rules.rights(user, g.Name, true)
	var asked Rights
	for _, action := range g.Actions {
		asked |= rightOf(action)
	}
	return (asked & rights).Actions()
}

// parseScope reads "repository:NAME:pull,push". The name may have colons in it,
// of a host with a port; the type may have a class, as "repository(plugin)".
func parseScope(s string) (grant, bool) {
	kind, rest, ok := strings.Cut(s, ":")
	at := strings.LastIndexByte(rest, ':')
	if !ok || at <= 0 || len(s) > 4096 {
		return grant{}, false
	}
	g := grant{Type: kind, Name: rest[:at], Actions: strings.Split(rest[at+1:], ",")}
	if kind, class, ok := strings.Cut(kind, "("); ok {
		g.Type, g.Class = kind, strings.TrimSuffix(class, ")")
	}
	return g, true
}

func spell(grants []grant) string {
	var words []string
	for _, g := range grants {
		words = append(words, g.Type+":"+g.Name+":"+strings.Join(g.Actions, ","))
	}
	return strings.Join(words, " ")
}
