// Command chown changes owners: chown [-R] [-h] [USER][:GROUP] FILE...
package main

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

func main() {
	recursive := flag.Bool("R", false, "descend into directories")
	link := flag.Bool("h", false, "change links, not what they point to")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: chown [-R] [-h] [USER][:GROUP] FILE...")
		os.Exit(1)
	}
	uid, gid, err := parse(flag.Arg(0))
	if err != nil {
		fmt.Fprintf(os.Stderr, "chown: %v\n", err)
		os.Exit(1)
	}
	change := os.Chown
	if *link || *recursive {
		change = os.Lchown
	}
	status := 0
	failed := func(err error) {
		fmt.Fprintf(os.Stderr, "chown: %v\n", err)
		status = 1
	}
	for _, name := range flag.Args()[1:] {
		if !*recursive {
			if err := change(name, uid, gid); err != nil {
				failed(err)
			}
			continue
		}
		filepath.WalkDir(name, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				err = change(path, uid, gid)
			}
			if err != nil {
				failed(err)
			}
			return nil
		})
	}
	os.Exit(status)
}

// parse reads names or numbers; -1 is one that stays.
func parse(s string) (uid, gid int, err error) {
	uid, gid = -1, -1
	name, group, _ := strings.Cut(s, ":")
	if name != "" {
		if uid, err = strconv.Atoi(name); err != nil {
			u, err := user.Lookup(name)
			if err != nil {
				return 0, 0, err
			}
			uid, _ = strconv.Atoi(u.Uid)
		}
	}
	if group != "" {
		if gid, err = strconv.Atoi(group); err != nil {
			g, err := user.LookupGroup(group)
			if err != nil {
				return 0, 0, err
			}
			gid, _ = strconv.Atoi(g.Gid)
		}
	}
	return uid, gid, nil
}
