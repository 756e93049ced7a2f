package layer

import (
	"context"

	"golang.org/x/sys/unix"
)

// content copies a file of the size it was found to have. One that shrank
// meanwhile is filled up with zeros, as tar does, so that the archive stays one.
// Holes are not read: that would fill the page cache with them.
func (p *packer) content(fd int, st *unix.Stat_t) error {
	if st.Blocks*512 >= st.Size {
		return p.copyData(fd, 0, st.Size)
	}
	for at := int64(0); at < st.Size; {
		data, end := extent(fd, at, st.Size)
		if err := p.copyZeros(data - at); err != nil {
			return err
		}
		if err := p.copyData(fd, data, end); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// extent finds where in a file the next data begins and ends.
func extent(fd int, at, size int64) (data, end int64) {
	data, err := unix.Seek(fd, at, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return size, size // a hole to the end
	}
	if err != nil {
		return at, size // a file system that does not tell
	}
	end, err = unix.Seek(fd, data, unix.SEEK_HOLE)
	if err != nil {
		end = size
	}
	return min(data, size), min(end, size)
}

func (p *packer) copyZeros(left int64) error {
	for left > 0 {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		n, err := p.tw.Write(zeros[:min(left, int64(len(zeros)))])
		if err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

func (p *packer) copyData(fd int, at, end int64) error {
	for at < end {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		chunk := p.buf[:min(end-at, int64(len(p.buf)))]
		n, err := unix.Pread(fd, chunk, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return p.copyZeros(end - at)
		}
		if _, err := p.tw.Write(chunk[:n]); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
