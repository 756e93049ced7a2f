package logs

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"
)

// source is one opened file of a log.
type source struct {
	f     *os.File
	gz    bool
	inode uint64 // of what is open
	from  uint64 // of the file a packed one was made from; 0 when it does not say
	last  time.Time
	size  int64

	offset int64 // where to begin, in bytes
	skip   int   // or in entries
	none   bool
}

// listFiles opens the files of a log, oldest first. That nothing was renamed
// meanwhile is certain when a look before and a look after the opening agree.
func listFiles(path string, files int) ([]*source, error) {
	for try := 0; ; try++ {
		before := look(path, files)
		list, err := openFiles(path, files)
		if err == nil && slices.Equal(before, look(path, files)) {
			return list, nil
		}
		closeAll(list)
		if err != nil && !isMissing(err) || try == 1000 {
			return nil, fmt.Errorf("cannot open the log: %w", errors.Join(err))
		}
	}
}

// look returns the inode of each name a log may have, 0 where there is none.
func look(path string, files int) []uint64 {
	out := make([]uint64, 0, 2*files)
	add := func(name string) {
		ino, _ := inodeOf(name)
		out = append(out, ino)
	}
	for i := files - 1; i > 0; i-- {
		add(rotatedName(path, i, true))
		add(rotatedName(path, i, false))
	}
	add(path)
	return out
}

func inodeOf(name string) (uint64, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return st.Ino, nil
}

func openFiles(path string, files int) (list []*source, err error) {
	for i := files - 1; i >= 0; i-- {
		var s *source
		if i == 0 {
			s, err = openSource(path, false)
		} else if s, err = openSource(rotatedName(path, i, false), false); isMissing(err) {
			s, err = openSource(rotatedName(path, i, true), true)
		}
		if isMissing(err) {
			err = nil
			continue
		}
		if err != nil {
			return list, err
		}
		list = append(list, s)
	}
	return list, nil
}

func openSource(name string, gz bool) (*source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	s := &source{f: f, gz: gz, inode: st.Sys().(*syscall.Stat_t).Ino, last: st.ModTime(), size: st.Size()}
	if gz {
		s.last = time.Time{}
		if z, err := gzip.NewReader(f); err == nil {
			var extra gzipExtra
			if json.Unmarshal(z.Extra, &extra) == nil {
				s.from, s.last = extra.Inode, extra.LastTime
			}
		}
	}
	return s, nil
}

func closeAll(list []*source) {
	for _, s := range list {
		s.f.Close()
	}
}

// after returns the files of list that are younger than s, and closes the
// others. When s itself has gone, all of them are.
func (s *source) after(list []*source) []*source {
	// From the youngest: the number of a packed file's original may have been
	// given to a younger file, but the one of s, being open, to no other.
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].inode == s.inode || list[i].gz && !s.gz && list[i].from == s.inode {
			closeAll(list[:i+1])
			return list[i+1:]
		}
	}
	return list
}

// skipAll makes reading begin behind what the file holds now.
func (s *source) skipAll() {
	s.offset, s.skip, s.none = s.size, 0, s.gz
}

// lastTime returns a time that no entry in the file is younger than.
func (s *source) lastTime() time.Time {
	if s.last.IsZero() {
		return time.Now()
	}
	// The file system's clock is a tick behind the one entries are stamped with.
	return s.last.Add(time.Second)
}

// tail makes reading begin at most n entries before the end and returns how
// many there are.
func (s *source) tail(ctx context.Context, c codec, n int) (int, error) {
	if !s.gz {
		off, found, err := c.tail(s.f, s.size, n)
		if err == nil {
			s.offset = off
			return found, nil
		}
		if !errors.Is(err, errDamaged) {
			return 0, fmt.Errorf("cannot read the end of the log: %w", err)
		}
	}
	total, m := 0, Message{}
	for cur := s.cursor(c); ; total++ {
		ok, err := cur.next(&m)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		if total&1023 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	s.skip = max(total-n, 0)
	return total - s.skip, nil
}

// cursor returns a reader of the file from where reading begins.
func (s *source) cursor(c codec) *cursor {
	return &cursor{src: s, codec: c, off: s.offset, done: s.offset, skip: s.skip}
}

// cursor reads entries from a file that may still grow.
type cursor struct {
	src   *source
	codec codec
	z     *gzip.Reader
	off   int64 // of the next byte to read from a plain file
	done  int64 // behind the last entry given out, or skipped
	skip  int
	buf   []byte // read and not decoded
	space []byte
}

const readSize = 64 << 10

// next decodes the next whole entry into m, which stays valid until the call
// after. It reports false at the end of what is there now.
func (c *cursor) next(m *Message) (bool, error) {
	if c.src.none {
		return false, nil
	}
	for {
		n := c.codec.decode(c.buf, m)
		switch {
		case n > 0:
			c.buf, c.done = c.buf[n:], c.done+int64(n)
			if c.skip > 0 {
				c.skip--
				continue
			}
			return true, nil
		case n < 0:
			c.buf, c.done = c.buf[-n:], c.done+int64(-n)
			continue
		}
		if more, err := c.fill(); !more || err != nil {
			return false, err
		}
	}
}

func (c *cursor) fill() (bool, error) {
	if size := len(c.buf) + readSize; cap(c.space) < size {
		space := make([]byte, size+readSize)
		c.buf, c.space = space[:copy(space, c.buf)], space
	} else {
		c.buf = c.space[:copy(c.space, c.buf)]
	}
	room := c.space[len(c.buf):cap(c.space)]
	var n int
	var err error
	if c.src.gz {
		n, err = c.readPacked(room)
	} else {
		n, err = c.readPlain(room)
	}
	c.buf = c.space[:len(c.buf)+n]
	if len(c.buf) == 0 {
		c.buf, c.space = nil, nil // nothing is held while a follower waits
	}
	if n > 0 || isEnd(err) {
		err = nil
	}
	return n > 0, err
}

func (c *cursor) readPlain(p []byte) (int, error) {
	n, err := c.src.f.ReadAt(p, c.off)
	if n == 0 && err == io.EOF {
		// Emptied by hand, or cut behind its last whole entry by a new writer.
		if st, serr := c.src.f.Stat(); serr == nil && st.Size() < c.off {
			if st.Size() < c.done {
				c.done = 0
			}
			c.off, c.buf = c.done, nil
			n, err = c.src.f.ReadAt(p, c.off)
		}
	}
	c.off += int64(n)
	return n, err
}

func (c *cursor) readPacked(p []byte) (int, error) {
	if c.z == nil {
		if _, err := c.src.f.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
		z, err := gzip.NewReader(c.src.f)
		if err != nil {
			// Not a gzip file: nothing that could be read.
			return 0, io.EOF
		}
		c.z = z
	}
	n, err := io.ReadAtLeast(c.z, p, 1)
	if n == 0 && err != nil {
		err = io.EOF
	}
	return n, err
}

func (c *cursor) close() {
	if c != nil {
		c.src.f.Close()
	}
}
