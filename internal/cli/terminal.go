package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// terminalSize is height and width of the output, or zeros.
func (a *app) terminalSize() [2]uint {
	w, h, err := term.GetSize(int(a.out.Fd()))
	if err != nil || w < 0 || h < 0 {
		return [2]uint{}
	}
	return [2]uint{uint(h), uint(w)}
}

// checkTTY refuses to attach a pipe where a terminal was asked for.
func (a *app) checkTTY(attachStdin, tty bool) error {
	if attachStdin && tty && !isTerminal(a.in) {
		return errors.New("the input device is not a TTY")
	}
	return nil
}

// rawMode makes the terminal pass on every key. The returned function undoes
// it and may be called more than once.
func (a *app) rawMode() (restore func(), err error) {
	if !isTerminal(a.in) {
		return func() {}, nil
	}
	fd := int(a.in.Fd())
	state, err := term.MakeRaw(fd)
	if err != nil {
		return nil, fmt.Errorf("cannot set the terminal to raw mode: %w", err)
	}
	return sync.OnceFunc(func() { _ = term.Restore(fd, state) }), nil
}

// followSize keeps the terminal of a container, or of an exec, as large as
// ours. path is /containers/ID or /exec/ID.
func (a *app) followSize(ctx context.Context, path string) {
	if !isTerminal(a.out) {
		return
	}
	changed := sizeChanges(ctx)
	go func() {
		// Right after its start a container may not have its terminal yet.
		for try := 0; a.resize(ctx, path) != nil && try < 10; try++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Duration(try+1) * 10 * time.Millisecond):
			}
		}
		for range changed {
			_ = a.resize(ctx, path)
		}
	}()
}

func (a *app) resize(ctx context.Context, path string) error {
	size := a.terminalSize()
	return a.resizeTo(ctx, path, size[0], size[1])
}

func (a *app) resizeTo(ctx context.Context, path string, height, width uint) error {
	if height == 0 && width == 0 {
		return nil
	}
	q := url.Values{"h": {strconv.Itoa(int(height))}, "w": {strconv.Itoa(int(width))}}
	return a.json(ctx, &client.Request{Method: client.MethodPost, Path: path + "/resize", Query: q}, nil)
}
