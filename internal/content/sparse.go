package content

import (
	"bytes"
	"io"
	"os"
)

const (
	zeroBlock = 4 << 10  // zeros are looked for in pieces of this size
	minHole   = 64 << 10 // shorter runs of zeros are written: each hole is one more extent
)

var zeros [minHole]byte // never written to

// sparseFile leaves long runs of zeros in what is written out of the file:
// nothing else in a layer that is not compressed says that a file is sparse.
// What is written must follow what is there.
type sparseFile struct {
	*os.File
	hole int64 // zeros behind the end of what is written
}

// Write implements io.Writer. Zeros at the end of p wait for what follows them.
func (f *sparseFile) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		data, run := f.next(p[done:])
		if data > 0 {
			if err := f.fill(); err != nil {
				return done, err
			}
			n, err := f.File.Write(p[done : done+data])
			done += n
			if err != nil {
				return done, err
			}
		}
		f.hole += int64(run)
		done += run
	}
	return done, nil
}

// next tells how many bytes of p are to be written, and how many zeros follow.
func (f *sparseFile) next(p []byte) (data, run int) {
	if f.hole > 0 {
		if run = leadingZeros(p); run > 0 {
			return 0, run
		}
	}
	for data < len(p) {
		run = 0
		if len(p)-data >= zeroBlock {
			run = leadingZeros(p[data:])
		}
		if run >= minHole || run > 0 && data+run == len(p) {
			return data, run
		}
		data = min(data+max(run, zeroBlock), len(p))
	}
	return data, 0
}

// leadingZeros counts the zeros p begins with, in whole pieces.
func leadingZeros(p []byte) int {
	n := 0
	for n < len(p) {
		piece := p[n:min(n+zeroBlock, len(p))]
		if !bytes.Equal(piece, zeros[:len(piece)]) {
			break
		}
		n += len(piece)
	}
	return n
}

// fill goes to where the data behind the zeros begins.
func (f *sparseFile) fill() error {
	hole := f.hole
	if hole == 0 {
		return nil
	}
	f.hole = 0
	if hole >= minHole {
		_, err := f.File.Seek(hole, io.SeekCurrent)
		return err
	}
	_, err := f.File.Write(zeros[:hole])
	return err
}

// finish makes the file as long as what was written to it.
func (f *sparseFile) finish() error {
	if f.hole == 0 {
		return nil
	}
	end, err := f.File.Seek(f.hole, io.SeekCurrent)
	if err != nil {
		return err
	}
	f.hole = 0
	return f.File.Truncate(end)
}
