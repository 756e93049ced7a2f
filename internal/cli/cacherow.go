package cli

import (
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/build"

	"github.com/gantry-containers/gantry/internal/cli/format"
)

// cacheRow is a record of the build cache.
type cacheRow struct {
	c     *build.CacheRecord
	trunc bool
}

const rawCache = `build_cache_id: {{.ID}}
parent_id: {{.Parent}}
build_cache_type: {{.CacheType}}
description: {{.Description}}
created_at: {{.CreatedAt}}
created_since: {{.CreatedSince}}
last_used_at: {{.LastUsedAt}}
last_used_since: {{.LastUsedSince}}
usage_count: {{.UsageCount}}
in_use: {{.InUse}}
shared: {{.Shared}}
`

func cacheHeader() format.Header {
	return format.Header{
		"ID": "CACHE ID", "Parent": "PARENT", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED",
		"LastUsedSince": "LAST USED", "UsageCount": "USAGE", "InUse": "IN USE", "Shared": "SHARED", "Description": "DESCRIPTION",
	}
}

// compareCache puts what was not used for longest first.
func compareCache(x, y *build.CacheRecord) int {
	a, b := x.LastUsedAt, y.LastUsedAt
	switch {
	case a == nil && b != nil:
		return -1
	case a != nil && b == nil:
		return 1
	case a != nil && !a.Equal(*b):
		return a.Compare(*b)
	}
	return strings.Compare(x.ID, y.ID)
}

func (r *cacheRow) IsRow() bool { return true }

func (r *cacheRow) ID() string {
	id := r.c.ID
	if r.trunc {
		id = format.ShortID(id)
	}
	if r.c.InUse {
		id += "*"
	}
	return id
}

func (r *cacheRow) Parent() string {
	parents := strings.Join(r.c.Parents, ", ")
	if r.trunc {
		return format.ShortID(parents)
	}
	return parents
}

func (r *cacheRow) CacheType() string   { return r.c.Type }
func (r *cacheRow) Description() string { return r.c.Description }
func (r *cacheRow) Size() string        { return units.HumanSizeWithPrecision(float64(r.c.Size), 3) }
func (r *cacheRow) CreatedAt() string   { return r.c.CreatedAt.String() }
func (r *cacheRow) CreatedSince() string {
	return units.HumanDuration(time.Since(r.c.CreatedAt)) + " ago"
}
func (r *cacheRow) UsageCount() string { return strconv.Itoa(r.c.UsageCount) }
func (r *cacheRow) InUse() string      { return strconv.FormatBool(r.c.InUse) }
func (r *cacheRow) Shared() string     { return strconv.FormatBool(r.c.Shared) }

func (r *cacheRow) LastUsedAt() string {
	if r.c.LastUsedAt == nil {
		return ""
	}
	return r.c.LastUsedAt.String()
}

func (r *cacheRow) LastUsedSince() string {
	if r.c.LastUsedAt == nil {
		return ""
	}
	return units.HumanDuration(time.Since(*r.c.LastUsedAt)) + " ago"
}
