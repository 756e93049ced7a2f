package access

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/gantry-containers/gantry/internal/errs"
)

// accounts are the users of an htpasswd file.
type accounts struct {
	path string
	log  *slog.Logger
	gate chan struct{} // bounds how many cores guessed passwords can take
	key  []byte        // of the fingerprints in verified; never leaves the process

	mu       sync.Mutex // guards what follows
	users    map[string][]byte
	stamp    stamp
	racy     bool   // the file was young when it was read: it may have changed since without showing
	broken   string // why the file as it is now is not used; logged once
	dummy    []byte // checked for users who do not exist
	verified map[fingerprint]time.Time
}

type fingerprint [sha256.Size]byte

type stamp struct {
	modified time.Time
	size     int64
	inode    any
}

const (
	verifiedFor   = 5 * time.Minute
	verifiedLimit = 4096
	racyAge       = 2 * time.Second
)

func openAccounts(path string, log *slog.Logger) (*accounts, error) {
	a := &accounts{
		path: path, log: log,
		gate:     make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		key:      make([]byte, 32),
		verified: map[fingerprint]time.Time{},
	}
	_, _ = rand.Read(a.key) // never fails, by its documentation
	a.mu.Lock()
	defer a.mu.Unlock()
	return a, a.read()
}

// read takes the file over. The caller holds mu.
func (a *accounts) read() error {
	info, err := os.Stat(a.path)
	if err != nil {
		return errs.InvalidArgument("cannot read the accounts: %w", err)
	}
	data, err := os.ReadFile(a.path)
	if err != nil {
		return errs.InvalidArgument("cannot read the accounts: %w", err)
	}
	users, err := parseHtpasswd(data)
	if err != nil {
		return errs.InvalidArgument("cannot read the accounts of %s: %w", a.path, err)
	}
	cost := bcrypt.DefaultCost
	for _, hash := range users {
		if c, err := bcrypt.Cost(hash); err == nil {
			cost = c
			break
		}
	}
	if old, err := bcrypt.Cost(a.dummy); err != nil || old != cost {
		if a.dummy, err = bcrypt.GenerateFromPassword(a.key[:16], cost); err != nil {
			return errs.System("cannot prepare the accounts: %w", err)
		}
	}
	a.users, a.stamp, a.broken = users, stampOf(info), ""
	a.racy = time.Since(info.ModTime()) < racyAge
	return nil
}

func stampOf(info fs.FileInfo) stamp {
	return stamp{info.ModTime(), info.Size(), inode(info)}
}

// refresh reads the file again when it has changed. A file that cannot be read
// leaves the accounts as they were: it may be half written. The caller holds mu.
func (a *accounts) refresh() {
	info, err := os.Stat(a.path)
	if err == nil && !a.racy && stampOf(info) == a.stamp {
		return
	}
	if err == nil {
		err = a.read()
	}
	if err != nil && err.Error() != a.broken {
		a.broken = err.Error()
		a.log.Error("the accounts stay as they were", "error", err)
	}
}

func parseHtpasswd(data []byte) (map[string][]byte, error) {
	users := map[string][]byte{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if !ok || user == "" {
			return nil, errs.InvalidArgument("line %d is not USER:HASH", n)
		}
		if user == anonymous || strings.HasPrefix(user, "@") || user == "*" {
			return nil, errs.InvalidArgument("line %d: %q has a meaning of its own in rules and cannot be a user", n, user)
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, errs.InvalidArgument("line %d: the password of %q is not hashed with bcrypt (htpasswd -B)", n, user)
		}
		users[user] = []byte(hash)
	}
	return users, lines.Err()
}

// hash of a user's password; one nobody knows for somebody who does not exist.
func (a *accounts) hash(user string) (hash []byte, exists bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refresh()
	if hash, ok := a.users[user]; ok {
		return hash, true
	}
	return a.dummy, false
}

// check verifies a password. The work is the same for a user who exists and for
// one who does not.
//
// bcrypt takes tens of milliseconds by intent, and clients send the password
// with every request, so one that was right is remembered for five minutes. What
// is remembered is an HMAC, under a key of this process, of user, password and
// the hash in the file: nothing that could be tried offline without the
// process's memory, where the passwords of running requests are anyway; useless
// once the file has another hash; and a guess that is wrong still costs bcrypt
// and counts against whoever makes it.
func (a *accounts) check(ctx context.Context, user, password string, t *attempt) error {
	hash, exists := a.hash(user)
	print := a.fingerprint(user, password, hash)
	if a.remembers(print) && exists {
		return nil
	}
	if err := t.begin(ctx); err != nil {
		return err
	}
	select {
	case a.gate <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// Many guesses may have begun at once: those before this one count.
	if err := t.refused(); err != nil {
		<-a.gate
		return err
	}
	err := bcrypt.CompareHashAndPassword(hash, []byte(password))
	if err != nil || !exists {
		t.failed() // before the next one is let in
	}
	<-a.gate
	if err != nil || !exists {
		return errs.Unauthorized("incorrect username or password")
	}
	t.succeeded()
	a.remember(print)
	return nil
}

func (a *accounts) fingerprint(user, password string, hash []byte) fingerprint {
	mac := hmac.New(sha256.New, a.key)
	for _, part := range [][]byte{[]byte(user), []byte(password), hash} {
		var length [8]byte
		for i := range length {
			length[i] = byte(len(part) >> (8 * i))
		}
		mac.Write(length[:])
		mac.Write(part)
	}
	return fingerprint(mac.Sum(nil))
}

func (a *accounts) remembers(print fingerprint) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	until, ok := a.verified[print]
	if ok && time.Now().After(until) {
		delete(a.verified, print)
		return false
	}
	return ok
}

func (a *accounts) remember(print fingerprint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.verified) >= verifiedLimit {
		clear(a.verified) // costs each of them one bcrypt
	}
	a.verified[print] = time.Now().Add(verifiedFor)
}

// tag stands for the present password of a user in tokens: they end with it. It
// is of the hash, not of the password, and says nothing about either.
func (a *accounts) tag(user string) string {
	hash, exists := a.hash(user)
	if !exists {
		return ""
	}
	sum := sha256.Sum256(append([]byte("gantry token of "+user+":"), hash...))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// current tells whether the tag is that of the user's password now.
func (a *accounts) current(user, tag string) bool {
	return tag != "" && hmac.Equal([]byte(a.tag(user)), []byte(tag))
}
