package access

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/gantry-containers/gantry/internal/errs"
)

// sessionCookie holds the session of a browser: a token of ours that is good for
// the pages and the API below them, not for pushing and pulling.
const sessionCookie = "gantry_session"

// SignsIn tells whether SignIn can ever succeed: where there are accounts.
func (a *Access) SignsIn() bool { return a.accounts != nil }

// SignIn checks the password and gives the browser a session of twelve hours,
// which ends early by SignOut and when the password changes. Errors are those of
// Identify.
func (a *Access) SignIn(w http.ResponseWriter, r *http.Request, user, password string) error {
	id, err := a.login(r, user, password)
	if err != nil {
		return err
	}
	if id.User == "" {
		return errs.Unauthorized("incorrect username or password")
	}
	c := &claims{Use: useSession, Password: a.accounts.tag(id.User)}
	c.Subject, c.Audience = id.User, jwt.Audience{a.issuer.service}
	token, err := a.issuer.sign(c, a.now(), sessionLifetime)
	if err != nil {
		return err
	}
	setCookie(w, r, token, sessionLifetime)
	return nil
}

// SignOut has the browser forget its session, and ends it for whoever else has
// the cookie.
func (a *Access) SignOut(w http.ResponseWriter, r *http.Request) error {
	setCookie(w, r, "", -time.Second)
	c := a.session(r)
	if c == nil {
		return nil
	}
	a.forgetEnded()
	if err := a.end(c); err != nil {
		return errs.System("the session could not be ended: %w", err)
	}
	return nil
}

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
	_, err := r.Cookie(sessionCookie)
	if r.Header.Get("Authorization") != "" || err != nil || a.issuer == nil {
		return a.Identify(r)
	}
	c := a.session(r)
	if c == nil {
		return Identity{}, nil
	}
	return Identity{User: c.Subject}, nil
}

// session is the one the request comes with, or nil when there is none that
// holds.
func (a *Access) session(r *http.Request) *claims {
	cookie, err := r.Cookie(sessionCookie)
	if err != nil || a.issuer == nil {
		return nil
	}
	c, err := a.issuer.verify(cookie.Value, useSession, a.issuer.service, a.now())
	if err != nil || !a.accounts.current(c.Subject, c.Password) || a.ended(c) {
		return nil
	}
	return c
}

// Sessions that were ended before their time are empty files beside the key,
// called as the session's ID, until they would have ended anyway. So they stay
// ended through a restart and a reload, which makes a new Access.
func (a *Access) endedDir() string { return filepath.Join(a.opts.KeyDir, "ended") }

func (a *Access) ended(c *claims) bool {
	_, err := os.Lstat(filepath.Join(a.endedDir(), c.ID))
	return !errors.Is(err, fs.ErrNotExist)
}

func (a *Access) end(c *claims) error {
	if err := os.MkdirAll(a.endedDir(), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(a.endedDir(), c.ID), nil, 0o600); err != nil {
		return err
	}
	dir, err := os.Open(a.endedDir())
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// forgetEnded removes what no session needs any longer. What it fails to remove,
// the next one does.
func (a *Access) forgetEnded() {
	entries, err := os.ReadDir(a.endedDir())
	if err != nil {
		return // there are none yet
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && a.now().Sub(info.ModTime()) > sessionLifetime {
			_ = os.Remove(filepath.Join(a.endedDir(), e.Name()))
		}
	}
}
