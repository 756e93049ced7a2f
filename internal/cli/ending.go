package cli

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// frameEnding is the first byte of a frame of our own engine's, the last one of a
// stream, whose content is an ending: see internal/container/line.go.
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
			return readEnding(io.LimitReader(r, min(size, mostEnding)))
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

func readEnding(r io.Reader) (*ending, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, nil
	}
	var e ending
	if code, ok := onlyNumber(string(text), `{"StatusCode":`, `}`); ok {
		e.StatusCode = code
		return &e, nil
	}
	if json.Unmarshal(text, &e) != nil {
		return nil, nil // it was cut
	}
	return &e, nil
}

// onlyNumber returns what is between two texts, if that is a number: nearly all
// endings are no more, and encoding/json takes longer to learn their type than the
// container to be waited for.
func onlyNumber(text, before, after string) (n int64, ok bool) {
	digits, ok := between(text, before, after)
	n, err := strconv.ParseInt(digits, 10, 64)
	return n, ok && err == nil && digits[0] != '+'
}

// between returns what is between the two ends of a text, if they are those.
func between(text, before, after string) (string, bool) {
	text, begins := strings.CutPrefix(text, before)
	text, ends := strings.CutSuffix(text, after)
	return text, begins && ends
}
