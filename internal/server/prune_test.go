package server

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// A prune of the system fails as a whole when the engine knows no build cache;
// the answers are those of Docker Engine with an empty one.
func TestPruneOfNoBuildCache(t *testing.T) {
	f := newFixture()
	for _, test := range []struct {
		query, filters string
		status         int
	}{
		{"", "", 200},
		{"all=1&keep-storage=0", "", 200},
		{"reserved-space=1&max-used-space=2&min-free-space=3", `{"until":["24h"],"label":["a"],"label!":["b"]}`, 200},
		{"keep-storage=much", "", 400},
		{"", `{"until":["soon"]}`, 400},
		{"", `{"until":["1h","2h"]}`, 400},
		{"", `{"id":["a","b"]}`, 400},
		{"", `{"nonsense":["a"]}`, 400},
		{"", `{`, 400},
	} {
		a := f.ask(http.MethodPost, "/v1.50/build/prune?"+test.query+"&filters="+url.QueryEscape(test.filters), "")
		body := strings.TrimSpace(a.Body.String())
		if a.Code != test.status || a.Code == 200 && body != `{"CachesDeleted":null,"SpaceReclaimed":0}` {
			t.Errorf("%s %s: %d %s", test.query, test.filters, a.Code, body)
		}
	}
	if a := f.ask(http.MethodPost, "/v1.30/build/prune", ""); a.Code != 404 {
		t.Errorf("before it was there: %d", a.Code)
	}
}
