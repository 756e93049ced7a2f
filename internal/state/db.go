// Package state keeps what the engine must remember: records of containers,
// images, networks and volumes in one embedded database, and the events that
// tell of their changes.
//
// There are two homes for a record. A durable one is in DATA-ROOT/gantry.db and
// is synced before Put returns: what a user was told survives power loss. A
// volatile one is in EXEC-ROOT/gantry.db, on a tmpfs, costs no sync and is gone
// at boot, as the containers it speaks of are. A volatile record hides a durable
// one of the same key. The package knows no manager and no record's meaning.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// DB is the pair of databases. It is safe for use by several goroutines; two
// processes cannot open the same roots at once.
type DB struct {
	durable, volatile *bbolt.DB
}

// Open opens or creates the databases under both roots. It fails within a
// second when another engine holds them.
func Open(dataRoot, execRoot string) (*DB, error) {
	durable, err := open(dataRoot, false)
	if err != nil {
		return nil, err
	}
	volatile, err := open(execRoot, true)
	if err != nil {
		durable.Close()
		return nil, err
	}
	return &DB{durable, volatile}, nil
}

func open(dir string, volatile bool) (*bbolt.DB, error) {
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("cannot make %s: %w", dir, err)
	}
	path := filepath.Join(dir, "gantry.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:        time.Second,
		FreelistType:   bbolt.FreelistMapType,
		NoFreelistSync: true,
		NoSync:         volatile,
		NoGrowSync:     volatile,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("cannot open %s: another gantryd is using it", path)
	}
	if err != nil && volatile {
		// A half-written volatile database is worth nothing: the shim and
		// the kernel know what runs.
		if os.Remove(path) == nil {
			return bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoGrowSync: true, NoFreelistSync: true})
		}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	return db, nil
}

// Close closes both databases.
func (db *DB) Close() error {
	return errors.Join(db.durable.Close(), db.volatile.Close())
}

// Table is the records of one kind, each a T encoded as JSON under a key.
type Table[T any] struct {
	db   *DB
	name []byte
}

// NewTable returns the table of that name. Tables need not be created.
func NewTable[T any](db *DB, name string) *Table[T] {
	return &Table[T]{db, []byte(name)}
}

// Put stores the record durably: it is on disk when Put returns. A volatile
// record of the key is dropped.
func (t *Table[T]) Put(key string, record *T) error { return t.db.PutAll(t.Change(key, record)) }

// Change is a record that PutAll is to store.
type Change struct {
	table, key, data []byte
	err              error
}

func (c *Change) String() string { return fmt.Sprintf("%s %s", c.table, c.key) }

// Change is what PutAll takes for what Put would store.
func (t *Table[T]) Change(key string, record *T) Change {
	c := Change{table: t.name, key: []byte(key)}
	if c.data, c.err = json.Marshal(record); c.err != nil {
		c.err = fmt.Errorf("cannot encode %s: %w", &c, c.err)
	}
	return c
}

// PutAll stores records, of whatever tables, as Put does, but either all of them or,
// should this process die meanwhile or an error be returned, none.
func (db *DB) PutAll(changes ...Change) error {
	if err := put(db.durable, changes...); err != nil {
		return err
	}
	return remove(db.volatile, changes...)
}

// PutVolatile stores the record until the machine goes down, without a sync.
func (t *Table[T]) PutVolatile(key string, record *T) error {
	return put(t.db.volatile, t.Change(key, record))
}

func put(db *bbolt.DB, changes ...Change) error {
	for _, c := range changes {
		if c.err != nil {
			return c.err
		}
	}
	if len(changes) == 0 {
		return nil
	}
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, c := range changes {
			b, err := tx.CreateBucketIfNotExists(c.table)
			if err == nil {
				err = b.Put(c.key, c.data)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot record %s: %w", &changes[0], err)
	}
	return nil
}

// Delete removes the record from both homes. A key that is not there is no
// error, and costs no sync.
func (t *Table[T]) Delete(key string) error {
	c := Change{table: t.name, key: []byte(key)}
	return errors.Join(remove(t.db.volatile, c), remove(t.db.durable, c))
}

// remove deletes the records of the keys, whichever are there.
func remove(db *bbolt.DB, keys ...Change) error {
	var there []Change
	db.View(func(tx *bbolt.Tx) error {
		for _, c := range keys {
			if b := tx.Bucket(c.table); b != nil && b.Get(c.key) != nil {
				there = append(there, c)
			}
		}
		return nil
	})
	if len(there) == 0 {
		return nil
	}
	err := db.Update(func(tx *bbolt.Tx) error {
		for _, c := range there {
			if err := tx.Bucket(c.table).Delete(c.key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot delete %s: %w", &there[0], err)
	}
	return nil
}

// Get returns the record of the key, volatile before durable; ok is false when
// there is none.
func (t *Table[T]) Get(key string) (record *T, ok bool, err error) {
	for _, db := range []*bbolt.DB{t.db.volatile, t.db.durable} {
		err = db.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket(t.name)
			if b == nil {
				return nil
			}
			data := b.Get([]byte(key))
			if data == nil {
				return nil
			}
			ok, record = true, new(T)
			return json.Unmarshal(data, record)
		})
		if err != nil {
			return nil, ok, fmt.Errorf("cannot read %s %s: %w", t.name, key, err)
		}
		if ok {
			return record, true, nil
		}
	}
	return nil, false, nil
}

// All returns every record of the table. A record that cannot be decoded is
// left out and named in the error, which comes with the others.
func (t *Table[T]) All() (map[string]*T, error) {
	all := map[string]*T{}
	var broken []error
	for _, db := range []*bbolt.DB{t.db.durable, t.db.volatile} {
		err := db.View(func(tx *bbolt.Tx) error {
			b := tx.Bucket(t.name)
			if b == nil {
				return nil
			}
			return b.ForEach(func(key, data []byte) error {
				record := new(T)
				if err := json.Unmarshal(data, record); err != nil {
					broken = append(broken, fmt.Errorf("cannot read %s %s: %w", t.name, key, err))
					return nil
				}
				all[string(key)] = record
				return nil
			})
		})
		if err != nil {
			return all, err
		}
	}
	return all, errors.Join(broken...)
}
