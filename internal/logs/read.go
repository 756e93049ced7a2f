package logs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// ReadOptions choose what Read returns.
type ReadOptions struct {
	Since, Until   time.Time // zero: no limit; both inclusive
	Tail           int       // only the last entries of both streams; negative: all
	Follow         bool      // wait for more until the container has ended
	Stdout, Stderr bool
}

var errStop = errors.New("stop")

// Read gives send the entries of the log c, oldest first, from the rotated files
// and the current one. With Follow it goes on until ended is closed and all is
// read, until ctx is done, or until the clock has passed Until. A nil ended
// never ends. Damaged and half entries are skipped.
//
// Every entry is given exactly once, however often the log is rotated meanwhile,
// unless a follower is so slow that files are removed before it comes to them.
//
// An error of send ends the reading and is returned. The driver none has nothing
// to read: errdefs.ErrNotImplemented.
func Read(ctx context.Context, c Config, o ReadOptions, ended <-chan struct{}, send func(*Message) error) error {
	if c.Driver == None {
		return errs.NotImplemented("configured logging driver does not support reading")
	}
	set, err := parse(c.Driver, c.Opts)
	if err != nil {
		return err
	}
	r := &reader{ctx: ctx, conf: c, files: set.maxFiles, opts: o, send: send}
	if err := r.run(ended); err != nil && err != errStop {
		return err
	}
	return nil
}

type reader struct {
	ctx   context.Context
	conf  Config
	files int
	opts  ReadOptions
	send  func(*Message) error

	begun bool // an entry at or after Since was seen
	seen  int
	cur   *cursor
}

func (r *reader) run(ended <-chan struct{}) error {
	var wake <-chan struct{}
	if r.opts.Follow {
		// Watch first, look then: nothing written in between goes unnoticed.
		w, stop := watch(r.conf.Path)
		defer stop()
		wake = w
	}
	defer func() { r.cur.close() }()
	list, err := listFiles(r.conf.Path, r.files)
	if err != nil {
		return err
	}
	if err := r.start(list); err != nil {
		closeAll(list)
		return err
	}
	for i, s := range list {
		if err := r.read(s); err != nil {
			closeAll(list[i:])
			return err
		}
	}
	if !r.opts.Follow {
		return nil
	}
	return r.follow(wake, ended)
}

// start finds where in list the reading begins: Tail entries before the end, and
// not in files that are older than Since.
func (r *reader) start(list []*source) error {
	want := r.opts.Tail
	for i := len(list) - 1; i >= 0; i-- {
		s := list[i]
		switch {
		case r.opts.Tail >= 0 && want == 0:
			s.skipAll()
		case r.opts.Tail >= 0:
			found, err := s.tail(r.ctx, newCodec(&r.conf), want)
			if err != nil {
				return err
			}
			want -= found
		}
		if !r.opts.Since.IsZero() && s.lastTime().Before(r.opts.Since) {
			// All older files are older still; this one may grow, if it is current.
			for _, old := range list[:i] {
				old.skipAll()
			}
			s.skipAll()
			break
		}
	}
	return nil
}

// read gives out what s has now and leaves s open as the current place.
func (r *reader) read(s *source) error {
	r.cur.close()
	r.cur = s.cursor(newCodec(&r.conf))
	return r.drain()
}

// drain gives out all whole entries at the current place.
func (r *reader) drain() error {
	var m Message
	for {
		ok, err := r.cur.next(&m)
		if !ok || err != nil {
			return err
		}
		if r.seen++; r.seen&63 == 0 && r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		if err := r.offer(&m); err != nil {
			return err
		}
	}
}

func (r *reader) offer(m *Message) error {
	if !r.begun {
		// As the clock may step back, only the beginning is searched for.
		if m.Time.Before(r.opts.Since) {
			return nil
		}
		r.begun = true
	}
	if !r.opts.Until.IsZero() && m.Time.After(r.opts.Until) {
		return errStop
	}
	if m.Stream == "stdout" && !r.opts.Stdout || m.Stream == "stderr" && !r.opts.Stderr {
		return nil
	}
	return r.send(m)
}

func (r *reader) follow(wake, ended <-chan struct{}) error {
	var deadline <-chan time.Time
	if !r.opts.Until.IsZero() {
		t := time.NewTimer(time.Until(r.opts.Until) + time.Millisecond)
		defer t.Stop()
		deadline = t.C
	}
	last := false
	for {
		if err := r.catchUp(); err != nil || last {
			return err
		}
		select {
		case <-wake:
		case <-ended:
			last = true
		case <-deadline:
			last = true
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	}
}

// catchUp reads to the end of the youngest file.
func (r *reader) catchUp() error {
	for {
		if r.cur != nil {
			if err := r.drain(); err != nil {
				return err
			}
			ino, err := inodeOf(r.conf.Path)
			if err == nil && ino == r.cur.src.inode {
				return nil
			}
		}
		list, err := listFiles(r.conf.Path, r.files)
		if err != nil {
			return err
		}
		newer := list
		if r.cur != nil {
			newer = r.cur.src.after(list)
			// The file has lost its name, so it is complete: what was written
			// between the last look into it and the rename comes first.
			if len(newer) > 0 {
				if err := r.drain(); err != nil {
					closeAll(newer)
					return err
				}
			}
		}
		if len(newer) == 0 {
			return nil
		}
		for i, s := range newer {
			if err := r.read(s); err != nil {
				closeAll(newer[i:])
				return err
			}
		}
	}
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// errDamaged says that a file can only be read from its beginning.
var errDamaged = errors.New("the log file is damaged")

func isEnd(err error) bool {
	return err == io.EOF || err == io.ErrUnexpectedEOF
}
