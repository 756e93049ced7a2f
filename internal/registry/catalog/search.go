package catalog

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Repository is a repository as lists show it.
type Repository struct {
	Name        string    `json:"name"`
	Description string    `json:"description"`
	Stars       int       `json:"stars"`
	Starred     bool      `json:"starred"` // by who asks
	Pulls       int64     `json:"pulls"`
	Updated     time.Time `json:"updated"`
}

// Query is what is searched.
type Query struct {
	Text string // words, all of which must occur; none finds everything
	Sort string // "stars", "pulls", "updated", "name"; else how well it fits
	Who  string // whose stars are told
	// MayRead tells which repositories exist for who asks.
	MayRead func(name string) bool
}

// maxQuery is how much of a query is looked at, in bytes: a search holds up
// everything else for its number of words times that of repositories.
const maxQuery = 256

// Search finds repositories, the best first.
func (c *Catalog) Search(q Query) []Repository {
	words := strings.Fields(strings.ToLower(q.Text[:min(len(q.Text), maxQuery)]))
	type hit struct {
		Repository
		score int
	}
	var hits []hit
	c.mu.Lock()
	for name, e := range c.entries {
		if e.Updated.IsZero() {
			continue // stars of something that is not there yet
		}
		if score := e.score(words); score > 0 && q.MayRead(name) {
			hits = append(hits, hit{e.shown(q.Who), score})
		}
	}
	c.mu.Unlock()
	slices.SortFunc(hits, func(a, b hit) int {
		var order int
		switch q.Sort {
		case "name":
		case "stars":
			order = cmp.Compare(b.Stars, a.Stars)
		case "pulls":
			order = cmp.Compare(b.Pulls, a.Pulls)
		case "updated":
			order = b.Updated.Compare(a.Updated)
		default:
			order = cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(b.Stars, a.Stars), cmp.Compare(b.Pulls, a.Pulls))
		}
		return cmp.Or(order, strings.Compare(a.Name, b.Name))
	})
	found := make([]Repository, len(hits))
	for i, h := range hits {
		found[i] = h.Repository
	}
	return found
}

func (e *entry) shown(who string) Repository {
	return Repository{e.Name, e.Description, len(e.stars), who != "" && e.stars[who], e.Pulls, e.Updated}
}

// score is 0 for what does not have all the words.
func (e *entry) score(words []string) int {
	if len(words) == 0 {
		return 1
	}
	description := strings.ToLower(e.Description)
	base := e.Name[strings.LastIndexByte(e.Name, '/')+1:]
	total := 0
	for _, word := range words {
		switch {
		case e.Name == word:
			total += 100
		case base == word:
			total += 80
		case strings.HasPrefix(e.Name, word), strings.HasPrefix(base, word):
			total += 60
		case strings.Contains(e.Name, word):
			total += 30
		case strings.Contains(description, word):
			total += 10
		default:
			return 0
		}
	}
	return total
}

// get is one repository.
func (c *Catalog) get(name, who string) (Repository, []Push, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[name]
	if e == nil || e.Updated.IsZero() {
		return Repository{}, nil, false
	}
	return e.shown(who), slices.Clone(e.Pushes), true
}

// readmeOf is the manifest of the README artifact that was pushed last.
func (c *Catalog) readmeOf(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[name]; e != nil {
		return e.Readme
	}
	return ""
}

// maxBrowsers bounds the stars of a repository where a voter is whoever says that
// it is another browser: each is a record.
const maxBrowsers = 10_000

// What voters are.
const (
	userVoter    = "user"
	browserVoter = "browser"
)

// voter is who gives a star, as the last word of its record: a user, or the
// browser of somebody without an account.
func voter(kind, id string) string {
	sum := sha256.Sum256([]byte(id))
	return kind + "." + hex.EncodeToString(sum[:16])
}

// Star gives or takes back the star of one voter. It is durable when it returns.
func (c *Catalog) Star(ctx context.Context, name, who string, give bool) error {
	c.mu.Lock()
	e := c.entries[name]
	known, given := e != nil && e.stars[who], 0
	if e != nil {
		given = len(e.stars)
	}
	c.mu.Unlock()
	if e == nil {
		return errs.NotFound("there is no repository %s", name)
	}
	if give && !known && given >= maxBrowsers && strings.HasPrefix(who, browserVoter+".") {
		return errs.Forbidden("repository %s has as many stars as a registry without accounts keeps", name)
	}
	if known == give {
		return nil
	}
	key := starPrefix + word(name) + "/" + who
	var err error
	if give {
		err = c.depot.PutRecord(ctx, key, []byte("{}"))
	} else {
		err = c.depot.DeleteRecord(ctx, key)
	}
	if err != nil {
		return errs.System("the star was not written: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if give {
		e.star(who)
	} else {
		delete(e.stars, who)
	}
	return nil
}
