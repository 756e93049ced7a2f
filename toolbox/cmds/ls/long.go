package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/toolbox/modetext"
)

// owners remembers names by number.
type owners map[string]string

func (o owners) user(uid uint32) string {
	return o.find("u", uid, func(id string) string {
		if u, err := user.LookupId(id); err == nil {
			return u.Username
		}
		return id
	})
}

func (o owners) group(gid uint32) string {
	return o.find("g", gid, func(id string) string {
		if g, err := user.LookupGroupId(id); err == nil {
			return g.Name
		}
		return id
	})
}

func (o owners) find(kind string, n uint32, look func(string) string) string {
	id := strconv.FormatUint(uint64(n), 10)
	if _, ok := o[kind+id]; !ok {
		o[kind+id] = look(id)
	}
	return o[kind+id]
}

func stat(info fs.FileInfo) *syscall.Stat_t { return info.Sys().(*syscall.Stat_t) }

// long shows all there is to know, in columns as wide as they need to be.
func (l *lister) long(items []item, total bool) {
	rows := make([][5]string, len(items))
	var width [5]int
	blocks := int64(0)
	for i, it := range items {
		st := stat(it.info)
		blocks += st.Blocks
		rows[i] = [5]string{strconv.FormatUint(uint64(st.Nlink), 10), l.owners.user(st.Uid), l.owners.group(st.Gid),
			l.size(it.info, st), when(it.info.ModTime())}
		if l.flags['n'] {
			rows[i][1], rows[i][2] = strconv.Itoa(int(st.Uid)), strconv.Itoa(int(st.Gid))
		}
		for c, text := range rows[i] {
			width[c] = max(width[c], len(text))
		}
	}
	if total {
		fmt.Fprintf(l.out, "total %d\n", blocks/2)
	}
	for i, it := range items {
		r := rows[i]
		fmt.Fprintf(l.out, "%s%s %*s %-*s %-*s %*s %s %s%s", l.inode(it), modetext.Of(stat(it.info).Mode),
			width[0], r[0], width[1], r[1], width[2], r[2], width[3], r[3], r[4], it.name, l.mark(it))
		if it.info.Mode()&fs.ModeSymlink != 0 {
			if target, err := os.Readlink(it.path); err == nil {
				fmt.Fprintf(l.out, " -> %s", target)
			}
		}
		fmt.Fprintln(l.out)
	}
}

func (l *lister) size(info fs.FileInfo, st *syscall.Stat_t) string {
	if info.Mode()&fs.ModeDevice != 0 {
		return fmt.Sprintf("%d, %d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
	}
	n := info.Size()
	if !l.flags['h'] || n < 1024 {
		return strconv.FormatInt(n, 10)
	}
	f, unit := float64(n), 0
	for f >= 1024 && unit < 5 {
		f, unit = f/1024, unit+1
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + "?KMGTP"[unit:unit+1]
}

// when shows the time of day for what is recent, and the year otherwise.
func when(t time.Time) string {
	if age := time.Since(t); age > 180*24*time.Hour || age < -time.Hour {
		return t.Format("Jan _2  2006")
	}
	return t.Format("Jan _2 15:04")
}
