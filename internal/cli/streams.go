package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/moby/moby/api/pkg/stdcopy"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// attachment connects our streams to those of a process in a container.
type attachment struct {
	stream     *client.Stream
	in         io.Reader // nil: not attached
	out, err   io.Writer // nil: not attached
	tty        bool
	detachKeys string
}

// copy runs until the output ends, the keys are typed (errDetached) or ctx is
// done. The terminal is as it was when copy returns.
func (a *app) copy(ctx context.Context, s *attachment) error {
	defer s.stream.Close()
	restore := func() {}
	if s.in != nil && s.tty {
		keys, err := parseDetachKeys(s.detachKeys)
		if err != nil {
			fmt.Fprintln(a.err, "WARNING:", err)
			keys, _ = parseDetachKeys("")
		}
		if restore, err = a.rawMode(); err != nil {
			return err
		}
		defer restore()
		s.in = &detachReader{r: s.in, keys: keys}
	}
	outDone := s.copyOut()
	inDone := s.copyIn()
	for {
		select {
		case err := <-outDone:
			return err
		case err := <-inDone:
			if errors.Is(err, errDetached) {
				return err
			}
			if s.out == nil && s.err == nil {
				return nil
			}
			inDone = nil // the output goes on
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// copyOut reports the end of the output, or never when none is attached.
func (s *attachment) copyOut() <-chan error {
	if s.out == nil && s.err == nil {
		return nil
	}
	done := make(chan error, 1)
	go func() {
		var err error
		if s.tty {
			w := s.out
			if w == nil {
				w = s.err
			}
			_, err = io.Copy(w, s.stream)
		} else {
			_, err = stdcopy.StdCopy(orDiscard(s.out), orDiscard(s.err), s.stream)
		}
		done <- err
	}()
	return done
}

// copyIn sends our input and then its end.
func (s *attachment) copyIn() <-chan error {
	done := make(chan error, 1)
	go func() {
		var err error
		if s.in != nil {
			if _, err = io.Copy(s.stream, s.in); errors.Is(err, errDetached) {
				done <- err
				return
			}
		}
		// A write that failed shows on the reading side.
		_ = s.stream.CloseWrite()
		done <- nil
	}()
	return done
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
