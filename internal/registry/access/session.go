package access

import (
	"net/http"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// sessionCookie holds the session of a browser: a token of ours that is good for
// the pages and the API below them, not for pushing and pulling.
const sessionCookie = "gantry_session"

// SignsIn tells whether SignIn can ever succeed: where there are accounts.
func (a *Access) SignsIn() bool { return a.accounts != nil }

// SignIn checks the password and gives the browser a session of twelve hours,
// which ends early when the password changes. Errors are those of Identify.
func (a *Access) SignIn(w http.ResponseWriter, r *http.Request, user, password string) error {
	id, err := a.login(r, user, password)
	if err != nil {
		return err
	}
	if id.User == "" {
		return errs.Unauthorized("incorrect username or password")
	}
	c := &claims{Use: useSession, Password: a.accounts.tag(id.User)}
	c.Subject = id.User
	token, err := a.issuer.sign(c, a.now(), sessionLifetime)
	if err != nil {
		return err
	}
	setCookie(w, r, token, sessionLifetime)
	return nil
}

// SignOut has the browser forget its session.
func (a *Access) SignOut(w http.ResponseWriter, r *http.Request) { setCookie(w, r, "", -time.Second) }

func setCookie(w http.ResponseWriter, r *http.Request, value string, age time.Duration) {
	http.SetCookie(w, &http.Cookie{
		Name: sessionCookie, Value: value, Path: "/", MaxAge: int(age / time.Second),
		HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.URL.Scheme == "https",
	})
}

// IdentifyBrowser is Identify for the pages and their API, where a session
// counts too. A session that has ended is an anonymous identity.
func (a *Access) IdentifyBrowser(r *http.Request) (Identity, error) {
	cookie, err := r.Cookie(sessionCookie)
	if r.Header.Get("Authorization") != "" || err != nil || a.issuer == nil {
		return a.Identify(r)
	}
	c, err := a.issuer.verify(cookie.Value, useSession, a.now())
	if err != nil || !a.accounts.current(c.Subject, c.Password) {
		return Identity{}, nil
	}
	return Identity{User: c.Subject, claims: c}, nil
}
