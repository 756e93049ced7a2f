package access

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/go-jose/go-jose/v4/jwt"
)

// What a person would lose: the limit on guesses, to who sends all of them at
// once, before the first one has failed.
func TestGuessesAtOnceAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := open(t, Options{Htpasswd: htpasswd(t, line(t, "ann", "secret"))})
		for range cap(a.accounts.gate) {
			a.accounts.gate <- struct{}{}
		}
		const guesses = 10 * freeFailures
		results := make(chan error, guesses)
		for range guesses {
			r := basic("ann", "wrong")
			r.RemoteAddr = "192.0.2.1:1000"
			go func() {
				_, err := a.Identify(r)
				results <- err
			}()
		}
		synctest.Wait() // all of them were let in, and none has been checked
		for range cap(a.accounts.gate) {
			<-a.accounts.gate
		}
		checked := 0
		for range guesses {
			if err := <-results; errdefs.IsUnauthorized(err) {
				checked++
			}
		}
		if most := freeFailures + cap(a.accounts.gate) - 1; checked > most {
			t.Errorf("%d passwords were tried at once, not %d", checked, most)
		}
	})
}

// What a person would lose: the memory of the registry, to who has no account.
func TestLongNamesAreNotKept(t *testing.T) {
	a := open(t, Options{Htpasswd: htpasswd(t, line(t, "ann", "secret"))})
	if _, err := a.Identify(basic(strings.Repeat("x", 1<<19), "wrong")); !errdefs.IsUnauthorized(err) {
		t.Fatal(err)
	}
	for key := range a.throttle.counts {
		if len(key) > 2*longestUser {
			t.Errorf("a name of %d bytes is kept", len(key))
		}
	}
}

func TestLongTokensAreNotKept(t *testing.T) {
	a, _ := forTokens(t)
	grants := []grant{}
	for range maxScopes {
		grants = append(grants, grant{Type: "repository", Name: strings.Repeat("x", 4000), Actions: []string{"pull"}})
	}
	c := &claims{Access: grants, Use: useAccess}
	c.Audience = jwt.Audience{a.issuer.service}
	token, err := a.issuer.sign(c, time.Now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.issuer.verify(token, useAccess, a.issuer.service, time.Now()); err != nil {
		t.Fatal(err)
	}
	if n := len(a.issuer.known); n != 0 {
		t.Errorf("%d tokens of %d bytes are kept", n, len(token))
	}
}
