// Command stat tells what the kernel knows of files: stat [-L] [-c FORMAT]
// FILE..., where FORMAT has GNU's %n %N %s %b %a %A %f %F %u %U %g %G %i %h %d
// %t %T %x %X %y %Y %z %Z.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/toolbox/modetext"
)

const usual = `  File: %N
  Size: %s	Blocks: %b	%F
Device: %d	Inode: %i	Links: %h
Access: (%a/%A)  Uid: (%u/%U)  Gid: (%g/%G)
Access: %x
Modify: %y
Change: %z`

func main() {
	follow := flag.Bool("L", false, "follow links")
	format := flag.String("c", usual, "what to print")
	flag.Parse()
	status := 0
	for _, name := range flag.Args() {
		var st unix.Stat_t
		get := unix.Lstat
		if *follow {
			get = unix.Stat
		}
		if err := get(name, &st); err != nil {
			fmt.Fprintf(os.Stderr, "stat: cannot stat %s: %v\n", name, err)
			status = 1
			continue
		}
		fmt.Println(expand(*format, name, &st))
	}
	os.Exit(status)
}

func expand(format, name string, st *unix.Stat_t) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] == '%' && i+1 < len(format) {
			i++
			b.WriteString(value(format[i], name, st))
			continue
		}
		b.WriteByte(format[i])
	}
	return b.String()
}

func value(letter byte, name string, st *unix.Stat_t) string {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	switch letter {
	case 'n':
		return name
	case 'N':
		if target, err := os.Readlink(name); err == nil {
			return name + " -> " + target
		}
		return name
	case 's':
		return strconv.FormatInt(st.Size, 10)
	case 'b':
		return strconv.FormatInt(st.Blocks, 10)
	case 'a':
		return strconv.FormatUint(uint64(st.Mode&0o7777), 8)
	case 'A':
		return modetext.Of(st.Mode)
	case 'f':
		return strconv.FormatUint(uint64(st.Mode), 16)
	case 'F':
		return kind(st)
	case 'u':
		return number(uint64(st.Uid))
	case 'g':
		return number(uint64(st.Gid))
	case 'U':
		if u, err := user.LookupId(number(uint64(st.Uid))); err == nil {
			return u.Username
		}
		return "UNKNOWN"
	case 'G':
		if g, err := user.LookupGroupId(number(uint64(st.Gid))); err == nil {
			return g.Name
		}
		return "UNKNOWN"
	case 'i':
		return number(st.Ino)
	case 'h':
		return number(uint64(st.Nlink))
	case 'd':
		return number(uint64(st.Dev))
	case 't':
		return strconv.FormatUint(uint64(unix.Major(uint64(st.Rdev))), 16)
	case 'T':
		return strconv.FormatUint(uint64(unix.Minor(uint64(st.Rdev))), 16)
	case 'x', 'X':
		return timeText(letter == 'X', st.Atim)
	case 'y', 'Y':
		return timeText(letter == 'Y', st.Mtim)
	case 'z', 'Z':
		return timeText(letter == 'Z', st.Ctim)
	case '%':
		return "%"
	}
	return "?"
}

func timeText(seconds bool, ts unix.Timespec) string {
	sec, nsec := ts.Unix()
	if seconds {
		return strconv.FormatInt(sec, 10)
	}
	return time.Unix(sec, nsec).Format("2006-01-02 15:04:05.000000000 -0700")
}

func kind(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFLNK:
		return "symbolic link"
	case unix.S_IFCHR:
		return "character special file"
	case unix.S_IFBLK:
		return "block special file"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	if st.Size == 0 {
		return "regular empty file"
	}
	return "regular file"
}
