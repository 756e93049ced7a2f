package access

import (
	"path"
	"slices"
	"strings"

	"github.com/gantry-containers/gantry/internal/errs"
)

// Rights are a set of what may be done with a repository.
type Rights uint8

// The rights. Write and Delete imply Read: a push asks what is there already.
const (
	Read Rights = 1 << iota
	Write
	Delete

	All = Read | Write | Delete
)

// Has tells whether all of need are in the set.
func (r Rights) Has(need Rights) bool { return r&need == need }

// Actions are the rights in the words of token scopes: pull, push, delete.
func (r Rights) Actions() []string {
	actions := []string{}
	for right, action := range map[Rights]string{Read: "pull", Write: "push", Delete: "delete"} {
		if r.Has(right) {
			actions = append(actions, action)
		}
	}
	slices.SortFunc(actions, func(a, b string) int { return int(rightOf(a)) - int(rightOf(b)) })
	return actions
}

// rightOf is what an action of a token scope stands for.
func rightOf(action string) Rights {
	switch action {
	case "pull":
		return Read
	case "push":
		return Write
	case "delete":
		return Delete
	case "*":
		return All
	}
	return 0
}

// Rule gives rights to repositories to users.
type Rule struct {
	// Repositories are patterns: * stands for anything but a slash, a last
	// component ** for everything below, ${user} for the name of the user.
	Repositories []string `toml:"repositories"`
	// Users are names of users, @GROUP, * for everybody with an account, or
	// "anonymous" for everybody.
	Users []string `toml:"users"`
	// Allow lists "read", "write" and "delete".
	Allow []string `toml:"allow"`
}

// ruleset is the rules, checked.
type ruleset struct {
	rules     []rule
	groups    map[string][]string
	anonymous bool // somebody without an account has a right
}

type rule struct {
	patterns []string
	users    []string
	rights   Rights
}

const anonymous = "anonymous"

func compile(rules []Rule, groups map[string][]string) (*ruleset, error) {
	s := &ruleset{groups: groups}
	for i, from := range rules {
		r := rule{patterns: from.Repositories, users: from.Users}
		if len(r.patterns) == 0 || len(r.users) == 0 || len(from.Allow) == 0 {
			return nil, errs.InvalidArgument("access rule %d needs repositories, users and what to allow", i+1)
		}
		for _, p := range r.patterns {
			if !validPattern(p) {
				return nil, errs.InvalidArgument("access rule %d: %q is no pattern of repositories: ** stands at the end only", i+1, p)
			}
		}
		for _, user := range r.users {
			if group, ok := strings.CutPrefix(user, "@"); ok && groups[group] == nil {
				return nil, errs.InvalidArgument("access rule %d: there is no group %s", i+1, group)
			}
			s.anonymous = s.anonymous || user == anonymous
		}
		for _, word := range from.Allow {
			switch word {
			case "read":
				r.rights |= Read
			case "write":
				r.rights |= Write | Read
			case "delete":
				r.rights |= Delete | Read
			default:
				return nil, errs.InvalidArgument("access rule %d: cannot allow %q, only read, write and delete", i+1, word)
			}
		}
		s.rules = append(s.rules, r)
	}
	return s, nil
}

func validPattern(p string) bool {
	head, _ := strings.CutSuffix(p, "**")
	if head != p && head != "" && !strings.HasSuffix(head, "/") {
		return false
	}
	_, err := path.Match(head, "")
	return err == nil && p != "" && !strings.Contains(head, "**")
}

// rights of a user, who is nobody when the name is empty. accounts says that
// there are any: an account gives all rights where there are no rules.
func (s *ruleset) rights(user, repository string, accounts bool) Rights {
	if len(s.rules) == 0 && accounts && user != "" {
		return All
	}
	var rights Rights
	for _, r := range s.rules {
		if r.rights&^rights != 0 && s.names(r.users, user) && r.matches(user, repository) {
			rights |= r.rights
		}
	}
	return rights
}

func (s *ruleset) names(users []string, user string) bool {
	for _, name := range users {
		group, isGroup := strings.CutPrefix(name, "@")
		switch {
		case name == anonymous:
			return true
		case user == "":
		case isGroup && slices.Contains(s.groups[group], user), name == "*":
			return true
		case name == user:
			return true
		}
	}
	return false
}

func (r *rule) matches(user, repository string) bool {
	for _, p := range r.patterns {
		if strings.Contains(p, "${user}") {
			if !plain(user) {
				continue
			}
			p = strings.ReplaceAll(p, "${user}", user)
		}
		head, below := strings.CutSuffix(p, "**")
		if below {
			// The head is matched against as many components as it has.
			depth := strings.Count(head, "/")
			if head == "" {
				return true
			}
			parts := strings.SplitN(repository, "/", depth+1)
			if len(parts) <= depth {
				continue
			}
			head, repository := strings.TrimSuffix(head, "/"), strings.Join(parts[:depth], "/")
			if ok, _ := path.Match(head, repository); ok {
				return true
			}
			continue
		}
		if ok, _ := path.Match(p, repository); ok {
			return true
		}
	}
	return false
}

// plain tells whether a user's name may stand in a pattern: none that is a
// pattern itself, and none that reaches into another's repositories.
func plain(user string) bool {
	return user != "" && !strings.ContainsAny(user, `*?[]\/`)
}
