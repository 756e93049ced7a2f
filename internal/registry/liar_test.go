package registry

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// flush sends what a handler wrote so far.
func flush(w http.ResponseWriter) { w.(http.Flusher).Flush() }

// liars are ways to answer that are of no use to who asks.
var liars = map[string]func(w http.ResponseWriter, r *http.Request){
	"a web page": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, "<html>please log in</html>")
	},
	"something else": func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "{}") },
	"silence":        func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	"silence in the middle": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "200000")
		io.WriteString(w, `{"schemaVersion"`)
		flush(w)
		<-r.Context().Done()
	},
	"drops": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "200000")
		for r.Context().Err() == nil {
			io.WriteString(w, " ")
			flush(w)
			time.Sleep(20 * time.Millisecond)
		}
	},
	"too little": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "200000")
		panic(http.ErrAbortHandler)
	},
	"an error":        func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
	"a circle":        func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, 307) },
	"another's token": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) },
}

// A neighbour or a mirror that answers with rubbish, or not at all, is passed
// over: the next one is asked, and then the registry, and whoever waits waits
// once.
func TestLiarsArePassedOver(t *testing.T) {
	data, desc, _ := blobOf(200_000, 1)
	manifest := manifestOf(1)
	for name, lie := range liars {
		for _, kind := range []string{"neighbour", "mirror"} {
			t.Run(kind+" with "+name, func(t *testing.T) {
				t.Parallel()
				origin, liar, good := newStand(t, manifest, data), newStand(t, manifest, data), newStand(t, manifest, data)
				liar.fail = func(w http.ResponseWriter, r *http.Request) bool { lie(w, r); return true }
				s := Settings{HostDirs: []string{t.TempDir()}}
				if kind == "neighbour" {
					s.Neighbours = []string{liar.host(), good.host()}
				} else {
					write(t, s.HostDirs[0]+"/"+origin.host()+"/hosts.toml", fmt.Sprintf(
						"server = %q\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n",
						origin.URL, liar.URL, good.URL))
				}
				o := quick(s)
				o.IdleTimeout = 250 * time.Millisecond
				for _, ref := range []string{"latest", digest.FromString(manifest).String()} {
					_, got, err := repository(t, New(o), origin.host()+"/team/web", nil).Manifest(t.Context(), ref)
					if err != nil || string(got) != manifest {
						t.Errorf("manifest %s is %s, %v", ref, got, err)
					}
				}
				origin.questions()
				repo := repository(t, New(o), origin.host()+"/team/web", nil)
				if !verified(t, repo, desc) {
					t.Error("the blob cannot be had")
				}
				// What begins with lies and ends with the truth is to be blamed on
				// both who sent it.
				if got := origin.questions(); got != "" && name != "silence in the middle" && name != "drops" {
					t.Errorf("the registry was asked %s", got)
				}
			})
		}
	}
}

// verified reads a blob as often as somebody else can be asked for it.
func verified(t *testing.T, repo *Repository, desc ocispec.Descriptor) bool {
	t.Helper()
	for {
		r, err := repo.Blob(t.Context(), desc, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil {
			t.Fatal(err)
		}
		if digest.FromBytes(got) == desc.Digest || !Distrust(r) {
			return digest.FromBytes(got) == desc.Digest
		}
	}
}

// A machine that takes connections and says nothing, in no language, is found
// out once for all who ask at the same time.
func TestMuteNeighbour(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	data, desc, _ := blobOf(1000, 1)
	origin := newStand(t, "", data)
	o := quick(Settings{Neighbours: []string{mute.Addr().String()}, HostDirs: []string{}})
	o.IdleTimeout = 500 * time.Millisecond
	repo := repository(t, New(o), origin.host()+"/team/web", nil)
	begun := time.Now()
	done := make(chan error)
	for range 8 {
		go func() {
			r, err := repo.Blob(t.Context(), desc, 0)
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				r.Close()
			}
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// One after the other they would have waited for eight times as long.
	if took := time.Since(begun); took > 8*o.IdleTimeout {
		t.Errorf("it took %s", took)
	}
}

// Who sent something else than the blob is not asked again, and the person
// hears of it; the registry itself is not to be done without.
func TestDistrust(t *testing.T) {
	data, desc, _ := blobOf(200_000, 1)
	lies := bytes.Repeat([]byte("lies"), 50_000)
	origin, liar := newStand(t, "", data), newStand(t, "", data)
	liar.fail = func(w http.ResponseWriter, r *http.Request) bool { w.Write(lies); return true }
	c := New(quick(Settings{Neighbours: []string{liar.host()}, HostDirs: []string{}}))
	repo := repository(t, c, origin.host()+"/team/web", nil)
	var notices []string
	ctx := WithNotices(t.Context(), func(s string) { notices = append(notices, s) })
	read := func(want []byte) io.Reader {
		t.Helper()
		r, err := repo.Blob(ctx, desc, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		return r
	}
	if !Distrust(read(lies)) {
		t.Error("the neighbour is trusted")
	}
	if want := liar.host() + " sent something else than blob " + desc.Digest.String(); len(notices) != 1 || !strings.HasPrefix(notices[0], want) {
		t.Errorf("told %q", notices)
	}
	liar.questions()
	if Distrust(read(data)) {
		t.Error("there is somebody else than the registry to ask")
	}
	if got := liar.questions(); got != "" {
		t.Errorf("the liar was asked %s", got)
	}
}

// A digest that a server names for another is not believed.
func TestResolveAnotherDigest(t *testing.T) {
	origin, liar := newStand(t, manifestOf(1), nil), newStand(t, manifestOf(2), nil)
	liar.fail = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Docker-Content-Digest", digest.FromString(manifestOf(2)).String())
		io.WriteString(w, manifestOf(2))
		return true
	}
	c := New(quick(Settings{Neighbours: []string{liar.host()}, HostDirs: []string{}}))
	want := digest.FromString(manifestOf(1))
	got, err := repository(t, c, origin.host()+"/team/web", nil).Resolve(t.Context(), want.String())
	if err != nil || got.Digest != want {
		t.Errorf("got %+v, %v", got, err)
	}
}
