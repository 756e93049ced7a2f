package layer

import (
	"context"
	"io"
	"sync"
)

const (
	aheadSize  = 512 << 10
	aheadCount = 4
)

// aheadBuffers go from one layer to the next: as garbage they would be most of
// what an image of many layers takes.
var aheadBuffers = sync.Pool{New: func() any { return new([aheadSize]byte) }}

// ahead reads from a reader in a goroutine of its own, so that decompressing
// and hashing overlap with making files.
type ahead struct {
	full  chan []byte // filled buffers; closed at the end
	free  chan []byte
	quit  chan struct{}
	done  chan struct{} // closed when the goroutine is gone
	err   error         // why it ended; valid once full is closed
	cur   []byte
	whole []byte // the buffer cur is a part of
	total int64  // bytes given out
	ended bool   // Read has returned the end
}

func readAhead(r io.Reader) *ahead {
	a := &ahead{
		full: make(chan []byte, aheadCount),
		free: make(chan []byte, aheadCount),
		quit: make(chan struct{}),
		done: make(chan struct{}),
	}
	for range aheadCount {
		a.free <- nil // allocated when needed: most layers are small
	}
	go a.fill(r)
	return a
}

func (a *ahead) fill(r io.Reader) {
	defer close(a.done)
	defer close(a.full)
	for {
		var buf []byte
		select {
		case buf = <-a.free:
		case <-a.quit:
			return
		}
		if buf == nil {
			buf = aheadBuffers.Get().(*[aheadSize]byte)[:]
		}
		n, err := readFull(r, buf[:aheadSize])
		if n == 0 {
			a.free <- buf
		} else {
			select {
			case a.full <- buf[:n]:
			case <-a.quit:
				a.free <- buf
				return
			}
		}
		if err != nil {
			a.err = err
			return
		}
	}
}

// Read implements io.Reader.
func (a *ahead) Read(p []byte) (int, error) {
	if len(a.cur) == 0 {
		if a.whole != nil {
			a.free <- a.whole
			a.whole = nil
		}
		buf, ok := <-a.full
		if !ok {
			a.ended = true
			return 0, a.err
		}
		a.cur, a.whole = buf, buf
	}
	n := copy(p, a.cur)
	a.cur = a.cur[n:]
	a.total += int64(n)
	return n, nil
}

// readFull is io.ReadFull without its renaming of io.EOF.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// drain reads what is left: an archive is followed by padding, which counts for
// its digest. There may be any amount of it in a few compressed bytes.
func (a *ahead) drain(ctx context.Context) error {
	buf := aheadBuffers.Get().(*[aheadSize]byte)
	defer aheadBuffers.Put(buf)
	for {
		if _, err := a.Read(buf[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// stop ends the goroutine and waits for it, so that nobody reads any more. Nor
// may anybody read from a.
func (a *ahead) stop() {
	close(a.quit)
	<-a.done
	a.giveBack(a.whole)
	a.cur, a.whole = nil, nil
	for buf := range a.full {
		a.giveBack(buf)
	}
	close(a.free)
	for buf := range a.free {
		a.giveBack(buf)
	}
}

func (a *ahead) giveBack(buf []byte) {
	if buf != nil {
		aheadBuffers.Put((*[aheadSize]byte)(buf[:aheadSize]))
	}
}
