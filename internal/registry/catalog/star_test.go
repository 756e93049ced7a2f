package catalog

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
)

// What a person would lose: the disk of a registry nobody may push to, to who
// gives a star again and again as another browser.
func TestStarsOfBrowsersHaveAnEnd(t *testing.T) {
	d, err := directory.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	e := &entry{Name: "r"}
	c := &Catalog{depot: d, log: slog.New(slog.DiscardHandler), entries: map[string]*entry{"r": e}}
	for i := range maxBrowsers - 1 {
		e.star(voter(browserVoter, fmt.Sprint(i)))
	}
	if err := c.Star(t.Context(), "r", voter(browserVoter, "last"), true); err != nil {
		t.Fatal(err)
	}
	if err := c.Star(t.Context(), "r", voter(browserVoter, "more"), true); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("one more: %v", err)
	}
	if err := c.Star(t.Context(), "r", voter(userVoter, "ann"), true); err != nil {
		t.Errorf("an account: %v", err)
	}
	if err := c.Star(t.Context(), "r", voter(browserVoter, "last"), false); err != nil {
		t.Errorf("taking one back: %v", err)
	}
}
