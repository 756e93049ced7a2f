package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/gantry-containers/gantry/internal/errs"
)

// clientID is how we introduce ourselves to token servers.
const clientID = "gantry"

// credential is what one server may be told of a person.
type credential struct {
	username, password string
	identity           string // a refresh token
	token              string // an access token, used as it is
}

// authorizer finds what to write into the Authorization header for one server:
// basic credentials, or tokens by scope as in Docker's token authentication
// specification and its OAuth2 variant. Tokens are fetched again before they
// end. It belongs to one caller, so nothing of one person reaches another.
//
// The library we took for this refuses token servers with private addresses,
// which are the rule in company networks, and waits for tokens to fail.
type authorizer struct {
	host     string // of the registry
	secure   bool   // the registry was reached with TLS
	sender   *sender
	insecure func(ctx context.Context, host string) bool
	offline  bool // ask for a refresh token, for a login

	fetches singleflight.Group

	mu     sync.Mutex // guards what follows
	cred   credential
	basic  bool
	bearer challenge // of the token server; its scheme is empty until it is known
	tokens map[string]token
}

// token is an access token and when to get another.
type token struct {
	value string
	until time.Time
}

// header is the value for a request, as far as the server's wishes are known;
// empty before it was asked once.
func (a *authorizer) header(ctx context.Context, scopes []string) (string, error) {
	a.mu.Lock()
	basic, bearer, known := a.basic, a.bearer, a.tokens[keyOf(scopes)]
	a.mu.Unlock()
	switch {
	case basic:
		return a.basicHeader()
	case bearer.scheme == "":
		return "", nil
	case known.value != "" && time.Now().Before(known.until):
		return "Bearer " + known.value, nil
	}
	return a.fetch(ctx, bearer, scopes, known.value)
}

// challenged answers a 401: with a header to try, or "" when what was sent is
// all we have.
func (a *authorizer) challenged(ctx context.Context, resp *http.Response, scopes []string, used string) (string, error) {
	offers := parseChallenges(resp.Header.Values("Www-Authenticate"))
	// Tokens first, as they need no person.
	slices.SortStableFunc(offers, func(a, b challenge) int { return strings.Compare(b.scheme, a.scheme) })
	for _, c := range offers {
		switch c.scheme {
		case "basic":
			if strings.HasPrefix(used, "Basic ") {
				continue // and it was wrong
			}
			a.mu.Lock()
			a.basic = true
			a.mu.Unlock()
			return a.basicHeader()
		case "bearer":
			stale, _ := strings.CutPrefix(used, "Bearer ")
			if stale != "" && c.params["error"] == "insufficient_scope" {
				return "", nil
			}
			fresh, err := a.fetch(ctx, c, scopes, stale)
			if err == nil {
				a.mu.Lock()
				a.basic, a.bearer = false, c
				a.mu.Unlock()
			}
			return fresh, err
		}
	}
	return "", nil
}

func (a *authorizer) basicHeader() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cred.username == "" && a.cred.password == "" {
		return "", errs.Unauthorized("registry %s wants a login: no basic auth credentials", a.host)
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(a.cred.username+":"+a.cred.password)), nil
}

// volunteer sends name and password without being asked for them.
func (a *authorizer) volunteer() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.basic = a.cred.username != "" && a.cred.password != ""
}

// identity is the refresh token we have by now.
func (a *authorizer) identity() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cred.identity
}

func keyOf(scopes []string) string { return strings.Join(scopes, " ") }

// fetch gets a token for the scopes, once for all who wait for it, unless
// somebody already got another than the stale one.
func (a *authorizer) fetch(ctx context.Context, c challenge, scopes []string, stale string) (string, error) {
	key := keyOf(scopes)
	a.mu.Lock()
	known, cred := a.tokens[key], a.cred
	a.mu.Unlock()
	if known.value != "" && known.value != stale {
		return "Bearer " + known.value, nil
	}
	if cred.token != "" {
		if cred.token == stale {
			return "", nil
		}
		return "Bearer " + cred.token, nil
	}
	ch := a.fetches.DoChan(key, func() (any, error) {
		return a.ask(context.WithoutCancel(ctx), c, merged(scopes, c.params["scope"]), cred)
	})
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case result := <-ch:
		if result.Err != nil {
			return "", result.Err
		}
		t := result.Val.(token)
		a.mu.Lock()
		if a.tokens == nil {
			a.tokens = map[string]token{}
		}
		a.tokens[key] = t
		a.mu.Unlock()
		return "Bearer " + t.value, nil
	}
}

// merged adds the scopes a challenge names to those that are wanted.
func merged(scopes []string, hint string) []string {
	all := slices.Clone(scopes)
	for _, scope := range strings.Fields(hint) {
		if !slices.ContainsFunc(all, func(have string) bool { return covers(have, scope) }) {
			all = append(all, scope)
		}
	}
	return all
}

// covers tells whether a scope asks for all that another does.
func covers(have, scope string) bool {
	i, j := strings.LastIndexByte(have, ':'), strings.LastIndexByte(scope, ':')
	if i < 0 || j < 0 || have[:i] != scope[:j] {
		return have == scope
	}
	actions := strings.Split(have[i+1:], ",")
	for action := range strings.SplitSeq(scope[j+1:], ",") {
		if !slices.Contains(actions, action) {
			return false
		}
	}
	return true
}

// ask gets a token from the token server.
func (a *authorizer) ask(ctx context.Context, c challenge, scopes []string, cred credential) (token, error) {
	realm, err := a.realm(ctx, c)
	if err != nil {
		return token{}, err
	}
	request := a.tokenRequest
	if cred.identity != "" {
		request = a.oauthRequest
	}
	resp, err := a.sender.do(ctx, a.sender.opts.IdleTimeout, true, func(ctx context.Context) (*http.Request, error) {
		return request(ctx, realm, c.params["service"], scopes, cred)
	})
	if err != nil {
		return token{}, cannotReach(realm.Host, err)
	}
	if resp.StatusCode != http.StatusOK {
		return token{}, refusal(realm.Host, resp)
	}
	defer resp.Body.Close()
	return a.readToken(realm.Host, resp.Body)
}

// realm checks where the registry sends us for a token: what is protected by
// TLS here does not go there without.
func (a *authorizer) realm(ctx context.Context, c challenge) (*url.URL, error) {
	realm, err := url.Parse(c.params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != "http" {
		return nil, errs.InvalidArgument("registry %s names no token server that can be asked: %q", a.host, c.params["realm"])
	}
	if realm.Scheme == "http" && a.secure && !a.insecure(ctx, realm.Host) {
		return nil, errs.InvalidArgument("registry %s names a token server in plain HTTP, which is not asked: %s", a.host, realm.Host)
	}
	return realm, nil
}

// tokenRequest is a GET as in the token authentication specification.
func (a *authorizer) tokenRequest(ctx context.Context, realm *url.URL, service string, scopes []string, cred credential) (*http.Request, error) {
	target := *realm
	query := target.Query()
	if service != "" {
		query.Set("service", service)
	}
	for _, scope := range scopes {
		query.Add("scope", scope)
	}
	if a.offline {
		query.Set("offline_token", "true")
		query.Set("client_id", clientID)
	}
	if cred.username != "" {
		query.Set("account", cred.username)
	}
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err == nil && (cred.username != "" || cred.password != "") {
		req.SetBasicAuth(cred.username, cred.password)
	}
	return req, err
}

// oauthRequest is a POST as in the OAuth2 variant, for an identity token.
func (a *authorizer) oauthRequest(ctx context.Context, realm *url.URL, service string, scopes []string, cred credential) (*http.Request, error) {
	form := url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {cred.identity},
		"service": {service}, "client_id": {clientID},
	}
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}

// Limits of a token: the specification's least lifetime, which is also the
// default, and the most that is read of an answer.
const (
	leastLifetime = 60 * time.Second
	maxToken      = 1 << 20
)

// readToken reads the answer of a token server, and keeps a refresh token.
func (a *authorizer) readToken(host string, body io.Reader) (token, error) {
	var answer struct {
		Token        string  `json:"token"`
		AccessToken  string  `json:"access_token"`
		RefreshToken string  `json:"refresh_token"`
		ExpiresIn    float64 `json:"expires_in"`
	}
	if err := json.NewDecoder(io.LimitReader(body, maxToken)).Decode(&answer); err != nil {
		return token{}, errs.InvalidArgument("token server %s sent a token that cannot be read: %w", host, err)
	}
	value := answer.Token
	if value == "" {
		value = answer.AccessToken
	}
	if value == "" || strings.ContainsAny(value, "\r\n") {
		return token{}, errs.InvalidArgument("token server %s sent no token", host)
	}
	lifetime := leastLifetime
	if answer.ExpiresIn > 0 {
		lifetime = time.Duration(min(answer.ExpiresIn, 365*24*3600) * float64(time.Second))
	}
	if answer.RefreshToken != "" {
		a.mu.Lock()
		a.cred.identity = answer.RefreshToken
		a.mu.Unlock()
	}
	// A tenth is left for the way, and for clocks.
	return token{value, time.Now().Add(lifetime - min(lifetime/10, 10*time.Second))}, nil
}
