package access

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/crypto/bcrypt"
)

func line(t testing.TB, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + string(hash) + "\n"
}

// write replaces the file by a rename, as an editor does.
func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, o Options) *Access {
	t.Helper()
	if o.KeyDir == "" {
		o.KeyDir = filepath.Join(t.TempDir(), "keys")
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func htpasswd(t testing.TB, lines ...string) string {
	path := filepath.Join(t.TempDir(), "htpasswd")
	write(t, path, strings.Join(lines, ""))
	return path
}

func basic(user, password string) *http.Request {
	r := httptest.NewRequest("GET", "http://registry.test/v2/", nil)
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	return r
}

func bearer(token string) *http.Request {
	r := httptest.NewRequest("GET", "http://registry.test/v2/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

func TestPasswordsOfTheFile(t *testing.T) {
	path := htpasswd(t, "# people\n", line(t, "ann", "secret"), "\n", line(t, "bob", "b:o:b"))
	a := open(t, Options{Htpasswd: path})
	for _, c := range []struct {
		user, password string
		ok             bool
	}{
		{"ann", "secret", true}, {"ann", "secret", true}, {"bob", "b:o:b", true},
		{"ann", "Secret", false}, {"ann", "", false}, {"eve", "secret", false}, {"eve", "", false},
	} {
		id, err := a.Identify(basic(c.user, c.password))
		if (err == nil) != c.ok {
			t.Errorf("%s:%s: %v", c.user, c.password, err)
		}
		if err == nil && id.User != c.user {
			t.Errorf("%s is taken for %q", c.user, id.User)
		}
		if err != nil && !errors.Is(err, errdefs.ErrUnauthenticated) {
			t.Errorf("%s:%s: %v is no refusal", c.user, c.password, err)
		}
	}
}

// What a person would lose: an employee who left goes on pushing, because the
// password he had is remembered.
func TestAChangedFileCountsAtOnce(t *testing.T) {
	path := htpasswd(t, line(t, "ann", "old"), line(t, "bob", "bob"))
	a := open(t, Options{Htpasswd: path})
	for _, user := range []string{"ann:old", "bob:bob"} {
		name, password, _ := strings.Cut(user, ":")
		if _, err := a.Identify(basic(name, password)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, path, line(t, "ann", "new"))
	for _, c := range []struct {
		user, password string
		ok             bool
	}{{"ann", "old", false}, {"ann", "new", true}, {"bob", "bob", false}} {
		if _, err := a.Identify(basic(c.user, c.password)); (err == nil) != c.ok {
			t.Errorf("%s:%s after the change: %v", c.user, c.password, err)
		}
	}
	// A file that is broken for a moment locks nobody out.
	write(t, path, "ann:$apr1$notbcrypt\n")
	if _, err := a.Identify(basic("ann", "new")); err != nil {
		t.Errorf("a broken file took the accounts away: %v", err)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		"ann":                   "line 1 is not USER:HASH",
		"ann:{SHA}x":            `the password of "ann" is not hashed with bcrypt`,
		"anonymous:$2y$05$abcd": "has a meaning of its own",
	} {
		_, err := New(Options{Htpasswd: htpasswd(t, text), KeyDir: t.TempDir()})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// What a person would lose: a password of eight letters, by trying all of them.
func TestGuessingIsSlowed(t *testing.T) {
	a := open(t, Options{Htpasswd: htpasswd(t, line(t, "ann", "secret"), line(t, "bob", "bob"))})
	now := time.Now()
	a.now = func() time.Time { return now }
	guess := func(address, user, password string) error {
		r := basic(user, password)
		r.RemoteAddr = address
		_, err := a.Identify(r)
		return err
	}
	var throttled *ThrottledError
	for i := range freeFailures {
		if err := guess("192.0.2.1:1000", "eve", "x"); errors.As(err, &throttled) {
			t.Fatalf("refused after %d guesses", i)
		}
	}
	if err := guess("192.0.2.1:2000", "ann", "secret"); !errors.As(err, &throttled) {
		t.Fatalf("not slowed: %v", err)
	}
	if !errors.Is(throttled, errdefs.ErrResourceExhausted) || throttled.RetryAfter <= 0 {
		t.Errorf("refused with %#v", throttled)
	}
	if err := guess("192.0.2.2:1000", "ann", "secret"); err != nil {
		t.Errorf("another address pays for it: %v", err)
	}
	now = now.Add(throttled.RetryAfter)
	if err := guess("192.0.2.1:2000", "bob", "bob"); err != nil {
		t.Errorf("still refused after the time that was named: %v", err)
	}
	// One network of IPv6 is one guesser.
	for range freeFailures {
		_ = guess("[2001:db8::1]:1", "eve2", "x")
	}
	if err := guess("[2001:db8::2]:1", "bob", "wrong"); !errors.As(err, &throttled) {
		t.Errorf("a neighbour address in the same /64 is free: %v", err)
	}
}

// A user whose password is guessed from everywhere is not locked out.
func TestAUserIsNotLockedOutByOthers(t *testing.T) {
	a := open(t, Options{Htpasswd: htpasswd(t, line(t, "ann", "secret"))})
	for i := range freeFailures + 2 {
		r := basic("ann", "wrong")
		r.RemoteAddr = "192.0.2." + string(rune('0'+i%10)) + ":1"
		_, _ = a.Identify(r)
	}
	r := basic("ann", "secret")
	r.RemoteAddr = "198.51.100.1:1"
	if _, err := a.Identify(r); err != nil {
		t.Error(err)
	}
	// The wait ends when the client goes away.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r = basic("ann", "another").WithContext(ctx)
	r.RemoteAddr = "198.51.100.2:1"
	if _, err := a.Identify(r); !errors.Is(err, context.Canceled) {
		t.Errorf("went on for a client that was gone: %v", err)
	}
}

func TestRules(t *testing.T) {
	a := open(t, Options{
		Htpasswd: htpasswd(t, line(t, "ann", "a"), line(t, "bob", "b"), line(t, "a*b", "c")),
		Groups:   map[string][]string{"dev": {"bob"}},
		Rules: []Rule{
			{[]string{"public/**", "hello"}, []string{"anonymous"}, []string{"read"}},
			{[]string{"**"}, []string{"ann"}, []string{"read", "write", "delete"}},
			{[]string{"team/*"}, []string{"@dev"}, []string{"write"}},
			{[]string{"home/${user}/**"}, []string{"*"}, []string{"write", "delete"}},
		},
	})
	for _, c := range []struct {
		user, repository string
		want             Rights
	}{
		{"", "public/a/b", Read}, {"", "public", 0}, {"", "hello", Read}, {"", "hello/x", 0}, {"", "publicity", 0},
		{"ann", "anything/at/all", All}, {"ann", "hello", All},
		{"bob", "team/app", Read | Write}, {"bob", "team/app/sub", 0}, {"bob", "team", 0}, {"bob", "hello", Read},
		{"bob", "home/bob/x", All}, {"bob", "home/ann/x", 0}, {"bob", "home/bob", 0},
		{"a*b", "home/aXb/x", 0}, {"", "home//x", 0},
	} {
		if got := a.Rights(Identity{User: c.user}, c.repository); got != c.want {
			t.Errorf("%q may %v with %s, want %v", c.user, got.Actions(), c.repository, c.want.Actions())
		}
	}
	for _, bad := range []Rule{
		{}, {[]string{"a"}, []string{"@nobody"}, []string{"read"}}, {[]string{"a**"}, []string{"*"}, []string{"read"}},
		{[]string{"**/a"}, []string{"*"}, []string{"read"}}, {[]string{"["}, []string{"*"}, []string{"read"}},
		{[]string{"a"}, []string{"*"}, []string{"push"}},
	} {
		if _, err := compile([]Rule{bad}, nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("the rule %+v is taken: %v", bad, err)
		}
	}
}

func fetch(t *testing.T, a *Access, r *http.Request) (int, tokenAnswer) {
	t.Helper()
	w := httptest.NewRecorder()
	a.ServeToken(w, r)
	var answer tokenAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return w.Code, answer
}

func get(query, user, password string) *http.Request {
	r := httptest.NewRequest("GET", "http://registry.test/token?"+query, nil)
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	return r
}

func post(form url.Values) *http.Request {
	r := httptest.NewRequest("POST", "http://registry.test/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func forTokens(t *testing.T) (*Access, string) {
	path := htpasswd(t, line(t, "ann", "a"), line(t, "bob", "b"))
	return open(t, Options{Htpasswd: path, Service: "registry.test", Rules: []Rule{
		{[]string{"pub/**"}, []string{anonymous}, []string{"read"}},
		{[]string{"**"}, []string{"ann"}, []string{"read", "write", "delete"}},
	}}), path
}

// The Docker registry token specification, "Requesting a Token": less than what
// was asked is no error.
func TestTokensGiveWhatTheUserMay(t *testing.T) {
	a, _ := forTokens(t)
	scope := "scope=repository:pub/x:pull,push&scope=repository:priv:pull+registry:catalog:*"
	for _, c := range []struct{ user, password, want string }{
		{"ann", "a", "repository:pub/x:pull,push repository:priv:pull registry:catalog:*"},
		{"bob", "b", "repository:pub/x:pull registry:catalog:*"},
		{"", "", "repository:pub/x:pull registry:catalog:*"},
	} {
		status, answer := fetch(t, a, get(scope, c.user, c.password))
		if status != 200 || answer.Token == "" || answer.Token != answer.AccessToken || answer.ExpiresIn < 60 {
			t.Fatalf("%s: %d %+v", c.user, status, answer)
		}
		id, err := a.Identify(bearer(answer.Token))
		if err != nil || id.User != c.user {
			t.Fatalf("%s: %+v %v", c.user, id, err)
		}
		if got := spell(id.claims.Access); got != c.want {
			t.Errorf("%q got %s, want %s", c.user, got, c.want)
		}
	}
	if status, _ := fetch(t, a, get(scope, "ann", "wrong")); status != 401 {
		t.Errorf("a wrong password: %d", status)
	}
}

func TestATokenIsForNothingElse(t *testing.T) {
	a, path := forTokens(t)
	_, answer := fetch(t, a, get("scope=repository:one:pull&offline_token=true", "ann", "a"))
	authorize := func(token, repository string, need Rights) error {
		_, err := a.Authorize(bearer(token), repository, need)
		return err
	}
	if err := authorize(answer.Token, "one", Read); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		why, token, repository string
		need                   Rights
	}{
		{"another repository", answer.Token, "two", Read},
		{"more than was asked", answer.Token, "one", Write},
		{"a refresh token is no access token", answer.RefreshToken, "one", Read},
		{"cut", answer.Token[:len(answer.Token)-4], "one", Read},
		{"no signature", answer.Token[:strings.LastIndexByte(answer.Token, '.')+1], "one", Read},
		{"nothing", "", "one", Read},
	} {
		if err := authorize(c.token, c.repository, c.need); !errors.Is(err, errdefs.ErrUnauthenticated) {
			t.Errorf("%s: %v", c.why, err)
		}
	}
	other := open(t, Options{Htpasswd: path})
	if _, err := other.Authorize(bearer(answer.Token), "one", Read); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("a token of another registry holds here: %v", err)
	}
	now := time.Now()
	a.now = func() time.Time { return now.Add(8 * time.Minute) }
	if err := authorize(answer.Token, "one", Read); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("the token does not end: %v", err)
	}
	a.now = time.Now
	write(t, path, line(t, "ann", "changed"))
	if err := authorize(answer.Token, "one", Read); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("the token survives the password: %v", err)
	}
}

// docker login keeps a refresh token instead of the password.
func TestRefreshTokens(t *testing.T) {
	a, path := forTokens(t)
	form := url.Values{"grant_type": {"password"}, "username": {"ann"}, "password": {"a"},
		"service": {"registry.test"}, "client_id": {"docker"}, "access_type": {"offline"}}
	status, login := fetch(t, a, post(form))
	if status != 200 || login.RefreshToken == "" {
		t.Fatalf("%d %+v", status, login)
	}
	refresh := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {login.RefreshToken},
		"service": {"registry.test"}, "client_id": {"docker"}, "scope": {"repository:x:pull,push repository:y:pull"}}
	status, answer := fetch(t, a, post(refresh))
	if status != 200 || answer.Scope != "repository:x:pull,push repository:y:pull" || answer.RefreshToken != login.RefreshToken {
		t.Fatalf("%d %+v", status, answer)
	}
	if _, err := a.Authorize(bearer(answer.AccessToken), "y", Read); err != nil {
		t.Error(err)
	}
	refresh.Set("refresh_token", answer.AccessToken)
	if status, _ := fetch(t, a, post(refresh)); status != 401 {
		t.Errorf("an access token refreshes: %d", status)
	}
	refresh.Set("refresh_token", login.RefreshToken)
	write(t, path, line(t, "ann", "changed"))
	if status, _ := fetch(t, a, post(refresh)); status != 401 {
		t.Errorf("the refresh token survives the password: %d", status)
	}
	if status, _ := fetch(t, a, post(url.Values{"grant_type": {"authorization_code"}})); status != 400 {
		t.Errorf("an unknown grant: %d", status)
	}
}

func TestChallenges(t *testing.T) {
	a, _ := forTokens(t)
	_, answer := fetch(t, a, get("scope=repository:one:pull", "ann", "a"))
	for _, c := range []struct {
		r    *http.Request
		want string
	}{
		{basic("", ""), `Bearer realm="http://registry.test/token",service="registry.test",scope="repository:one:pull,push"`},
		{bearer(answer.Token), `Bearer realm="http://registry.test/token",service="registry.test",scope="repository:one:pull,push",error="insufficient_scope"`},
		{bearer("x.y.z"), `Bearer realm="http://registry.test/token",service="registry.test",scope="repository:one:pull,push",error="invalid_token"`},
	} {
		if got := a.Challenge(c.r, "one", Read|Write); got != c.want {
			t.Errorf("got %s\nwant %s", got, c.want)
		}
	}
	if _, err := a.Authorize(basic("", ""), "", 0); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("nobody is let past /v2/ without being asked for a token: %v", err)
	}
	plain := open(t, Options{Htpasswd: htpasswd(t, line(t, "ann", "a"))})
	if got := plain.Challenge(basic("", ""), "one", Read); got != `Basic realm="registry"` {
		t.Error(got)
	}
	if _, err := plain.Authorize(basic("ann", "a"), "x", All); err != nil {
		t.Error(err)
	}
}

// A session is for the pages: it must not push, even when a page makes the
// browser try.
func TestSessionsAreForPages(t *testing.T) {
	a, path := forTokens(t)
	w := httptest.NewRecorder()
	if err := a.SignIn(w, basic("", ""), "ann", "wrong"); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Fatalf("signed in with a wrong password: %v", err)
	}
	if err := a.SignIn(w, basic("", ""), "ann", "a"); err != nil {
		t.Fatal(err)
	}
	cookie := w.Result().Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode {
		t.Errorf("the cookie is open to scripts or other sites: %+v", cookie)
	}
	r := basic("", "")
	r.AddCookie(cookie)
	id, err := a.IdentifyBrowser(r)
	if err != nil || id.User != "ann" || !a.MayRead(id, "anything") {
		t.Errorf("%+v %v", id, err)
	}
	if id, _ := a.Identify(r); id.User != "" {
		t.Error("a session counts where images are pushed")
	}
	if _, err := a.Identify(bearer(cookie.Value)); !errors.Is(err, errdefs.ErrUnauthenticated) {
		t.Errorf("a session is taken for a token: %v", err)
	}
	write(t, path, line(t, "ann", "changed"))
	if id, _ := a.IdentifyBrowser(r); id.User != "" {
		t.Error("the session survives the password")
	}
}

// What a person would lose: the account, to whoever copied the cookie on a shared
// machine before he signed out, also after the registry was started anew.
func TestSigningOutEndsTheSession(t *testing.T) {
	path, keys := htpasswd(t, line(t, "ann", "a")), filepath.Join(t.TempDir(), "keys")
	a := open(t, Options{Htpasswd: path, KeyDir: keys})
	signIn := func() *http.Request {
		w, r := httptest.NewRecorder(), basic("", "")
		if err := a.SignIn(w, r, "ann", "a"); err != nil {
			t.Fatal(err)
		}
		r.AddCookie(w.Result().Cookies()[0])
		return r
	}
	first, second := signIn(), signIn()
	w := httptest.NewRecorder()
	if err := a.SignOut(w, first); err != nil {
		t.Fatal(err)
	}
	if c := w.Result().Cookies()[0]; c.MaxAge >= 0 || c.Value != "" {
		t.Errorf("the browser keeps %+v", c)
	}
	for _, where := range []*Access{a, open(t, Options{Htpasswd: path, KeyDir: keys})} {
		if id, err := where.IdentifyBrowser(first); err != nil || id.User != "" {
			t.Errorf("the session goes on after signing out: %+v %v", id, err)
		}
		if id, err := where.IdentifyBrowser(second); err != nil || id.User != "ann" {
			t.Errorf("signing out ended another session: %+v %v", id, err)
		}
	}
	// What nobody signed leaves nothing behind, and what has passed is removed.
	forged := basic("", "")
	forged.AddCookie(&http.Cookie{Name: sessionCookie, Value: "a.b.c"})
	later := time.Now().Add(sessionLifetime + time.Minute)
	a.now = func() time.Time { return later }
	third := signIn()
	for _, r := range []*http.Request{forged, third} {
		if err := a.SignOut(httptest.NewRecorder(), r); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(keys, "ended"))
	if err != nil || len(entries) != 1 {
		t.Errorf("%d sessions are remembered as ended, want 1 (%v)", len(entries), err)
	}
}

// What a person would lose: what he may read here, to another registry for which
// this one makes tokens, by the token he sent there.
func TestATokenForAnotherServiceIsNoTokenHere(t *testing.T) {
	for _, service := range []string{"", "registry.test"} {
		a := open(t, Options{Htpasswd: htpasswd(t, line(t, "ann", "a")), Tokens: true, Service: service})
		_, answer := fetch(t, a, get("service=other.test&scope=repository:x:pull&offline_token=true", "ann", "a"))
		r := bearer(answer.Token)
		r.Host = "other.test" // what a client says must not decide
		if _, err := a.Authorize(r, "x", Read); !errors.Is(err, errdefs.ErrUnauthenticated) {
			t.Errorf("service %q: a token for other.test holds here: %v", service, err)
		}
		refresh := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {answer.RefreshToken}, "scope": {"repository:x:pull"}}
		if status, _ := fetch(t, a, post(refresh)); status != 401 {
			t.Errorf("service %q: a refresh token for other.test is good for this registry: %d", service, status)
		}
		refresh.Set("service", "other.test")
		if status, _ := fetch(t, a, post(refresh)); status != 200 {
			t.Errorf("service %q: a refresh token is not good for its own service: %d", service, status)
		}
		// The one the challenge names is.
		_, named, _ := strings.Cut(a.Challenge(basic("", ""), "x", Read), `service="`)
		named, _, _ = strings.Cut(named, `"`)
		_, answer = fetch(t, a, get("service="+named+"&scope=repository:x:pull", "ann", "a"))
		if _, err := a.Authorize(bearer(answer.Token), "x", Read); err != nil {
			t.Errorf("service %q: a token for %s does not hold: %v", service, named, err)
		}
	}
}

// What a person would lose: the names and descriptions of all his repositories,
// to a job that was given a token for one of them.
func TestATokenShowsWhatItNames(t *testing.T) {
	a, _ := forTokens(t)
	for _, c := range []struct {
		scope      string
		list, x, y bool
	}{
		{"repository:x:pull", false, true, false},
		{"repository:x:push", false, false, false},
		{"registry:catalog:*", true, true, true},
		{"registry:catalog:search", true, true, true},
	} {
		_, answer := fetch(t, a, get("scope="+c.scope, "ann", "a"))
		id, err := a.Identify(bearer(answer.Token))
		if err != nil {
			t.Fatal(err)
		}
		if x, y := a.MayRead(id, "x"), a.MayRead(id, "y"); x != c.x || y != c.y {
			t.Errorf("a token for %s shows x: %v, y: %v", c.scope, x, y)
		}
		if _, err := a.Authorize(bearer(answer.Token), CatalogScope, 0); (err == nil) != c.list {
			t.Errorf("the list for a token for %s: %v", c.scope, err)
		}
	}
}

func TestTheKeyIsKept(t *testing.T) {
	path, keys := htpasswd(t, line(t, "ann", "a")), filepath.Join(t.TempDir(), "keys")
	first := open(t, Options{Htpasswd: path, KeyDir: keys})
	_, answer := fetch(t, first, get("scope=repository:x:pull", "ann", "a"))
	second := open(t, Options{Htpasswd: path, KeyDir: keys})
	if _, err := second.Authorize(bearer(answer.Token), "x", Read); err != nil {
		t.Errorf("a restart ended the tokens: %v", err)
	}
	info, err := os.Stat(filepath.Join(keys, "token.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

func TestWithoutAccountsEverybodyMay(t *testing.T) {
	a := open(t, Options{})
	if _, err := a.Authorize(basic("any", "body"), "x", All); err != nil {
		t.Error(err)
	}
}
