package depot

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// What a person would lose: the memory of the machine, to who asks for blobs that
// are not there, for as long as it takes to the next collection.
func TestWhatIsNotThereIsNotHeld(t *testing.T) {
	h := NewHolds()
	ctx := context.Background()
	missing := func() error { return BlobUnknown("r", "sha256:x") }
	for i := range 1000 {
		if err := h.Look(ctx, "r", digest.FromString(fmt.Sprint(i)), missing); !errors.Is(err, errdefs.ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := len(h.held); n != 0 {
		t.Errorf("%d things that are not there are held", n)
	}
	// What is there is, and what somebody else was told meanwhile, or before.
	there, meanwhile, before := digest.FromString("there"), digest.FromString("meanwhile"), digest.FromString("before")
	past := time.Now().Add(-time.Second)
	h.opened = past.Add(-time.Second)
	if err := h.Look(ctx, "r", there, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := h.Look(ctx, "r", meanwhile, func() error { return errors.Join(h.Hold(ctx, "r", meanwhile), missing()) }); err == nil {
		t.Fatal("it was found")
	}
	if err := h.Hold(ctx, "r", before); err != nil {
		t.Fatal(err)
	}
	if err := h.Look(ctx, "r", before, missing); err == nil {
		t.Fatal("it was found")
	}
	for _, dgst := range []digest.Digest{there, meanwhile, before} {
		if done := h.Dropping("r", dgst, past); done != nil {
			done()
			t.Errorf("%s may be dropped", dgst)
		}
	}
}
