// Package serve is the /v2/ protocol of a registry: the OCI distribution
// specification 1.1, all of it, over a depot.
//
// It owns the requests' parsing, their answers and error codes. Who may do what
// it asks the Authorizer, what another registry has it asks the Upstream, and
// what happened it tells Notify; each may be nil. Storage is depot's. The
// accounts, the mirror, webhooks, metrics and the web page are rooms that hook
// in here and that serve knows nothing of:
//
//   - accounts and rights: an Authorizer. It is asked once for each request and
//     repository, before anything is looked up; what it refuses is answered
//     with 401 and its Challenge when nobody is named, and with 403 otherwise.
//   - pull-through: an Upstream. It brings manifests into the depot before they
//     are read there, and hands out blobs that are not there yet.
//   - webhooks, pull counters, the audit trail: Notify. It is called after the
//     fact and within the request, so it only takes a note and returns.
//   - metrics, access log: an http.Handler around the Server; ResponseWriter
//     wrappers must keep io.ReaderFrom, or blobs are no longer copied by the
//     kernel.
//   - the web page, search, the token endpoint: other paths of the same mux.
package serve

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// Action is what a request wants to do with a repository.
type Action string

// The actions of the registry token scheme ("repository:NAME:pull,push").
const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
	// Catalog lists all repositories; its repository is "".
	Catalog Action = "catalog"
	// Access is a request for /v2/ itself, by which clients find out whether
	// and how they must authenticate; its repository is "".
	Access Action = "access"
)

// Authorizer decides who may do what.
type Authorizer interface {
	// Authorize tells which user ("" for anybody) makes the request, and
	// fails when that user may not do the action on the repository: with
	// errdefs.ErrUnauthenticated when credentials are missing or wrong, with
	// errdefs.ErrPermissionDenied when they are not enough, with any other
	// class for what went wrong in finding out. It is called before the name
	// is known to exist, with a well-formed one.
	Authorize(r *http.Request, repository string, action Action) (user string, err error)
	// Challenge is the value of the WWW-Authenticate header of a 401, which
	// says how and for what to authenticate (RFC 9110, section 11.6.1).
	Challenge(r *http.Request, repository string, actions ...Action) string
}

// EventAction says what happened.
type EventAction string

// What Notify is told.
const (
	EventPush   EventAction = "push"   // a manifest (with Tag, or without) or a blob was stored
	EventPull   EventAction = "pull"   // a manifest or a blob was sent
	EventMount  EventAction = "mount"  // a blob was taken from another repository
	EventDelete EventAction = "delete" // a manifest, blob or tag was deleted
)

// Event is something that happened to a repository.
type Event struct {
	Action     EventAction
	Repository string
	// Tag is the tag that was set, pulled by, or deleted; "" when none was.
	Tag string
	// Descriptor is of the manifest or blob; a deleted tag has the manifest
	// it named, when that is known. For blobs the media type is
	// application/octet-stream.
	Descriptor ocispec.Descriptor
	// From is the repository a blob was mounted from.
	From   string
	User   string
	Time   time.Time
	Remote string // address and port of the client
	Agent  string // its User-Agent
	Method string // of its request
	Scheme string // "http" or "https", as the client spoke it
	Host   string // this registry, as the client called it
}

// Upstream is another registry that this one stands in front of. Its methods
// are called for every repository; one that is not mirrored is answered with
// errdefs.ErrNotFound at once, for which serve answers from the depot alone.
type Upstream interface {
	// Manifest is called before a manifest is read: by tag always, so that
	// the upstream can be asked whether it moved; by digest only when the
	// depot does not have it. It brings the manifest (and its tag) into the
	// depot by PutManifest with Sparse when that is needed. When it fails and
	// the depot has the manifest, that one is served, with a Warning header
	// that says the failure in a sentence; else the failure is the answer.
	Manifest(ctx context.Context, repository, reference string) error
	// Blob opens a blob the depot does not have. serve copies it to the
	// client and closes it; when the reader is an io.Seeker too, Range
	// requests are served, else they get all of it. Putting it into the
	// depot meanwhile is the upstream's affair, and so is that many clients
	// may ask for one blob at once.
	Blob(ctx context.Context, repository string, dgst digest.Digest) (io.ReadCloser, depot.Info, error)
	// Stat describes a blob the depot does not have, for HEAD.
	Stat(ctx context.Context, repository string, dgst digest.Digest) (depot.Info, error)
}

// Limits bounds what a request may ask for. Zero values mean the defaults.
type Limits struct {
	// Manifest is the largest manifest in bytes; 4 MiB by default, the least
	// the specification wants every registry to take.
	Manifest int64
	// Page is how many entries a list has at most when the client asked for
	// more, or did not say; 1000 by default. The Link header leads on.
	Page int
	// Body is how long a client may send nothing in the middle of an upload;
	// 1 minute by default.
	Body time.Duration
	// Unread is how long a client may leave a blob it asked for unread, where
	// the kernel does not count it: in TLS and HTTP/2; 5 minutes by default.
	Unread time.Duration
}

// Options configures a Server.
type Options struct {
	// Depot is where everything is. When it is a depot.Depot, pushes and
	// deletes are served; a mere depot.Reader is a registry to pull from, and
	// the rest is answered with 405 UNSUPPORTED.
	Depot depot.Reader
	// ReadOnly refuses pushes and deletes although the depot could, as a
	// pull-through mirror does.
	ReadOnly bool
	// Sparse accepts an index some of whose manifests are not here.
	Sparse   bool
	Access   Authorizer  // nil: everybody may do everything
	Upstream Upstream    // nil: none
	Notify   func(Event) // nil: nobody is told
	Limits   Limits
	// Log is told what fails for reasons of ours; nil means slog.Default.
	Log *slog.Logger
}

// Server answers /v2/. It is an http.Handler for that path and all below it.
type Server struct {
	o       Options
	depot   depot.Reader
	writes  depot.Depot // nil when nothing may be written
	log     *slog.Logger
	uploads uploads
}

// New returns a server. The depot stays the caller's to close, after the last
// request.
func New(o Options) *Server {
	if o.Limits.Manifest <= 0 {
		o.Limits.Manifest = 4 << 20
	}
	if o.Limits.Page <= 0 {
		o.Limits.Page = 1000
	}
	if o.Limits.Body <= 0 {
		o.Limits.Body = time.Minute
	}
	if o.Limits.Unread <= 0 {
		o.Limits.Unread = 5 * time.Minute
	}
	s := &Server{o: o, depot: o.Depot, log: o.Log}
	if s.log == nil {
		s.log = slog.Default()
	}
	if w, ok := o.Depot.(depot.Depot); ok && !o.ReadOnly {
		s.writes = w
	}
	s.uploads.active = map[string]*active{}
	return s
}
