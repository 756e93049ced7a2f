package depot

import (
	"context"

	"github.com/opencontainers/go-digest"
)

// referrersAtOnce is how many referrers are in memory together. The annotations
// of each may be as large as a manifest, and whoever may push decides that.
const referrersAtOnce = 16

// EachReferrer calls f for the referrers of the subject after `after`, in the
// order of Referrers, until f returns false.
func EachReferrer(ctx context.Context, r Reader, repository string, subject digest.Digest, after string, f func(Manifest) bool) error {
	for {
		batch, err := r.Referrers(ctx, repository, subject, after, referrersAtOnce)
		if err != nil {
			return err
		}
		for _, m := range batch {
			if !f(m) {
				return nil
			}
			after = m.Digest.String()
		}
		if len(batch) < referrersAtOnce {
			return nil
		}
	}
}
