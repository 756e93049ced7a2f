package vm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
)

// file is one file of the initial file system: of the host, or its content.
type file struct {
	path string
	data []byte
}

const (
	modeDir  = 0o040755
	modeFile = 0o100755 // those of the host are programs
	modeData = 0o100644
	modeChar = 0o020600
)

// writeCPIO writes an initial file system in the "newc" format the kernel
// unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
func writeCPIO(name string, files map[string]file) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := &cpio{w: bufio.NewWriterSize(f, 1<<20)}
	made := map[string]bool{"/": true}
	w.dir("/dev", made)
	// The first process has no console without it.
	w.entry("dev/console", modeChar, 5, 1, nil, 0)
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		w.dir(path.Dir(n), made)
		if err := w.file(n[1:], files[n]); err != nil {
			return err
		}
	}
	w.dir("/tmp", made)
	w.entry("TRAILER!!!", 0, 0, 0, nil, 0)
	if w.err != nil {
		return w.err
	}
	if err := w.w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

type cpio struct {
	w   *bufio.Writer
	ino int
	err error
}

func (c *cpio) dir(name string, made map[string]bool) {
	if made[name] {
		return
	}
	made[name] = true
	c.dir(path.Dir(name), made)
	c.entry(name[1:], modeDir, 0, 0, nil, 0)
}

func (c *cpio) file(name string, f file) error {
	if f.path == "" {
		b := f.data
		c.entry(name, modeData, 0, 0, func(w io.Writer) error { _, err := w.Write(b); return err }, int64(len(b)))
		return c.err
	}
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	c.entry(name, modeFile, 0, 0, func(w io.Writer) error { _, err := io.CopyN(w, in, st.Size()); return err }, st.Size())
	return c.err
}

// entry writes a header, the name and the content, each padded to four bytes.
func (c *cpio) entry(name string, mode, major, minor int, content func(io.Writer) error, size int64) {
	if c.err != nil {
		return
	}
	c.ino++
	const headerLen = 110
	_, c.err = fmt.Fprintf(c.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.ino, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	c.pad(headerLen + len(name) + 1)
	if content != nil && c.err == nil {
		c.err = content(c.w)
		c.pad(int(size % 4))
	}
}

func (c *cpio) pad(written int) {
	for range (4 - written%4) % 4 {
		if c.err == nil {
			c.err = c.w.WriteByte(0)
		}
	}
}
