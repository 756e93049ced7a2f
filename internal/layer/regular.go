package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// regular writes one file. Everything it can it does on the open descriptor,
// and for the common file (root's, no odd mode bits, no attributes) that is
// four system calls: open, write, utimensat, close.
func (u *unpacker) regular(parent *dir, base string, hdr *tar.Header, content io.Reader) error {
	fd := -1
	mode := uint32(hdr.Mode) & 0o777
	err := u.replacing(parent, base, hdr, func() (err error) {
		fd, err = openat(parent.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, mode)
		return err
	})
	if err != nil {
		return err
	}
	err = u.fill(fd, hdr, content)
	if err == nil {
		err = u.fileAttributes(fd, parent, hdr)
	}
	if cerr := unix.Close(fd); err == nil && cerr != unix.EINTR {
		err = cerr // where the disk quota of a network file system shows up
	}
	if err != nil {
		unix.Unlinkat(parent.fd, base, 0)
		return err
	}
	u.result.Size += hdr.Size
	return nil
}

// fill copies the content of an entry. Holes of a sparse one stay holes, and so
// do long runs of zeros in a large one: most archives have no other way to say
// that a file is sparse.
func (u *unpacker) fill(fd int, hdr *tar.Header, content io.Reader) error {
	hole := 0
	switch {
	case isSparse(hdr):
		hole = holeBlock
	case hdr.Size >= minHoles:
		hole = len(zeros)
	}
	if hole > 0 {
		// Also refuses a size the file system cannot have, before the archive
		// makes us read that many zeros.
		if err := unix.Ftruncate(fd, hdr.Size); err != nil {
			return err
		}
	}
	for left := hdr.Size; left > 0; {
		chunk := u.buf[:min(left, int64(len(u.buf)))]
		if _, err := io.ReadFull(content, chunk); err != nil {
			return &entryError{archiveError(err)}
		}
		left -= int64(len(chunk))
		if err := u.write(fd, chunk, hole); err != nil {
			return err
		}
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
	}
	return nil
}

// write writes a part of a file, with holes of the given size if that is not 0.
func (u *unpacker) write(fd int, chunk []byte, hole int) error {
	if hole > 0 {
		return u.writeSparse(fd, chunk, hole)
	}
	if err := u.take(int64(len(chunk))); err != nil {
		return err
	}
	return writeAll(fd, chunk)
}

// take asks for room for so many bytes where there may be none.
func (u *unpacker) take(n int64) error {
	if u.opts.Room == nil {
		return nil
	}
	if u.room -= n; u.room > 0 {
		return nil
	}
	room, err := u.opts.Room()
	if err != nil {
		return &entryError{err}
	}
	u.room = room
	return nil
}

// entrySize is what an entry takes on the disk besides its content, roughly.
func entrySize(hdr *tar.Header) int64 {
	size := int64(holeBlock)
	for _, value := range hdr.PAXRecords {
		size += int64(len(value))
	}
	return size
}

func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

const (
	holeBlock = 4096    // what file systems make holes of
	minHoles  = 1 << 20 // size of a file from which on zeros are looked for
)

var zeros [64 << 10]byte // never written to

// writeSparse writes p at the position of fd, seeking over blocks of zeros.
func (u *unpacker) writeSparse(fd int, p []byte, block int) error {
	for len(p) > 0 {
		n := 0
		hole := false
		for n < len(p) {
			next := p[n:min(n+block, len(p))]
			isZero := bytes.Equal(next, zeros[:len(next)])
			if n == 0 {
				hole = isZero
			} else if isZero != hole {
				break
			}
			n += len(next)
		}
		if hole {
			if _, err := unix.Seek(fd, int64(n), io.SeekCurrent); err != nil {
				return err
			}
		} else if err := u.write(fd, p[:n], 0); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
