package notify

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
	"github.com/gantry-containers/gantry/internal/registry/serve"
)

// receiver is an endpoint that fails as often as it is told.
type receiver struct {
	*httptest.Server
	failures atomic.Int32
	refused  chan struct{}
	got      chan received
}

type received struct {
	event  event
	header http.Header
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{got: make(chan received, 100), refused: make(chan struct{}, 100)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, rq *http.Request) {
		if r.failures.Add(-1) >= 0 {
			w.WriteHeader(http.StatusBadGateway)
			r.refused <- struct{}{}
			return
		}
		var e struct{ Events []event }
		body, _ := io.ReadAll(rq.Body)
		if err := json.Unmarshal(body, &e); err != nil || len(e.Events) != 1 {
			t.Errorf("%s: %v", body, err)
			return
		}
		r.got <- received{e.Events[0], rq.Header}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) next(t *testing.T) received {
	t.Helper()
	select {
	case got := <-r.got:
		return got
	case <-time.After(30 * time.Second):
		t.Fatal("no event came")
		panic("unreachable")
	}
}

func records(t *testing.T, dir string) *directory.Directory {
	t.Helper()
	d, err := directory.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func notifier(t *testing.T, d *directory.Directory, endpoints ...Endpoint) *Notifier {
	t.Helper()
	for i := range endpoints {
		if endpoints[i].Backoff == 0 {
			endpoints[i].Backoff = time.Millisecond
		}
	}
	n, err := New(context.Background(), Options{Endpoints: endpoints, Records: d, Source: "registry.test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func pushed(tag string) serve.Event {
	return serve.Event{
		Action: serve.EventPush, Repository: "team/app", Tag: tag, User: "ann", Time: time.Now(), Remote: "192.0.2.1:99",
		Agent: "docker", Method: "PUT", Scheme: "https", Host: "registry.test",
		Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(tag), Size: 7},
	}
}

func TestTheEnvelopeOfTheDockerRegistry(t *testing.T) {
	r := newReceiver(t)
	n := notifier(t, records(t, t.TempDir()), Endpoint{Name: "ci", URL: r.URL, Headers: map[string]string{"Authorization": "Bearer x"}})
	n.Notify(pushed("v1"))
	got := r.next(t)
	e := got.event
	if got.header.Get("Content-Type") != MediaType || got.header.Get("Authorization") != "Bearer x" {
		t.Errorf("headers %v", got.header)
	}
	want := target{MediaType: ocispec.MediaTypeImageManifest, Size: 7, Length: 7, Digest: digest.FromString("v1").String(), Repository: "team/app", Tag: "v1",
		URL: "https://registry.test/v2/team/app/manifests/" + digest.FromString("v1").String()}
	if e.Target != want || e.Action != "push" || e.Actor.Name != "ann" || e.ID == "" || e.Source.Addr != "registry.test" || e.Source.InstanceID == "" {
		t.Errorf("got %+v", e)
	}
	if e.Request.Addr != "192.0.2.1:99" || e.Request.Method != "PUT" || e.Request.Host != "registry.test" || e.Request.UserAgent != "docker" {
		t.Errorf("request %+v", e.Request)
	}
}

// What a person would lose: a deployment, because the endpoint was being
// restarted when the push came.
func TestWhatIsNotTakenIsSentAgain(t *testing.T) {
	r := newReceiver(t)
	r.failures.Store(3)
	n := notifier(t, records(t, t.TempDir()), Endpoint{Name: "ci", URL: r.URL})
	for _, tag := range []string{"a", "b", "c"} {
		n.Notify(pushed(tag))
	}
	for _, tag := range []string{"a", "b", "c"} {
		if got := r.next(t); got.event.Target.Tag != tag {
			t.Errorf("got %s, want %s: the order is lost", got.event.Target.Tag, tag)
		}
	}
}

// The queue survives the process, and is empty when everything was delivered.
func TestQueuesSurviveARestart(t *testing.T) {
	r := newReceiver(t)
	r.failures.Store(1 << 30)
	dir := t.TempDir()
	d := records(t, dir)
	n := notifier(t, d, Endpoint{Name: "ci", URL: r.URL, Backoff: time.Hour, MaxBackoff: time.Hour})
	for _, tag := range []string{"a", "b"} {
		n.Notify(pushed(tag))
	}
	<-r.refused
	n.Close()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	r.failures.Store(0)
	d = records(t, dir)
	n = notifier(t, d, Endpoint{Name: "ci", URL: r.URL})
	for _, tag := range []string{"a", "b"} {
		if got := r.next(t); got.event.Target.Tag != tag {
			t.Errorf("got %s, want %s", got.event.Target.Tag, tag)
		}
	}
	n.Close()
	if keys, err := d.RecordKeys(context.Background(), "notify/", "", -1); err != nil || len(keys) > 1 {
		t.Errorf("%v stay behind, %v", keys, err) // the last may have been cut off between answer and record
	}
}

func TestOnlyWhatWasAskedFor(t *testing.T) {
	r := newReceiver(t)
	n := notifier(t, records(t, t.TempDir()), Endpoint{Name: "deletes", URL: r.URL, Events: []serve.EventAction{serve.EventDelete, serve.EventPull}})
	blob := pushed("")
	blob.Descriptor.MediaType, blob.Action = "application/octet-stream", serve.EventPull
	pull, gone := pushed("p"), pushed("d")
	pull.Action, gone.Action = serve.EventPull, serve.EventDelete
	for _, e := range []serve.Event{pushed("x"), blob, pull, gone} {
		n.Notify(e)
	}
	for _, want := range []string{"pull", "delete"} {
		if got := r.next(t); got.event.Action != want {
			t.Errorf("got %s, want %s", got.event.Action, want)
		}
	}
}

// An endpoint that is gone for good does not keep its events for ever, and does
// not keep others waiting.
func TestOldEventsAreGivenUp(t *testing.T) {
	r := newReceiver(t)
	n := notifier(t, records(t, t.TempDir()),
		Endpoint{Name: "gone", URL: "http://127.0.0.1:1/", MaxAge: time.Nanosecond}, Endpoint{Name: "here", URL: r.URL})
	n.Notify(pushed("v1"))
	r.next(t)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if s := n.Stats()[0]; s.Dropped == 1 && s.Pending == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", n.Stats())
		}
	}
}

func TestEndpointsThatAreRefused(t *testing.T) {
	good := Endpoint{Name: "a", URL: "http://x/"}
	for _, bad := range [][]Endpoint{
		{{URL: "http://x/"}}, {{Name: "a/b", URL: "http://x/"}}, {{Name: "a", URL: "ftp://x/"}}, {{Name: "a", URL: "x"}},
		{{Name: "a", URL: "http://x/", Events: []serve.EventAction{"fly"}}}, {good, good},
	} {
		if err := Check(bad); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// What a person would lose: the token of the webhook, and the inside of the
// network, to a receiver that redirects to a server it was never meant for.
func TestRedirectsStayWithinTheServer(t *testing.T) {
	other := newReceiver(t)
	var status atomic.Int32
	var target atomic.Pointer[string]
	asked := make(chan string, 100)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.URL.Path + " " + r.Header.Get("X-Token")
		if r.URL.Path == "/hook" {
			http.Redirect(w, r, *target.Load(), int(status.Load()))
		}
	}))
	t.Cleanup(hook.Close)
	n := notifier(t, records(t, t.TempDir()), Endpoint{
		Name: "hook", URL: hook.URL + "/hook", Headers: map[string]string{"X-Token": "secret"}, Backoff: time.Millisecond, MaxBackoff: time.Millisecond,
	})
	next := func() string {
		select {
		case got := <-asked:
			return got
		case <-time.After(30 * time.Second):
			t.Fatal("nothing was sent")
			return ""
		}
	}
	refused := func(code int, where string) {
		t.Helper()
		target.Store(&where)
		status.Store(int32(code))
		n.Notify(pushed("v1"))
		for range 2 { // it is sent again
			if got := next(); got != "POST /hook secret" {
				t.Errorf("%d to %s: %s", code, where, got)
			}
		}
		same := "/moved"
		target.Store(&same)
		status.Store(http.StatusPermanentRedirect)
		for got := next(); got != "POST /moved secret"; got = next() {
			if got != "POST /hook secret" {
				t.Errorf("%d to %s: %s", code, where, got)
			}
		}
	}
	refused(http.StatusTemporaryRedirect, other.URL)
	refused(http.StatusMovedPermanently, other.URL)
	refused(http.StatusFound, "/moved")
	select {
	case <-other.got:
		t.Error("the event went to another server")
	default:
	}
	done := "/done"
	target.Store(&done)
	status.Store(http.StatusSeeOther)
	n.Notify(pushed("v2"))
	if got := next(); got != "POST /hook secret" {
		t.Error(got)
	}
	n.Close()
	if s := n.Stats()[0]; s.Delivered != 4 || s.Pending != 0 {
		t.Errorf("an event that was taken with 303 counts as %+v", s)
	}
}
