package cli

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// frameEnding is the first byte of a frame of our own engine's, the last one of a
// stream, whose content is an ending, or the exit code alone: see
// internal/container/line.go.
const frameEnding = 'E'

// mostEnding is how long the text of an ending may be.
const mostEnding = 1 << 20

// ending is how a run ended, or why its start failed.
type ending struct {
	container.WaitResponse
	Failure string `json:"message"`
}

// seeTold is the rest of a run whose stream tells how it ended. told is false, with no
// error, when it ended without: the engine went away, or something was in its way.
func seeTold(ctx context.Context, cmd *cobra.Command, att *attachment) (told bool, err error) {
	defer att.stream.Close()
	stop := context.AfterFunc(ctx, func() { att.stream.Close() })
	defer stop()
	e, err := copyToEnd(att.stream, att)
	switch {
	case ctx.Err() != nil:
		return false, runError(cmd, context.Cause(ctx))
	case e == nil || err != nil:
		return false, err
	case e.Failure != "":
		return true, runError(cmd, &client.Error{Status: client.StatusInternalServerError, Message: e.Failure})
	}
	return true, exitOf(&e.WaitResponse).waitedFor().status()
}

// copyToEnd copies the output up to the ending, which is nil if there is none.
func copyToEnd(r io.Reader, to *attachment) (*ending, error) {
	var buf []byte
	head := make([]byte, 8)
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			return nil, nil
		}
		size := int64(binary.BigEndian.Uint32(head[4:]))
		var w io.Writer
		switch head[0] {
		case 1:
			w = orDiscard(to.out)
		case 2:
			w = orDiscard(to.err)
		case frameEnding:
			return readEnding(r, size)
		default:
			return nil, fmt.Errorf("cannot read the engine's answer: its stream has a frame of the unknown type %d", head[0])
		}
		if buf == nil {
			buf = make([]byte, 32<<10)
		}
		for size > 0 {
			n, err := r.Read(buf[:min(size, int64(len(buf)))])
			size -= int64(n)
			if _, err := w.Write(buf[:n]); err != nil {
				return nil, err
			}
			if err != nil {
				return nil, nil
			}
		}
	}
}

// readEnding is nil for one that was cut.
func readEnding(r io.Reader, size int64) (*ending, error) {
	text := make([]byte, min(size, mostEnding))
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, nil
	}
	var e ending
	if code, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		e.StatusCode = code
	} else if err := json.Unmarshal(text, &e); err != nil {
		return nil, fmt.Errorf("cannot read the engine's answer: %w", err)
	}
	return &e, nil
}
