// Package depot is what a registry keeps: blobs, manifests, tags, and which
// repository has which of them.
//
// It owns the contract (Depot), its conformance suite (depottest), and what is
// written once above every implementation: the collection of garbage (Collect)
// and the retention of tags (Retention). There are two implementations: a
// directory (depot/directory) and a bucket of an S3-compatible server
// (depot/bucket). It knows nothing of HTTP, of who may do what, or of other
// registries: that is serve, access and mirror.
//
// # What is kept
//
// A repository is a set of blobs, a set of manifests and a set of tags, each
// tag naming one of its manifests. It comes into being with the first thing put
// into it and ends, when it is empty, with a collection. Content is stored once
// however many repositories have it; a repository has a blob because it was
// uploaded or mounted there, and nothing else makes it readable there.
//
// A manifest is stored byte by byte as it came, with what the registry has to
// know of it later (Manifest): the caller, who has parsed it, says what it
// names. That spares every implementation, the collection and the referrers
// list a parser.
//
// # What an answer means
//
// When Commit, Put, Mount, PutManifest or a delete returns nil, the change is on
// stable storage: power may fail. A blob appears whole and verified, or not at
// all. A manifest and all the tags put with it appear together in the directory;
// in a bucket the manifest appears before its tags.
//
// # Why a collection needs no read-only window
//
// A client that pushes asks first what is there (Stat, Mount), uploads the rest
// and names all of it in a manifest at the end. Between its question and its
// manifest nothing refers to those blobs. So every answer that tells a client
// "you need not send this" holds the blob: Stat, Mount, Commit and PutManifest
// note the time for (repository, digest), and Drop, with which a collection
// removes, refuses whatever was held after the time it is given (now minus the
// grace period). Deleting a manifest holds what it named, as somebody may have
// been told a moment ago, on the strength of that manifest, that it was there.
// Holds live in memory: after a restart everything counts as held at the time
// the depot was opened. That is why one process at a time may open a depot.
//
// Drop decides and removes as one step: a PutManifest that names the blob comes
// before it, and Drop refuses, or after it, and PutManifest fails with Missing,
// upon which clients send the blob again. A Stat that meets a Drop under way
// waits for its outcome.
//
// Errors have the classes of errdefs: ErrNotFound (a blob, manifest, tag or
// upload is not there), ErrInvalidArgument (a name, digest or size that cannot
// be), ErrConflict. Storage that is full is syscall.ENOSPC or EDQUOT, as
// errors.Is finds it. Digests are of sha256 or sha512.
package depot

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
)

// Info describes a blob. Size is in bytes; Time is when it was stored.
type Info struct {
	Digest digest.Digest
	Size   int64
	Time   time.Time
}

// Manifest is what a depot knows of a manifest beside its bytes.
type Manifest struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"` // in bytes
	// ArtifactType and Annotations are what the referrers list shows of it
	// (OCI distribution 1.1, "Listing Referrers"): the type is the config's
	// media type where the manifest itself has none.
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	// Subject is the manifest this one refers to; it need not exist.
	Subject digest.Digest `json:"subject,omitempty"`
	// Blobs are the configuration and the layers, Manifests the entries of
	// an index. Both must be in the repository when the manifest is put;
	// Optional (layers that are elsewhere by their urls) need not be.
	Blobs     []digest.Digest `json:"blobs,omitempty"`
	Manifests []digest.Digest `json:"manifests,omitempty"`
	Optional  []digest.Digest `json:"optional,omitempty"`
	// Config is the configuration blob of an image; empty for others.
	Config digest.Digest `json:"config,omitempty"`
	Pushed time.Time     `json:"pushed"`
	By     string        `json:"by,omitempty"` // the user, "" when nobody said a name
}

// Names lists everything the manifest needs kept, its subject aside.
func (m *Manifest) Names() []digest.Digest {
	all := make([]digest.Digest, 0, len(m.Blobs)+len(m.Manifests)+len(m.Optional))
	return append(append(append(all, m.Blobs...), m.Manifests...), m.Optional...)
}

// Tag is a tag of a repository.
type Tag struct {
	Name   string        `json:"name"`
	Digest digest.Digest `json:"digest"`
	Time   time.Time     `json:"time"` // when it was last set
	By     string        `json:"by,omitempty"`
}

// Reader is what a registry that is only pulled from has to keep; an engine
// that serves its images implements this and nothing more.
//
// Lists are in lexical order of their bytes. They begin after `after` ("" for
// the beginning), have at most n entries (all for n < 0), and cost what they
// return, not what there is.
type Reader interface {
	// Stat describes a blob of the repository and holds it (see the package
	// comment). Fails with ErrNotFound.
	Stat(ctx context.Context, repository string, dgst digest.Digest) (Info, error)
	// Open opens a blob of the repository; the caller closes it. It stays
	// readable when the blob is deleted meanwhile. Where the reader is an
	// *os.File the kernel copies it to a socket; else it may hold at most
	// some kilobytes in memory. Fails with ErrNotFound.
	Open(ctx context.Context, repository string, dgst digest.Digest) (io.ReadSeekCloser, Info, error)
	// Manifest finds a manifest by tag, or by digest when reference contains
	// a colon, and returns its bytes, which the caller must not change.
	// Fails with ErrNotFound.
	Manifest(ctx context.Context, repository, reference string) (Manifest, []byte, error)
	// StatManifest is Manifest without the bytes.
	StatManifest(ctx context.Context, repository, reference string) (Manifest, error)
	// Exists tells whether there is such a repository.
	Exists(ctx context.Context, repository string) (bool, error)
	// Repositories lists the names of repositories.
	Repositories(ctx context.Context, after string, n int) ([]string, error)
	// Tags lists the names of a repository's tags; no tags and no
	// repository are both an empty list.
	Tags(ctx context.Context, repository, after string, n int) ([]string, error)
	// Tag describes a tag. Fails with ErrNotFound.
	Tag(ctx context.Context, repository, tag string) (Tag, error)
	// Manifests lists the digests of a repository's manifests.
	Manifests(ctx context.Context, repository, after string, n int) ([]digest.Digest, error)
	// Referrers lists the manifests whose subject is the digest, in the
	// order of their digests.
	Referrers(ctx context.Context, repository string, subject digest.Digest, after string, n int) ([]Manifest, error)
}

// Depot keeps what a registry serves. Its methods may be called concurrently.
type Depot interface {
	Reader

	// Put stores a blob whose bytes r yields and gives it to the repository.
	// Fails with Mismatch when digest or size (in bytes, -1 when unknown)
	// are not those of the bytes; nothing is kept then.
	Put(ctx context.Context, repository string, dgst digest.Digest, size int64, r io.Reader) (Info, error)
	// Mount gives a blob that the repository `from` has to another
	// repository. Fails with ErrNotFound.
	Mount(ctx context.Context, from, repository string, dgst digest.Digest) (Info, error)
	// Holders lists the repositories that have a blob.
	Holders(ctx context.Context, dgst digest.Digest, after string, n int) ([]string, error)
	// DeleteBlob takes a blob from the repository. Fails with ErrNotFound,
	// and with ErrConflict when a manifest of the repository names it.
	DeleteBlob(ctx context.Context, repository string, dgst digest.Digest) error

	// StartUpload begins an upload to the repository. algorithm is what the
	// digest will probably be of; "" means sha256.
	StartUpload(ctx context.Context, repository string, algorithm digest.Algorithm) (Upload, error)
	// Upload finds an upload, also one of before a restart. Fails with
	// ErrNotFound.
	Upload(ctx context.Context, repository, id string) (Upload, error)
	// ExpireUploads removes uploads that nothing was written to since the
	// time, and tells how many.
	ExpireUploads(ctx context.Context, since time.Time) (int, error)

	// PutManifest stores a manifest in the repository and points the tags at
	// it. body has m.Digest and m.Size. Fails with *Missing when something m
	// names is not in the repository, unless o.Sparse.
	PutManifest(ctx context.Context, repository string, m Manifest, body []byte, o PutOptions) error
	// DeleteManifest removes a manifest, the tags that name it, and its place
	// in the referrers of its subject. Fails with ErrNotFound.
	DeleteManifest(ctx context.Context, repository string, dgst digest.Digest) error
	// DeleteTag removes a tag. Fails with ErrNotFound.
	DeleteTag(ctx context.Context, repository, tag string) error

	Collectable
	Records

	// Close gives back what the depot holds. Uploads are kept.
	Close() error
}

// PutOptions says how a manifest is stored.
type PutOptions struct {
	Tags []string
	// Sparse allows that what the manifest names is not here: a mirror
	// fetches it when it is asked for, an index may be pushed in part.
	Sparse bool
}

// Upload is a blob on its way in. One goroutine at a time uses it; what was
// written is found again by Depot.Upload, also by another process later.
type Upload interface {
	// ID is a UUID.
	ID() string
	// Size is how many bytes have been stored.
	Size() int64
	// ReadFrom appends what r yields, to its end. What was read before r or
	// the storage failed is kept and counted in Size.
	io.ReaderFrom
	// Commit appends what last yields, if it is not nil, and makes the
	// upload a blob of the repository. Fails with *Mismatch when the bytes
	// have another digest; the upload is gone then. When last fails, what
	// was read of it is kept, as by ReadFrom.
	Commit(ctx context.Context, dgst digest.Digest, last io.Reader) (Info, error)
	// Cancel forgets the upload.
	Cancel(ctx context.Context) error
	// Close lets go of the upload without ending it.
	Close() error
}

// Collectable is what Collect needs of a depot.
type Collectable interface {
	// Graph calls f for every manifest of the repository until f fails;
	// tagged tells whether a tag names it. Nothing is held by it. What is
	// added or removed meanwhile may be met or not.
	Graph(ctx context.Context, repository string, f func(m Manifest, tagged bool) error) error
	// Blobs calls f for every blob of the repository, as Graph does.
	Blobs(ctx context.Context, repository string, f func(Info) error) error
	// Drop takes a blob from a repository unless a manifest of the
	// repository names it or it was put there or held at `before` or later,
	// and tells whether it did. When no repository has the blob left, its
	// bytes are removed too: freed says how many.
	Drop(ctx context.Context, repository string, dgst digest.Digest, before time.Time) (dropped bool, freed int64, err error)
	// DropManifest removes a manifest, unless a tag or another manifest of
	// the repository names it or it was pushed or held at `before` or later,
	// and tells whether it did.
	DropManifest(ctx context.Context, repository string, dgst digest.Digest, before time.Time) (bool, error)
	// DropTag removes a tag if it still is as given.
	DropTag(ctx context.Context, repository string, tag Tag) (bool, error)
	// DropRepository forgets a repository if it is empty and was so before
	// the time.
	DropRepository(ctx context.Context, repository string, before time.Time) (bool, error)
	// Sweep removes what no method of the contract shows: leftovers of a
	// crash that are older than the time. It returns the bytes that were
	// freed. Holds older than the time are forgotten.
	Sweep(ctx context.Context, before time.Time) (int64, error)
}

// Records are small named documents (under 64 KiB) of the rooms around a
// registry: stars, descriptions, who pulled when, queues of webhooks. A key is
// of slash-separated words of [a-zA-Z0-9._:@=+-]; its first word is the name of
// the room that owns it.
type Records interface {
	// Record reads one. Fails with ErrNotFound.
	Record(ctx context.Context, key string) ([]byte, error)
	// PutRecord writes one. It is durable when nil is returned.
	PutRecord(ctx context.Context, key string, value []byte) error
	// DeleteRecord removes one; it is no error when there is none.
	DeleteRecord(ctx context.Context, key string) error
	// RecordKeys lists the keys that begin with prefix, as lists of Reader.
	RecordKeys(ctx context.Context, prefix, after string, n int) ([]string, error)
}
