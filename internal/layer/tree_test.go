package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// e is an entry of an archive in a test. Type 0 is a regular file, or a
// directory when the name ends in a slash.
type e struct {
	name    string
	typ     byte
	content string // or the target of a link
	mode    int64
	uid     int
	gid     int
	major   int64
	minor   int64
	xattrs  map[string]string
	mtime   time.Time
	pax     map[string]string
}

var someTime = time.Unix(1600000000, 123456789)

func archive(t testing.TB, entries ...e) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, entry := range entries {
		hdr := &tar.Header{
			Name: entry.name, Typeflag: entry.typ, Mode: entry.mode,
			Uid: entry.uid, Gid: entry.gid, ModTime: entry.mtime,
			Devmajor: entry.major, Devminor: entry.minor,
			Format: tar.FormatPAX, PAXRecords: entry.pax,
		}
		if hdr.ModTime.IsZero() {
			hdr.ModTime = someTime
		}
		switch {
		case entry.typ == tar.TypeLink || entry.typ == tar.TypeSymlink:
			hdr.Linkname = entry.content
		case entry.typ == 0 && strings.HasSuffix(entry.name, "/"):
			hdr.Typeflag = tar.TypeDir
		case entry.typ == 0:
			hdr.Typeflag = tar.TypeReg
			hdr.Size = int64(len(entry.content))
		}
		if hdr.Mode == 0 {
			hdr.Mode = 0o644
			if hdr.Typeflag == tar.TypeDir {
				hdr.Mode = 0o755
			}
		}
		for name, value := range entry.xattrs {
			if hdr.PAXRecords == nil {
				hdr.PAXRecords = map[string]string{}
			}
			hdr.PAXRecords["SCHILY.xattr."+name] = value
		}
		if err := w.WriteHeader(hdr); err != nil {
			t.Fatalf("%s: %v", entry.name, err)
		}
		if hdr.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(entry.content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners and devices need root")
	}
}

func openDirectory(t testing.TB, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// unpackTo unpacks into a new directory and returns it.
func unpackTo(t testing.TB, data []byte, opts UnpackOptions) (string, error) {
	t.Helper()
	dir := t.TempDir()
	_, err := Unpack(context.Background(), openDirectory(t, dir), bytes.NewReader(data), opts)
	return dir, err
}

// list describes a tree, a line for each path below its root.
func list(t testing.TB, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == dir {
			return nil
		}
		rel, _ := filepath.Rel(dir, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		line := rel
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			line += "/"
			if value := xattr(p, opaqueXattr); value != "" {
				line += " opaque"
			}
		case unix.S_IFLNK:
			target, _ := os.Readlink(p)
			line += " -> " + target
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += "=" + string(data)
		case unix.S_IFIFO:
			line += "|"
		default:
			line += fmt.Sprintf(" dev %d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

func xattr(path, name string) string {
	buf := make([]byte, 1024)
	n, err := unix.Lgetxattr(path, name, buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}
