package image

import (
	"io"
	"os"
	"sync"
)

// readahead reads in a goroutine of its own, so that the network and the disk
// work while what was read before is decompressed and unpacked. It holds at
// most aheadChunks chunks.
type readahead struct {
	full chan chunk
	free chan []byte
	stop chan struct{}
	end  sync.WaitGroup
	now  chunk
	pos  int
	once sync.Once
}

type chunk struct {
	buf []byte
	n   int
	err error
}

const (
	aheadChunks = 8
	aheadSize   = 128 << 10 // bytes of a chunk
)

// aheadBuffers go from one blob to the next, so that many layers at once leave
// little to collect.
var aheadBuffers = sync.Pool{New: func() any { return new([aheadSize]byte) }}

// newReadahead starts reading. Close must be called before r is closed.
func newReadahead(r io.Reader) *readahead {
	a := &readahead{
		full: make(chan chunk, aheadChunks),
		free: make(chan []byte, aheadChunks),
		stop: make(chan struct{}),
	}
	for range aheadChunks {
		a.free <- nil // made when needed: most layers are small
	}
	a.end.Go(func() {
		for {
			var buf []byte
			select {
			case buf = <-a.free:
			case <-a.stop:
				return
			}
			if buf == nil {
				buf = aheadBuffers.Get().(*[aheadSize]byte)[:]
			}
			n, err := io.ReadAtLeast(r, buf, len(buf)/2)
			if err == io.ErrUnexpectedEOF {
				err = io.EOF
			}
			select {
			case a.full <- chunk{buf, n, err}:
			case <-a.stop:
				a.free <- buf
				return
			}
			if err != nil {
				return
			}
		}
	})
	return a
}

// Read implements io.Reader.
func (a *readahead) Read(p []byte) (int, error) {
	for a.pos == a.now.n {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.buf != nil {
			a.free <- a.now.buf
		}
		select {
		case a.now = <-a.full:
		case <-a.stop:
			a.now = chunk{err: os.ErrClosed}
		}
		a.pos = 0
	}
	n := copy(p, a.now.buf[a.pos:a.now.n])
	a.pos += n
	return n, nil
}

// Close ends the reading and waits for it. A read that hangs must be ended by
// its context first; a decompressor that gave up may still have one under way.
func (a *readahead) Close() error {
	a.once.Do(func() {
		close(a.stop)
		a.end.Wait()
		for {
			select {
			case buf := <-a.free:
				giveBack(buf)
			case c := <-a.full:
				giveBack(c.buf)
			default:
				return
			}
		}
	})
	return nil
}

func giveBack(buf []byte) {
	if buf != nil {
		aheadBuffers.Put((*[aheadSize]byte)(buf))
	}
}
