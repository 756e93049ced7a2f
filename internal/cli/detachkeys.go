package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// errDetached ends a stream because the user typed the detach sequence.
var errDetached = errors.New("detached")

// defaultDetachKeys are Ctrl-P Ctrl-Q.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// parseDetachKeys reads a comma-separated list of characters and ctrl-x
// combinations.
func parseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		s = defaultDetachKeys
	}
	var keys []byte
	for _, k := range strings.Split(s, ",") {
		switch c, ctrl := strings.CutPrefix(strings.ToLower(k), "ctrl-"); {
		case len(k) == 1:
			keys = append(keys, k[0])
		case ctrl && len(c) == 1 && 'a' <= c[0] && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case ctrl && len(c) == 1 && strings.Contains(`@[\]^_`, c):
			keys = append(keys, c[0]-'@')
		default:
			return nil, fmt.Errorf("invalid detach keys (%s): %q is not a character and not ctrl- with one of a-z, @, [, \\, ], ^ and _", s, k)
		}
	}
	return keys, nil
}

// detachReader passes input through until the keys appear in it. A beginning of
// the sequence is held back until it is known not to be one.
type detachReader struct {
	r       io.Reader
	keys    []byte
	matched int
	pending []byte // to be returned before reading on
	err     error
}

func (d *detachReader) Read(p []byte) (int, error) {
	for len(d.pending) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		buf := make([]byte, len(p))
		n, err := d.r.Read(buf)
		d.err = err
		for _, c := range buf[:n] {
			if d.feed(c) {
				d.err = errDetached
				break
			}
		}
		if d.err != nil && !errors.Is(d.err, errDetached) {
			d.pending = append(d.pending, d.keys[:d.matched]...)
			d.matched = 0
		}
	}
	n := copy(p, d.pending)
	d.pending = d.pending[n:]
	return n, nil
}

// feed adds one byte and says whether it completes the sequence.
func (d *detachReader) feed(c byte) bool {
	for {
		if c == d.keys[d.matched] {
			d.matched++
			return d.matched == len(d.keys)
		}
		if d.matched == 0 {
			d.pending = append(d.pending, c)
			return false
		}
		// Give back what can no longer be the beginning, and look again.
		keep := d.matched - 1
		for keep > 0 && string(d.keys[d.matched-keep:d.matched]) != string(d.keys[:keep]) {
			keep--
		}
		d.pending = append(d.pending, d.keys[:d.matched-keep]...)
		d.matched = keep
	}
}
