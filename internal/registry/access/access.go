// Package access decides who may do what in a registry.
//
// It owns the accounts (an htpasswd file), the rules that give users rights to
// repositories, the tokens of the Docker registry token specification, which it
// issues itself or takes from a server it is told to trust, and the sessions of
// a browser. It knows no route of a registry and nothing of what is stored
// there: it is asked about a request and the name of a repository.
package access

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Options configures an Access. The zero value lets everybody do everything,
// which is what a registry without accounts is.
type Options struct {
	// Htpasswd is the path of a file with lines "user:bcrypt hash", as
	// htpasswd -B writes it. It is read again when it changes.
	Htpasswd string
	// Rules give rights. Without any, whoever has an account may do
	// everything, and nobody else may do anything.
	Rules []Rule
	// Groups are the users behind a name that rules spell with a leading @.
	Groups map[string][]string
	// Tokens has clients ask for tokens instead of sending their password
	// with every request. It is implied when anonymous users have rights, as
	// clients only try without a password where tokens are asked for.
	Tokens bool
	// Issuer and Service stand in the tokens issued here; empty means
	// "gantry" and a name made of the key. Only tokens for the service count
	// here, so it is never what a client says it is, such as the host it
	// speaks to.
	Issuer, Service string
	// Realm is the URL where clients get tokens; empty means /token on the
	// host and scheme the client used.
	Realm string
	// Lifetime of a token; 0 means 5 minutes. Less than a minute is raised
	// to one, which old clients count on.
	Lifetime time.Duration
	// KeyDir is where the key that signs tokens and sessions is kept. It is
	// made when it is missing.
	KeyDir string
	// Trust names a token server that is not ours, instead of Htpasswd.
	Trust *Trust
	Log   *slog.Logger
}

// Access answers for one registry. It is safe for concurrent use.
type Access struct {
	opts     Options
	log      *slog.Logger
	now      func() time.Time
	rules    *ruleset
	accounts *accounts // nil without an htpasswd file
	issuer   *issuer   // nil where no tokens are issued
	trust    *verifier // nil where no other server is trusted
	throttle *throttle
	tokens   bool
}

// New reads what the options name.
func New(o Options) (*Access, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	a := &Access{opts: o, log: o.Log, now: time.Now}
	if o.Trust != nil && o.Htpasswd != "" {
		return nil, errs.InvalidArgument("accounts come from an htpasswd file or from a token server, not from both")
	}
	var err error
	if a.rules, err = compile(o.Rules, o.Groups); err != nil {
		return nil, err
	}
	a.throttle = newThrottle()
	switch {
	case o.Trust != nil:
		a.trust, err = newVerifier(o.Trust)
	case o.Htpasswd != "":
		if a.accounts, err = openAccounts(o.Htpasswd, a.log); err != nil {
			return nil, err
		}
		a.tokens = o.Tokens || a.rules.anonymous
		a.issuer, err = newIssuer(o)
	case len(o.Rules) > 0 && !a.rules.anonymous:
		err = errs.InvalidArgument("there are rules for users and no accounts: give an htpasswd file or a token server")
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Open tells whether there are neither accounts nor rules: everybody may do
// everything.
func (a *Access) Open() bool { return a.accounts == nil && a.trust == nil && len(a.opts.Rules) == 0 }

// Identity is who makes a request.
type Identity struct {
	// User is empty for somebody who did not say who he is.
	User string
	// claims bound the rights further: those of a token.
	claims *claims
	// foreign says that the claims are all there is: the token server that
	// issued them knows the rights, and we do not.
	foreign bool
}

// Identify finds out who makes the request, by its Authorization header. No
// header is an anonymous identity; a wrong one is an errdefs.ErrUnauthenticated,
// and too many wrong ones a *ThrottledError.
func (a *Access) Identify(r *http.Request) (Identity, error) {
	header := r.Header.Get("Authorization")
	if header == "" || a.Open() {
		return Identity{}, nil
	}
	scheme, value, _ := strings.Cut(header, " ")
	switch {
	case strings.EqualFold(scheme, "Basic"):
		user, password, ok := r.BasicAuth()
		if !ok {
			return Identity{}, errs.Unauthorized("the credentials of the request cannot be read")
		}
		return a.login(r, user, password)
	case strings.EqualFold(scheme, "Bearer"):
		return a.bearer(strings.TrimSpace(value))
	}
	return Identity{}, errs.Unauthorized("the registry knows no authorization of type %q", scheme)
}

// login checks a password.
func (a *Access) login(r *http.Request, user, password string) (Identity, error) {
	if a.accounts == nil {
		return Identity{}, errs.Unauthorized("the registry has no accounts of its own: ask its token server")
	}
	if user == "" && password == "" {
		return Identity{}, nil // what some clients send for nobody
	}
	if err := a.accounts.check(r.Context(), user, password, a.throttle.of(r, user, a.now())); err != nil {
		return Identity{}, err
	}
	return Identity{User: user}, nil
}

func (a *Access) bearer(token string) (Identity, error) {
	if a.trust != nil {
		c, err := a.trust.verify(token, a.now())
		if err != nil {
			return Identity{}, err
		}
		return Identity{User: c.Subject, claims: c, foreign: true}, nil
	}
	if a.issuer == nil {
		return Identity{}, errs.Unauthorized("the registry issues no tokens")
	}
	c, err := a.issuer.verify(token, useAccess, a.issuer.service, a.now())
	if err != nil {
		return Identity{}, err
	}
	if c.Subject != "" && !a.accounts.current(c.Subject, c.Password) {
		return Identity{}, errs.Unauthorized("the account of the token has changed: log in again")
	}
	return Identity{User: c.Subject, claims: c}, nil
}

// Rights are what the identity may do with a repository. A token of ours gives
// at most what its user may do now: taking a right away takes effect at once.
func (a *Access) Rights(id Identity, repository string) Rights {
	if a.Open() {
		return All
	}
	if id.foreign {
		return id.claims.rights(repository)
	}
	rights := a.rules.rights(id.User, repository, a.accounts != nil)
	if id.claims != nil {
		rights &= id.claims.rights(repository)
	}
	return rights
}

// MayRead tells whether a repository exists for the identity: what is shown in
// lists, searches and pages. Unlike Rights it looks through a token of ours for
// the catalogue to its user, since a token for a list cannot name what the list
// will show. Any other token shows no more than it names.
func (a *Access) MayRead(id Identity, repository string) bool {
	switch {
	case id.foreign && id.claims.grants("registry", "catalog", "*"):
		return true
	case !id.foreign && id.claims != nil && id.claims.lists():
		id.claims = nil
	}
	return a.Rights(id, repository).Has(Read)
}

// Authorize asks for rights to a repository, or, where repository is empty, for
// no more than being let in; where it is CatalogScope, for the list. It returns
// the name of the user. Errors are errdefs.ErrUnauthenticated when credentials
// (others, more) could help, errdefs.ErrPermissionDenied when they cannot, or a
// *ThrottledError.
func (a *Access) Authorize(r *http.Request, repository string, need Rights) (Identity, error) {
	id, err := a.Identify(r)
	if err != nil {
		return Identity{}, err
	}
	if repository == CatalogScope {
		if id.User == "" && id.claims == nil && !a.letsIn() || id.claims != nil && !id.claims.lists() {
			return Identity{}, errs.Unauthorized("authentication required")
		}
		return id, nil
	}
	if repository == "" {
		if id.User == "" && id.claims == nil && !a.letsIn() {
			return Identity{}, errs.Unauthorized("authentication required")
		}
		return id, nil
	}
	if a.Rights(id, repository).Has(need) {
		return id, nil
	}
	// A client that came with a token asks for a better one when it is told
	// 401; one that came with a password has nothing better.
	if id.User != "" && id.claims == nil {
		return Identity{}, errs.Forbidden("requested access to the resource is denied")
	}
	return Identity{}, errs.Unauthorized("authentication required")
}

// letsIn tells whether a client without credentials gets past /v2/. Where
// there are tokens it does not: clients ask for one only after they were
// refused there.
func (a *Access) letsIn() bool { return a.accounts == nil && a.trust == nil }

// Challenge is the WWW-Authenticate header for a refused request, by RFC 6750
// section 3 and the Docker token specification.
func (a *Access) Challenge(r *http.Request, repository string, need Rights) string {
	switch {
	case a.trust != nil:
		return a.challenge(r, a.opts.Trust.Realm, a.opts.Trust.Service, repository, need)
	case a.accounts != nil && a.tokens:
		return a.challenge(r, a.realm(r), a.issuer.service, repository, need)
	}
	return fmt.Sprintf("Basic realm=%q", "registry")
}

func (a *Access) challenge(r *http.Request, realm, service, repository string, need Rights) string {
	text := fmt.Sprintf("Bearer realm=%q,service=%q", realm, service)
	if scope := scopeOf(repository, need); scope != "" {
		text += fmt.Sprintf(",scope=%q", scope)
	}
	if scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " "); strings.EqualFold(scheme, "Bearer") {
		reason := "invalid_token"
		if _, err := a.Identify(r); err == nil {
			reason = "insufficient_scope"
		}
		text += fmt.Sprintf(",error=%q", reason)
	}
	return text
}

// CatalogScope stands for the list of all repositories where the name of a
// repository is expected, in Challenge.
const CatalogScope = "registry:catalog:*"

func scopeOf(repository string, need Rights) string {
	switch repository {
	case "":
		return ""
	case CatalogScope:
		return CatalogScope
	}
	return "repository:" + repository + ":" + strings.Join(need.Actions(), ",")
}

// BaseURL is scheme and host as the client of the request wrote them.
func BaseURL(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || r.URL.Scheme == "https" {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}

func (a *Access) realm(r *http.Request) string {
	if a.opts.Realm != "" {
		return a.opts.Realm
	}
	return BaseURL(r) + "/token"
}
