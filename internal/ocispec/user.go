package ocispec

import (
	"bytes"
	"io"

	"github.com/moby/sys/user"
)

// ResolveUser finds who "user[:group]" is, by the passwd and group files of the
// container's own root; either may be nil when the root has none. The empty
// string is root. Names of more groups add to the supplementary ones.
func ResolveUser(spec string, passwd, group []byte, more []string) (*User, error) {
	defaults := &user.ExecUser{Home: "/"}
	found, err := user.GetExecUser(spec, defaults, reader(passwd), reader(group))
	if err != nil {
		return nil, invalid("%w", err)
	}
	u := &User{UID: uint32(found.Uid), GID: uint32(found.Gid), Home: found.Home}
	// The primary group is also a supplementary one: a program that changes its
	// group could otherwise escape what is forbidden to it (CVE-2022-36109).
	u.Groups = append(u.Groups, u.GID)
	for _, g := range found.Sgids {
		u.Groups = append(u.Groups, uint32(g))
	}
	if len(more) > 0 {
		extra, err := user.GetAdditionalGroups(more, reader(group))
		if err != nil {
			return nil, invalid("%w", err)
		}
		for _, g := range extra {
			u.Groups = append(u.Groups, uint32(g))
		}
	}
	u.Groups = unique(u.Groups)
	return u, nil
}

func unique(groups []uint32) []uint32 {
	seen := map[uint32]bool{}
	kept := groups[:0]
	for _, g := range groups {
		if !seen[g] {
			seen[g] = true
			kept = append(kept, g)
		}
	}
	return kept
}

func reader(b []byte) io.Reader {
	if b == nil {
		return nil
	}
	return bytes.NewReader(b)
}
