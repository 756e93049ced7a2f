// Package directory is a depot in a directory of a local file system.
//
// # Layout
//
//	depot.db                  which repository has what; small blobs and manifests
//	blobs/sha256/ab/ab12…     larger blobs
//	uploads/UUID.HASH         blobs on their way in; HASH is of the repository's name
//
// One embedded database (bbolt) holds everything that is small: links, tags,
// referrers, and content of up to 16 KiB, which most manifests and
// configurations are. The other way, a tiny file for each link and tag as
// docker-registry has it, was measured against: it needs an fsync of a file and
// of a directory for each of them, a readdir and a sort of all names for each
// page of a list, and a scan of the whole tree to learn who still needs a blob.
// Here a list is a cursor that starts where the page starts, a read is a look
// into mapped memory without a system call, a manifest with its tags, edges and
// its place among the referrers is one transaction, and whether a blob is named
// by anything is one seek. Changes of concurrent requests are committed together
// (commit.go): two syncs for all of them. That transactions are serial is also
// what makes a collection safe while clients push.
//
// # Durability
//
// A blob is written to its upload file, synced, linked to its place, the
// directory synced, and then recorded, upon which the upload's own name goes; it
// is removed in the opposite order. An upload found to share its file with a
// blob, after a crash, gets a copy before anything is written to it. A
// file without a record is a leftover of a crash and goes with Sweep; a record
// without a file cannot be. Uploads are not synced before they are committed: a
// killed process loses nothing of them, a power failure may, and the digest
// tells.
//
// Locks: Directory.sessionsMu guards sessions and is held for no I/O. A stripe
// of Directory.stripes is held while the file of a blob comes or goes, and
// across the transaction that says so; nothing waits for a hold with it.
package directory

import (
	"context"
	_ "crypto/sha256" // the digests a depot accepts
	_ "crypto/sha512"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry/depot"
)

// Directory is a depot; see the package comment.
type Directory struct {
	dir   string
	db    *bolt.DB
	holds *depot.Holds

	changes chan *change
	closing chan struct{}
	stopped chan struct{} // closed when the committer is gone
	close   sync.Once

	stripes [64]sync.Mutex

	sessionsMu sync.Mutex // guards sessions
	sessions   map[string]*session
}

var _ depot.Depot = (*Directory)(nil)

// The buckets, with what their keys are made of; NUL separates.
var (
	bRepositories = []byte("repositories") // name
	bContent      = []byte("content")      // digest
	bLinks        = []byte("links")        // repository, digest
	bHolders      = []byte("holders")      // digest, repository, asBlob or asManifest
	bManifests    = []byte("manifests")    // repository, digest
	bUses         = []byte("uses")         // repository, digest of what is named, digest of the manifest that names it
	bTags         = []byte("tags")         // repository, tag
	bTagged       = []byte("tagged")       // repository, digest, tag
	bReferrers    = []byte("referrers")    // repository, subject, digest
	bRecords      = []byte("records")      // key
)

// Open opens the depot in dir, creating it when needed. It fails with
// ErrConflict when another process has it open.
func Open(dir string) (*Directory, error) {
	for _, sub := range []string{"", "uploads", "blobs/sha256", "blobs/sha512"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("cannot open the registry's directory: %w", err)
		}
	}
	for _, sub := range []string{"blobs", "", ".."} {
		if err := syncDir(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	db, err := bolt.Open(filepath.Join(dir, "depot.db"), 0o600, &bolt.Options{
		Timeout:         time.Second,
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: 64 << 20, // readers are stopped for each remapping
	})
	if errors.Is(err, bolt.ErrTimeout) {
		return nil, errs.Conflict("the registry's directory %s is in use by another process", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the registry's database %s: %w", filepath.Join(dir, "depot.db"), err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, b := range [][]byte{bRepositories, bContent, bLinks, bHolders, bManifests, bUses, bTags, bTagged, bReferrers, bRecords} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("cannot prepare the registry's database: %w", err)
	}
	d := &Directory{
		dir: dir, db: db, holds: depot.NewHolds(),
		changes: make(chan *change), closing: make(chan struct{}), stopped: make(chan struct{}),
		sessions: map[string]*session{},
	}
	go d.commit()
	return d, nil
}

// Close ends the depot after the changes under way. It may be called twice.
func (d *Directory) Close() error {
	var err error
	d.close.Do(func() {
		close(d.closing)
		<-d.stopped
		err = d.db.Close()
	})
	return err
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// stripe is the lock for the file of a blob.
func (d *Directory) stripe(dgst digest.Digest) *sync.Mutex {
	h := fnv.New32a()
	h.Write([]byte(dgst))
	return &d.stripes[h.Sum32()%uint32(len(d.stripes))]
}

// path is the file of a blob, whose digest has been checked.
func (d *Directory) path(dgst digest.Digest) string {
	hex := dgst.Encoded()
	return filepath.Join(d.dir, "blobs", dgst.Algorithm().String(), hex[:2], hex)
}

// place makes a written and synced file the one of the blob, durably. The file
// keeps its own name beside it until the blob is recorded (adopt): a process
// that is killed in between has not lost an upload. What is there already has no
// record, so it is a leftover, which an upload may still share and write to.
func (d *Directory) place(tmp string, dgst digest.Digest) error {
	target := d.path(dgst)
	shard := filepath.Dir(target)
	err := os.Link(tmp, target)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(shard, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := syncDir(filepath.Dir(shard)); err != nil {
			return err
		}
		err = os.Link(tmp, target)
	}
	if errors.Is(err, os.ErrExist) {
		if err := os.Remove(target); err != nil {
			return err
		}
		err = os.Link(tmp, target)
	}
	if err != nil {
		return err
	}
	return syncDir(shard)
}

// usual turns errors of the storage into what callers look for.
func usual(err error) error {
	if errors.Is(err, bolt.ErrDatabaseNotOpen) {
		return errs.Unavailable("the registry is being stopped")
	}
	return err
}

func (d *Directory) view(ctx context.Context, f func(tx *bolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return usual(d.db.View(f))
}

// startWriteback asks the kernel to begin writing what was written, so that the
// sync at the end has little left to do.
func startWriteback(f *os.File, offset, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), offset, n, unix.SYNC_FILE_RANGE_WRITE)
}
