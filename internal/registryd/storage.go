package registryd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

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
	id, lock, err := ownName(c.Root)
	if err != nil {
		return nil, err
	}
	b, err := bucket.Open(ctx, bucket.Options{
		Owner: id, ReadOnly: c.ReadOnly,
		Endpoint: c.S3.Endpoint, Bucket: c.S3.Bucket, Prefix: c.S3.Prefix, Region: c.S3.Region,
		AccessKey: c.S3.AccessKey, SecretKey: c.S3.SecretKey, Insecure: c.S3.Insecure,
	})
	if err != nil {
		lock.Close()
		return nil, err
	}
	return ownedBucket{b, lock}, nil
}

// ownedBucket is a bucket and the lock of the name it is owned by.
type ownedBucket struct {
	*bucket.Bucket
	lock *os.File
}

// Close implements depot.Depot.
func (b ownedBucket) Close() error {
	return errors.Join(b.Bucket.Close(), b.lock.Close())
}

// ownName is the name by which the process that has the root owns a bucket. It
// is kept below the root and locked for as long as the file is open: a process
// that is started again after a crash has its bucket back at once, and two never
// have the same name.
func ownName(root string) (id string, lock *os.File, err error) {
	lock, err = os.OpenFile(filepath.Join(root, "owner"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return "", nil, errs.System("cannot open the registry's name: %w", err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return "", nil, errs.Conflict("the registry's directory %s is in use by another process", root)
	}
	if err != nil {
		return "", nil, errs.System("cannot lock the registry's name: %w", err)
	}
	data, err := io.ReadAll(lock)
	if err != nil {
		return "", nil, errs.System("cannot read the registry's name: %w", err)
	}
	if id = strings.TrimSpace(string(data)); id != "" {
		return id, lock, nil
	}
	id = rand.Text()
	if _, err = fmt.Fprintln(lock, id); err != nil {
		return "", nil, errs.System("cannot keep the registry's name: %w", err)
	}
	return id, lock, nil
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
