// Command id prints who one is: id [-u | -g | -G] [-n] [-r] [USER].
package main

import (
	"flag"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

// identity is a user and the groups, as numbers.
type identity struct {
	uid, gid string
	groups   []string
}

func main() {
	onlyUser := flag.Bool("u", false, "print the user only")
	onlyGroup := flag.Bool("g", false, "print the group only")
	onlyGroups := flag.Bool("G", false, "print all groups only")
	names := flag.Bool("n", false, "print names instead of numbers")
	real := flag.Bool("r", false, "print the real instead of the effective IDs")
	flag.CommandLine.Parse(split(os.Args[1:]))
	id, err := who(flag.Arg(0), *real)
	if err != nil {
		fmt.Fprintf(os.Stderr, "id: %v\n", err)
		os.Exit(1)
	}
	show := func(n, name string) string {
		if *names && name != "" {
			return name
		}
		return n
	}
	switch {
	case *onlyUser:
		fmt.Println(show(id.uid, userName(id.uid)))
	case *onlyGroup:
		fmt.Println(show(id.gid, groupName(id.gid)))
	case *onlyGroups:
		var list []string
		for _, g := range id.groups {
			list = append(list, show(g, groupName(g)))
		}
		fmt.Println(strings.Join(list, " "))
	default:
		var list []string
		for _, g := range id.groups {
			list = append(list, both(g, groupName(g)))
		}
		fmt.Printf("uid=%s gid=%s groups=%s\n", both(id.uid, userName(id.uid)), both(id.gid, groupName(id.gid)), strings.Join(list, ","))
	}
}

// split takes letters apart that were joined, as in -un.
func split(args []string) (list []string) {
	for _, arg := range args {
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' {
			for _, letter := range arg[1:] {
				list = append(list, "-"+string(letter))
			}
			continue
		}
		list = append(list, arg)
	}
	return list
}

func who(name string, real bool) (id identity, err error) {
	if name != "" {
		u, err := user.Lookup(name)
		if err != nil {
			return id, err
		}
		groups, err := u.GroupIds()
		return identity{u.Uid, u.Gid, groups}, err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if real {
		uid, gid = os.Getuid(), os.Getgid()
	}
	id = identity{uid: strconv.Itoa(uid), gid: strconv.Itoa(gid)}
	id.groups = []string{id.gid}
	groups, err := os.Getgroups()
	for _, g := range groups {
		if s := strconv.Itoa(g); !slices.Contains(id.groups, s) {
			id.groups = append(id.groups, s)
		}
	}
	return id, err
}

func both(n, name string) string {
	if name == "" {
		return n
	}
	return n + "(" + name + ")"
}

func userName(id string) string {
	u, err := user.LookupId(id)
	if err != nil {
		return ""
	}
	return u.Username
}

func groupName(id string) string {
	g, err := user.LookupGroupId(id)
	if err != nil {
		return ""
	}
	return g.Name
}
