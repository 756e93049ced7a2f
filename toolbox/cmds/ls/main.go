// Command ls lists files: ls [-1aAdFhilnrRSt] [FILE]...
package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/term"
)

// lister is one call of ls.
type lister struct {
	flags  map[rune]bool
	out    *bufio.Writer
	width  int // of the terminal; 0 is none
	owners owners
	status int
}

// item is one file to show.
type item struct {
	name, path string
	info       fs.FileInfo
}

func main() {
	l := &lister{flags: map[rune]bool{}, out: bufio.NewWriter(os.Stdout), owners: owners{}}
	if w, _, err := term.GetSize(1); err == nil {
		l.width = w
	}
	args := os.Args[1:]
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		if strings.HasPrefix(arg, "--color") {
			continue
		}
		for _, ch := range arg[1:] {
			if !strings.ContainsRune("1aAdFhilnrRStCL", ch) {
				fmt.Fprintf(os.Stderr, "ls: unknown option -%c\nusage: ls [-1aAdFhilnrRSt] [FILE]...\n", ch)
				os.Exit(1)
			}
			l.flags[ch] = true
		}
	}
	if len(args) == 0 {
		args = []string{"."}
	}
	l.list(args)
	l.out.Flush()
	os.Exit(l.status)
}

func (l *lister) failed(err error) {
	l.out.Flush()
	fmt.Fprintf(os.Stderr, "ls: %v\n", err)
	l.status = 1
}

// list shows the files that were named, and then the directories.
func (l *lister) list(args []string) {
	var files []item
	var dirs []string
	for _, arg := range args {
		get := os.Lstat
		if !l.flags['l'] && !l.flags['d'] || l.flags['L'] || strings.HasSuffix(arg, "/") {
			get = os.Stat
		}
		info, err := get(arg)
		if err != nil {
			if info, err = os.Lstat(arg); err != nil {
				l.failed(err)
				continue
			}
		}
		if info.IsDir() && !l.flags['d'] {
			dirs = append(dirs, arg)
			continue
		}
		files = append(files, item{arg, arg, info})
	}
	l.show(files, false)
	for i, dir := range dirs {
		if len(args) > 1 || l.flags['R'] {
			if i > 0 || len(files) > 0 {
				fmt.Fprintln(l.out)
			}
			fmt.Fprintf(l.out, "%s:\n", dir)
		}
		l.dir(dir)
	}
}

func (l *lister) dir(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.failed(err)
		return
	}
	var items []item
	if l.flags['a'] {
		for _, name := range []string{".", ".."} {
			if info, err := os.Lstat(filepath.Join(dir, name)); err == nil {
				items = append(items, item{name, filepath.Join(dir, name), info})
			}
		}
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") && !l.flags['a'] && !l.flags['A'] {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Lstat(path)
		if err != nil {
			l.failed(err)
			continue
		}
		items = append(items, item{e.Name(), path, info})
	}
	l.show(items, true)
	for _, it := range items {
		if l.flags['R'] && it.info.IsDir() && it.name != "." && it.name != ".." {
			fmt.Fprintf(l.out, "\n%s:\n", it.path)
			l.dir(it.path)
		}
	}
}

func (l *lister) sort(items []item) {
	slices.SortStableFunc(items, func(a, b item) (n int) {
		switch {
		case l.flags['t']:
			n = b.info.ModTime().Compare(a.info.ModTime())
		case l.flags['S']:
			n = cmp.Compare(b.info.Size(), a.info.Size())
		}
		if n == 0 {
			n = cmp.Compare(a.name, b.name)
		}
		if l.flags['r'] {
			n = -n
		}
		return n
	})
}

func (l *lister) show(items []item, total bool) {
	l.sort(items)
	if l.flags['l'] || l.flags['n'] {
		l.long(items, total)
		return
	}
	names := make([]string, len(items))
	longest := 0
	for i, it := range items {
		names[i] = l.inode(it) + it.name + l.mark(it)
		longest = max(longest, len(names[i]))
	}
	columns := max(1, l.width/(longest+2))
	if l.width == 0 || l.flags['1'] || columns == 1 {
		for _, name := range names {
			fmt.Fprintln(l.out, name)
		}
		return
	}
	rows := (len(names) + columns - 1) / columns
	for row := range rows {
		for i := row; i < len(names); i += rows {
			pad := longest + 2
			if i+rows >= len(names) {
				pad = 0
			}
			fmt.Fprintf(l.out, "%-*s", pad, names[i])
		}
		fmt.Fprintln(l.out)
	}
}

func (l *lister) inode(it item) string {
	if !l.flags['i'] {
		return ""
	}
	return fmt.Sprintf("%d ", stat(it.info).Ino)
}

func (l *lister) mark(it item) string {
	if !l.flags['F'] {
		return ""
	}
	switch mode := it.info.Mode(); {
	case mode.IsDir():
		return "/"
	case mode&fs.ModeSymlink != 0:
		return "@"
	case mode&fs.ModeNamedPipe != 0:
		return "|"
	case mode&fs.ModeSocket != 0:
		return "="
	case mode&0o111 != 0:
		return "*"
	}
	return ""
}
