package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// interrupted pushes a blob until so many bytes are at the registry, and returns
// where it was being sent to.
func interrupted(t *testing.T, u *uploads, after int64, remembered bool) (session string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	u.accident = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		defer cancel()
		u.cut(r, after)
		return true
	}
	_, desc, open := blobOf(1<<20, 7)
	o := PushOptions{}
	if remembered {
		o.Sending = func(s string) { session = s }
	}
	repo := repository(t, New(Options{Backoff: time.Millisecond}), u.host()+"/team/web", nil)
	if _, err := repo.PushBlob(ctx, desc, open, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("the push that was given up ended with %v", err)
	}
	u.accident = nil
	return session
}

// A push that was interrupted, with its whole process maybe, goes on where it
// stopped, and says so.
func TestUploadGoesOn(t *testing.T) {
	u := newUploads(t)
	session := interrupted(t, u, 700_000, true)
	if session == "" || len(u.sessions) != 1 {
		t.Fatalf("%q is remembered, and the registry has %d uploads", session, len(u.sessions))
	}
	data, desc, open := blobOf(1<<20, 7)
	var told []string
	var said string
	o := PushOptions{Session: session, Sending: func(s string) { told = append(told, s) }}
	ctx := WithNotices(t.Context(), func(s string) { said += s })
	got, err := repository(t, New(Options{}), u.host()+"/team/web", nil).PushBlob(ctx, desc, open, o)
	if want := (PushResult{Outcome: Uploaded, Resumed: 700_000}); err != nil || got != want {
		t.Errorf("pushed as %+v, %v", got, err)
	}
	if !bytes.Equal(u.blobs[desc.Digest.String()], data) || u.received != desc.Size {
		t.Errorf("the registry received %d bytes of %d", u.received, desc.Size)
	}
	if len(told) == 0 || told[len(told)-1] != "" {
		t.Errorf("of the upload that is over is remembered %q", told)
	}
	if !strings.Contains(said, "has 700kB of blob "+desc.Digest.String()+" since an earlier push") {
		t.Errorf("the person hears %q", said)
	}
}

// Nothing is left at the registry of a push that nobody remembers.
func TestUploadIsGivenUp(t *testing.T) {
	u := newUploads(t)
	interrupted(t, u, 700_000, false)
	if len(u.sessions) != 0 {
		t.Errorf("the registry has %d uploads", len(u.sessions))
	}
}

// Whatever became of what is remembered, the blob arrives whole, and nobody else
// is told anything.
func TestUploadBeginsAnew(t *testing.T) {
	elsewhere := newUploads(t)
	elsewhere.accident = func(w http.ResponseWriter, r *http.Request) bool {
		t.Errorf("another server is asked %s %s", r.Method, r.URL)
		return true
	}
	for name, change := range map[string]func(u *uploads, session string) string{
		"it has ended":    func(u *uploads, s string) string { clear(u.sessions); return s },
		"it has nothing":  func(u *uploads, s string) string { u.sessions["1"].Reset(); return s },
		"it has too much": func(u *uploads, s string) string { io.CopyN(u.sessions["1"], zeroReader{}, 2<<20); return s },
		"it has something else": func(u *uploads, s string) string {
			n := u.sessions["1"].Len()
			u.sessions["1"].Reset()
			io.CopyN(u.sessions["1"], zeroReader{}, int64(n))
			return s
		},
		"it is elsewhere": func(u *uploads, s string) string { return strings.Replace(s, u.host(), elsewhere.host(), 1) },
		"it is no URL":    func(*uploads, string) string { return "http://[" },
		"it is refused": func(u *uploads, s string) string {
			u.accident = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodPatch || r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/1") {
					io.Copy(io.Discard, r.Body)
					w.WriteHeader(400)
					return true
				}
				return false
			}
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUploads(t)
			session := change(u, interrupted(t, u, 700_000, true))
			data, desc, open := blobOf(1<<20, 7)
			remembered := "x"
			o := PushOptions{Session: session, Sending: func(s string) { remembered = s }}
			got, err := repository(t, New(Options{Backoff: time.Millisecond}), u.host()+"/team/web", nil).PushBlob(t.Context(), desc, open, o)
			if err != nil || got != (PushResult{Outcome: Uploaded}) || !bytes.Equal(u.blobs[desc.Digest.String()], data) {
				t.Errorf("pushed as %+v, %v; the registry has %d bytes", got, err, len(u.blobs[desc.Digest.String()]))
			}
			if remembered != "" {
				t.Errorf("%q is remembered", remembered)
			}
		})
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }
