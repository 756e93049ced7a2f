package logs

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"
)

// file is the current log file and the rotated ones behind it. It is not safe
// for concurrent use.
type file struct {
	path  string
	set   settings
	codec codec

	f           *os.File // nil after a rotation that could not make a new file
	size        int64
	separator   []byte // to be written before the next entry
	lastTime    time.Time
	compression sync.WaitGroup
}

func openFile(path string, set settings, c codec) (*file, error) {
	f := &file{path: path, set: set, codec: c}
	_, err := os.Lstat(path)
	fresh := isMissing(err)
	if err := f.open(); err != nil {
		return nil, err
	}
	if !fresh {
		f.resumeCompression()
	}
	return f, nil
}

func (f *file) open() error {
	fd, err := os.OpenFile(f.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("cannot open the log: %w", err)
	}
	st, err := fd.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", f.path)
	}
	if err == nil {
		var end int64
		if end, f.separator, err = f.codec.repair(fd, st.Size()); err == nil && end < st.Size() {
			err = fd.Truncate(end)
		}
		f.size = end
	}
	if err != nil {
		fd.Close()
		return fmt.Errorf("cannot continue the log: %w", err)
	}
	f.f = fd
	return nil
}

// full reports whether the next entry, behind pending bytes, belongs in a new file.
func (f *file) full(pending int) bool {
	return f.size+int64(pending) >= f.set.maxSize
}

// write appends whole entries: all of them, or after an error none.
func (f *file) write(b []byte, last time.Time) error {
	if f.f == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	if len(f.separator) > 0 {
		if _, err := f.f.Write(f.separator); err != nil {
			return err
		}
		f.size += int64(len(f.separator))
		f.separator = nil
	}
	n, err := f.f.Write(b)
	if err != nil {
		if n > 0 && f.f.Truncate(f.size) != nil {
			// Half an entry stays; say where it ends before the next one.
			f.size += int64(n)
			_, f.separator, _ = f.codec.repair(f.f, f.size)
		}
		return err
	}
	f.size += int64(n)
	f.lastTime = last
	return nil
}

// rotate moves the current file out of the way and begins a new one. It waits
// for the compression of the file before.
func (f *file) rotate() error {
	f.compression.Wait()
	if f.f != nil {
		defer f.f.Close()
		f.f = nil
	}
	if err := f.shift(); err != nil {
		return fmt.Errorf("cannot rotate the log: %w", err)
	}
	if err := f.open(); err != nil {
		return err
	}
	if f.set.compress && f.set.maxFiles > 1 {
		last := f.lastTime
		f.compression.Go(func() { compress(rotatedName(f.path, 1, false), last) })
	}
	return nil
}

// shift renames from the oldest to the newest: the order readers rely on.
func (f *file) shift() error {
	if f.set.maxFiles < 2 {
		return ignoreMissing(os.Remove(f.path))
	}
	for _, gz := range []bool{false, true} {
		if err := ignoreMissing(os.Remove(rotatedName(f.path, f.set.maxFiles-1, gz))); err != nil {
			return err
		}
	}
	for i := f.set.maxFiles - 1; i > 1; i-- {
		for _, gz := range []bool{false, true} {
			err := os.Rename(rotatedName(f.path, i-1, gz), rotatedName(f.path, i, gz))
			if ignoreMissing(err) != nil {
				return err
			}
		}
	}
	return ignoreMissing(os.Rename(f.path, rotatedName(f.path, 1, false)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (f *file) close() error {
	if f.f == nil {
		return nil
	}
	err := f.f.Close()
	f.f = nil
	return err
}

// resumeCompression finishes what a writer that was killed had begun.
func (f *file) resumeCompression() {
	for i := 1; i < f.set.maxFiles; i++ {
		plain, packed := rotatedName(f.path, i, false), rotatedName(f.path, i, true)
		os.Remove(packed + ".tmp")
		if _, err := os.Lstat(plain); err != nil {
			continue
		}
		if _, err := os.Lstat(packed); err == nil {
			os.Remove(plain)
			continue
		}
		if f.set.compress {
			f.compression.Go(func() { compress(plain, time.Time{}) })
		}
	}
}

// gzipExtra is kept in the header of a compressed file. Docker writes lastTime;
// inode lets a follower find its place again among the compressed files.
type gzipExtra struct {
	LastTime time.Time `json:"lastTime"`
	Inode    uint64    `json:"inode,omitempty"`
}

// compress replaces name by name.gz. When it cannot, name stays as it is, which
// readers understand as well; there is nobody to tell.
func compress(name string, last time.Time) {
	in, err := os.Open(name)
	if err != nil {
		return
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return
	}
	if last.IsZero() {
		last = st.ModTime()
	}
	tmp := name + ".gz.tmp"
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return
	}
	err = pack(out, in, gzipExtra{LastTime: last.UTC(), Inode: st.Sys().(*syscall.Stat_t).Ino})
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, name+".gz")
	}
	if err != nil {
		os.Remove(tmp)
		return
	}
	os.Remove(name)
}

func pack(out io.Writer, in io.Reader, extra gzipExtra) error {
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if z.Extra, err = json.Marshal(extra); err != nil {
		return err
	}
	if _, err := io.Copy(z, in); err != nil {
		return err
	}
	return z.Close()
}
