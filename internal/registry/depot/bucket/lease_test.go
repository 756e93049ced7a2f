package bucket

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
)

// as are the options of another process, with a lease short enough to wait for.
func as(o Options, owner string) Options {
	o.Owner, o.Lease = owner, 300*time.Millisecond
	return o
}

// What a person would lose: the content of a bucket two registries collect
// garbage in, each of which knows nothing of the other's pushes.
func TestOneProcessForABucket(t *testing.T) {
	for _, conditions := range []string{"", "ignored", "refused"} {
		t.Run("conditions "+conditions, func(t *testing.T) {
			s, o := server(t)
			s.Conditions = conditions
			o.Lease = time.Minute
			first := open(t, o)
			other := o
			other.Owner = "other"
			_, err := Open(ctx, other)
			if !errors.Is(err, errdefs.ErrConflict) {
				t.Fatalf("a second process opens it: %v", err)
			}
			t.Log(err)
			if err := first.PutRecord(ctx, "a/b", nil); err != nil {
				t.Error(err)
			}
			again := open(t, o) // after a crash, under the name it had
			if err := again.PutRecord(ctx, "a/b", nil); err != nil {
				t.Error(err)
			}
			if err := again.Close(); err != nil {
				t.Error(err)
			}
			open(t, other) // at once
		})
	}
}

// valve cuts a process off from the server.
type valve struct{ shut atomic.Bool }

func (v *valve) RoundTrip(r *http.Request) (*http.Response, error) {
	if v.shut.Load() {
		return nil, io.ErrUnexpectedEOF
	}
	return http.DefaultTransport.RoundTrip(r)
}

// A process that was cut off, or stopped, for longer than others wait has lost
// the bucket and may not write to it, whatever it believes.
func TestWhoIsNotHeardOfLosesTheBucket(t *testing.T) {
	for _, conditions := range []string{"", "ignored"} {
		t.Run("conditions "+conditions, func(t *testing.T) {
			s, o := server(t)
			s.Conditions = conditions
			v := &valve{}
			o = as(o, "first")
			o.Transport = v
			first := open(t, o)
			// As long as it is heard of nobody gets it: entity times have whole
			// seconds in HTTP, so a longer lease is asked for than it has.
			patient := as(o, "patient")
			patient.Transport, patient.Lease = nil, time.Minute
			if _, err := Open(ctx, patient); !errors.Is(err, errdefs.ErrConflict) {
				t.Fatalf("a second process opens it: %v", err)
			}
			v.shut.Store(true)
			second := as(o, "second")
			second.Transport, second.Lease = nil, 3*time.Second
			var b *Bucket
			for deadline := time.Now().Add(30 * time.Second); b == nil; {
				got, err := Open(ctx, second)
				if err == nil {
					b = got
				} else if !errors.Is(err, errdefs.ErrConflict) || time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() { b.Close() })
			v.shut.Store(false)
			if err := first.PutRecord(ctx, "a/b", []byte("x")); err == nil {
				t.Error("both write to the bucket")
			}
			select {
			case <-first.Lost():
			case <-time.After(30 * time.Second):
				t.Error("the first does not learn of it")
			}
			if err := first.DeleteRecord(ctx, "a/b"); !errors.Is(err, errdefs.ErrConflict) {
				t.Errorf("after it has learned of it: %v", err)
			}
			if err := b.PutRecord(ctx, "a/b", []byte("y")); err != nil {
				t.Errorf("the second cannot write: %v", err)
			}
			first.Close()
			if err := b.PutRecord(ctx, "a/b", []byte("z")); err != nil {
				t.Errorf("the end of the first took the bucket from the second: %v", err)
			}
		})
	}
}

// What a person would lose: a registry that only hands out, with a key that can do
// no more.
func TestAKeyThatMayOnlyRead(t *testing.T) {
	s, o := server(t)
	b := open(t, o)
	if err := b.PutRecord(ctx, "a/b", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	s.Mu.Lock()
	s.Denied = true
	s.Mu.Unlock()
	if _, err := Open(ctx, o); err == nil {
		t.Error("a registry that takes pushes opens a bucket it cannot write to")
	}
	o.ReadOnly = true
	b = open(t, o)
	if got, err := b.Record(ctx, "a/b"); err != nil || string(got) != "x" {
		t.Errorf("%q %v", got, err)
	}
	if err := b.PutRecord(ctx, "a/b", nil); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("writing: %v", err)
	}
}
