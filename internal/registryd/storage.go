package registryd

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/registry"
	"github.com/gantry-containers/gantry/internal/registry/depot"
	"github.com/gantry-containers/gantry/internal/registry/depot/bucket"
	"github.com/gantry-containers/gantry/internal/registry/depot/directory"
	"github.com/gantry-containers/gantry/internal/registry/mirror"
)

// openDepot opens the storage: below the root, or a bucket. It fails with
// errdefs.ErrConflict when another process has it.
func openDepot(ctx context.Context, c *Config) (depot.Depot, error) {
	// Not returned as they are: a nil of either is a depot that is not nil.
	if c.S3.Endpoint == "" {
		d, err := directory.Open(filepath.Join(c.Root, "depot"))
		if err != nil {
			return nil, err
		}
		return d, nil
	}
	b, err := bucket.Open(ctx, bucket.Options{
		Endpoint: c.S3.Endpoint, Bucket: c.S3.Bucket, Prefix: c.S3.Prefix, Region: c.S3.Region,
		AccessKey: c.S3.AccessKey, SecretKey: c.S3.SecretKey, Insecure: c.S3.Insecure,
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// mirrors makes the upstream of a configuration.
func (s *Server) mirrors(c *Config) (*mirror.Mirror, error) {
	spool := filepath.Join(c.Root, "spool")
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, errs.System("cannot make the directory of mirrored blobs: %w", err)
	}
	settings := registry.Settings{HostDirs: registry.DefaultHostDirs()}
	var remotes []mirror.Remote
	for _, m := range c.Mirrors {
		if m.Insecure {
			settings.Insecure = append(settings.Insecure, m.Registry)
		}
		remote := mirror.Remote{Prefix: m.Prefix, Registry: m.Registry, Path: m.Path, TTL: time.Duration(m.TTL)}
		if m.Username != "" {
			password := m.Password
			if m.PasswordFile != "" {
				data, err := os.ReadFile(m.PasswordFile)
				if err != nil {
					return nil, errs.InvalidArgument("cannot read the password for %s: %w", m.Registry, err)
				}
				password = strings.TrimRight(string(data), "\r\n")
			}
			remote.Credentials = &registry.AuthConfig{Username: m.Username, Password: password, ServerAddress: m.Registry}
		}
		remotes = append(remotes, remote)
	}
	if err := settings.Check(); err != nil {
		return nil, err
	}
	return mirror.New(mirror.Options{
		Remotes: remotes, Depot: s.depot, Spool: spool, Count: s.metrics.Mirrored, Log: s.log,
		// Those who ask wait: a few attempts, and then what is here.
		Client: registry.New(registry.Options{Settings: settings, UserAgent: "gantry-registry", Attempts: 3}),
	})
}
