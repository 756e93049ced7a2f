package depot

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
)

// Collection says what Collect removes.
type Collection struct {
	// Grace is how long something stays after it was uploaded, or after a
	// client was told that it is there, although nothing names it. It must be
	// longer than a push takes from its first question to its manifest; an
	// hour is usual.
	Grace time.Duration
	// Untagged has manifests removed that nothing leads to: no tag, no index
	// and no subject that is itself kept. Without it every manifest stays
	// until it is deleted, as clients may pull by digest.
	Untagged bool
	// Uploads is after how long without a byte an upload is given up; 0
	// leaves uploads alone.
	Uploads time.Duration
	// DryRun removes nothing and reports what would go. What clients have
	// been told of lately is counted too, though it would stay.
	DryRun bool
	// Removed, when not nil, is told of each thing that goes (or would).
	Removed func(Removal)
}

// Removal is one thing that a collection removes: a manifest or a blob of a
// repository. Bytes is what that frees of the storage, 0 while others have it.
type Removal struct {
	Repository string
	Digest     digest.Digest
	Manifest   bool
	Bytes      int64
}

// Collected is what a collection removed. Bytes of a dry run are the sizes of
// the blobs, whether or not other repositories have them too.
type Collected struct {
	Repositories, Manifests, Blobs, Uploads int
	Bytes                                   int64
}

// Collect removes what nothing needs, while the depot is in use. The package
// comment says why that is safe. It needs memory for the digests of one
// repository at a time. When it fails, what it has removed so far is reported.
func Collect(ctx context.Context, d Depot, c Collection) (Collected, error) {
	now := time.Now()
	run := &collection{Collection: c, depot: d, before: now.Add(-c.Grace)}
	if c.Uploads > 0 && !c.DryRun {
		n, err := d.ExpireUploads(ctx, now.Add(-c.Uploads))
		run.report.Uploads = n
		if err != nil {
			return run.report, err
		}
	}
	const page = 100
	for after := ""; ; {
		names, err := d.Repositories(ctx, after, page)
		if err != nil {
			return run.report, err
		}
		for _, name := range names {
			if err := run.repository(ctx, name); err != nil {
				return run.report, err
			}
			after = name
		}
		if len(names) < page {
			break
		}
	}
	if c.DryRun {
		return run.report, nil
	}
	freed, err := d.Sweep(ctx, run.before)
	run.report.Bytes += freed
	return run.report, err
}

// collection is one run of Collect.
type collection struct {
	Collection
	depot  Depot
	before time.Time
	report Collected
}

func (c *collection) removed(r Removal) {
	if r.Manifest {
		c.report.Manifests++
	} else {
		c.report.Blobs++
	}
	c.report.Bytes += r.Bytes
	if c.Removed != nil {
		c.Removed(r)
	}
}

// repository collects in one repository: manifests first, as they let go of
// blobs.
func (c *collection) repository(ctx context.Context, name string) error {
	gone := map[digest.Digest]bool{}
	if c.Untagged {
		var err error
		if gone, err = c.manifests(ctx, name); err != nil {
			return err
		}
	}
	named := map[digest.Digest]bool{}
	err := c.depot.Graph(ctx, name, func(m Manifest, _ bool) error {
		if !gone[m.Digest] {
			for _, dgst := range m.Names() {
				named[dgst] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = c.depot.Blobs(ctx, name, func(blob Info) error {
		if named[blob.Digest] {
			return nil
		}
		return c.blob(ctx, name, blob)
	})
	if err != nil || c.DryRun {
		return err
	}
	dropped, err := c.depot.DropRepository(ctx, name, c.before)
	if dropped {
		c.report.Repositories++
	}
	return err
}

// blob drops a blob that no manifest named a moment ago; the depot looks again.
func (c *collection) blob(ctx context.Context, repository string, blob Info) error {
	r := Removal{Repository: repository, Digest: blob.Digest, Bytes: blob.Size}
	if c.DryRun {
		if blob.Time.Before(c.before) {
			c.removed(r)
		}
		return nil
	}
	dropped, freed, err := c.depot.Drop(ctx, repository, blob.Digest, c.before)
	if dropped {
		r.Bytes = freed
		c.removed(r)
	}
	return err
}

// node is a manifest as the marking sees it.
type node struct {
	names   []digest.Digest // manifests of an index
	refers  []digest.Digest // manifests whose subject it is
	pushed  time.Time
	tagged  bool
	here    bool
	reached bool
}

// manifests drops the manifests that nothing leads to, and returns those that
// are gone, or would be.
func (c *collection) manifests(ctx context.Context, name string) (map[digest.Digest]bool, error) {
	nodes := map[digest.Digest]*node{}
	at := func(dgst digest.Digest) *node {
		if nodes[dgst] == nil {
			nodes[dgst] = &node{}
		}
		return nodes[dgst]
	}
	err := c.depot.Graph(ctx, name, func(m Manifest, tagged bool) error {
		n := at(m.Digest)
		n.here, n.tagged, n.pushed, n.names = true, tagged, m.Pushed, m.Manifests
		if m.Subject != "" {
			subject := at(m.Subject)
			subject.refers = append(subject.refers, m.Digest)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.mark(nodes)
	gone := map[digest.Digest]bool{}
	// What an index names can go only after the index.
	for again := true; again; {
		again = false
		for dgst, n := range nodes {
			if n.reached || !n.here || gone[dgst] {
				continue
			}
			dropped, err := c.manifest(ctx, name, dgst)
			if err != nil {
				return gone, err
			}
			if dropped {
				gone[dgst], again = true, true
			}
		}
		if c.DryRun {
			break
		}
	}
	return gone, nil
}

// mark reaches what must stay: from each tag, and from each manifest that is
// too young to be judged, down to what it names and on to what refers to it.
func (c *collection) mark(nodes map[digest.Digest]*node) {
	var reach []*node
	for _, n := range nodes {
		if n.here && (n.tagged || !n.pushed.Before(c.before)) {
			reach = append(reach, n)
		}
	}
	for len(reach) > 0 {
		n := reach[len(reach)-1]
		reach = reach[:len(reach)-1]
		if n.reached {
			continue
		}
		n.reached = true
		for _, list := range [][]digest.Digest{n.names, n.refers} {
			for _, dgst := range list {
				if next := nodes[dgst]; next != nil && !next.reached {
					reach = append(reach, next)
				}
			}
		}
	}
}

func (c *collection) manifest(ctx context.Context, repository string, dgst digest.Digest) (bool, error) {
	r := Removal{Repository: repository, Digest: dgst, Manifest: true}
	if !c.DryRun {
		dropped, err := c.depot.DropManifest(ctx, repository, dgst, c.before)
		if err != nil || !dropped {
			return false, err
		}
	}
	c.removed(r)
	return true, nil
}
