// Package progress shows the stream of messages with which the engine reports
// on a pull, a push, a load or an import: bars that move on a terminal, one line
// per event elsewhere.
//
// It knows the stream's format (Docker's jsonmessage) and nothing of what the
// engine does.
package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// message is a line of the stream. Older engines send an error as a string
// beside its details.
type message struct {
	Stream   string          `json:"stream"`
	Status   string          `json:"status"`
	ID       string          `json:"id"`
	Progress *detail         `json:"progressDetail"`
	Error    *problem        `json:"errorDetail"`
	ErrorMsg string          `json:"error"`
	Aux      json.RawMessage `json:"aux"`
}

type detail struct {
	Current    int64  `json:"current"`
	Total      int64  `json:"total"`
	HideCounts bool   `json:"hidecounts"`
	Units      string `json:"units"`
}

type problem struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// View says where a stream is shown.
type View struct {
	// Out is nil when nothing is to be seen.
	Out *os.File
	// Aux gets the notes in the stream that are for programs, when it is not nil.
	Aux func(json.RawMessage)
}

// frame is how often a terminal is written to at most.
const frame = 100 * time.Millisecond

// Show reads r to its end. An error in the stream is returned.
func (v View) Show(r io.Reader) error {
	if v.Out == nil {
		return v.plain(r, io.Discard)
	}
	if os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(v.Out.Fd())) {
		return v.plain(r, v.Out)
	}
	size := func() (width, height int) {
		width, height, _ = term.GetSize(int(v.Out.Fd())) // zeros when it does not know
		return width, height
	}
	return v.live(r, newScreen(v.Out, size, time.Now))
}

// next reads one message for a person to see; io.EOF when there is none.
func (v View) next(dec *json.Decoder) (*message, error) {
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil, io.EOF
			}
			return nil, fmt.Errorf("cannot read the engine's progress: %w", err)
		}
		switch {
		case m.Error != nil && m.Error.Message != "":
			return nil, errors.New(m.Error.Message)
		case m.ErrorMsg != "":
			return nil, errors.New(m.ErrorMsg)
		case m.Aux == nil:
			return &m, nil
		case v.Aux != nil:
			v.Aux(m.Aux)
		}
	}
}

// plain prints what happened and leaves out how far it has come.
func (v View) plain(r io.Reader, w io.Writer) error {
	for dec := json.NewDecoder(r); ; {
		m, err := v.next(dec)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case m.Progress != nil && (m.Progress.Current > 0 || m.Progress.Total > 0):
		case m.Stream != "":
			io.WriteString(w, m.Stream)
		case m.ID != "":
			fmt.Fprintf(w, "%s: %s\n", m.ID, m.Status)
		case m.Status != "":
			fmt.Fprintln(w, m.Status)
		}
	}
}

// live shows the stream on a terminal. Messages come faster than anyone can
// read: they change the lines in memory, and the terminal follows a few times a
// second.
func (v View) live(r io.Reader, s *screen) error {
	messages, done := make(chan *message, 64), make(chan struct{})
	defer close(done)
	var failed error // read after messages is closed
	go func() {
		defer close(messages)
		for dec := json.NewDecoder(r); ; {
			m, err := v.next(dec)
			if err != nil {
				failed = err
				return
			}
			select {
			case messages <- m:
			case <-done:
				return
			}
		}
	}()
	tick := time.NewTicker(frame)
	defer tick.Stop()
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				s.freeze()
				if errors.Is(failed, io.EOF) {
					return nil
				}
				return failed
			}
			s.add(m)
		case <-tick.C:
			s.draw()
		}
	}
}
