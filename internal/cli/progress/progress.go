// Package progress shows the stream of messages with which the engine reports
// on a pull, a load or an import: bars that move on a terminal, one line per
// event elsewhere.
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
	"strings"
	"time"

	"github.com/docker/go-units"
	"golang.org/x/term"
)

// message is a line of the stream. Older engines send an error as a string
// beside its details.
type message struct {
	Stream   string   `json:"stream"`
	Status   string   `json:"status"`
	ID       string   `json:"id"`
	Progress *detail  `json:"progressDetail"`
	Error    *problem `json:"errorDetail"`
	ErrorMsg string   `json:"error"`
}

type detail struct {
	Current    int64  `json:"current"`
	Total      int64  `json:"total"`
	Start      int64  `json:"start"`
	HideCounts bool   `json:"hidecounts"`
	Units      string `json:"units"`
}

type problem struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Show reads r to its end and shows it on out, or nothing when out is nil. An
// error in the stream is returned.
func Show(r io.Reader, out *os.File) error {
	if out == nil {
		return show(r, io.Discard, 0, false)
	}
	width, _, err := term.GetSize(int(out.Fd()))
	return show(r, out, width, err == nil)
}

func show(r io.Reader, w io.Writer, width int, terminal bool) error {
	s := &screen{w: w, width: width, lines: map[string]int{}}
	for dec := json.NewDecoder(r); ; {
		var m message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("cannot read the engine's progress: %w", err)
		}
		if m.Error != nil || m.ErrorMsg != "" {
			return m.failure()
		}
		if terminal {
			s.add(&m)
		} else {
			plain(w, &m)
		}
	}
}

func (m *message) failure() error {
	if m.Error != nil && m.Error.Message != "" {
		return errors.New(m.Error.Message)
	}
	return errors.New(m.ErrorMsg)
}

// plain prints what happened and leaves out how far it has come.
func plain(w io.Writer, m *message) {
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

// screen keeps one line per ID and moves the cursor to it.
type screen struct {
	w     io.Writer
	width int
	lines map[string]int // ID: line, counted from the first
	count int
}

func (s *screen) add(m *message) {
	if m.ID == "" {
		// A message of the whole ends the block of lines above it.
		s.lines, s.count = map[string]int{}, 0
		if m.Stream != "" {
			io.WriteString(s.w, m.Stream)
		} else if m.Status != "" {
			fmt.Fprintf(s.w, "%s%s\n", m.Status, bar(m.Progress, s.width))
		}
		return
	}
	line, known := s.lines[m.ID]
	if !known {
		line = s.count
		s.lines[m.ID] = line
		s.count++
		fmt.Fprintln(s.w)
	}
	up := s.count - line
	text := fmt.Sprintf("%s: %s%s", m.ID, m.Status, bar(m.Progress, s.width))
	if s.width > 0 && len(text) > s.width {
		text = text[:s.width]
	}
	fmt.Fprintf(s.w, "\x1b[%dA\r\x1b[2K%s\r\x1b[%dB", up, text, up)
}

// bar draws [====>    ] current/total, as wide as there is room for.
func bar(d *detail, width int) string {
	if d == nil || d.Current <= 0 && d.Total <= 0 {
		return ""
	}
	counts := ""
	if !d.HideCounts {
		counts = amount(d)
	}
	if d.Total <= 0 {
		return "  " + counts
	}
	box := ""
	if width > 110 {
		filled := int(min(d.Current, d.Total) * 50 / d.Total)
		head := ">"
		if filled >= 50 {
			filled, head = 49, ">"
		}
		box = "[" + strings.Repeat("=", filled) + head + strings.Repeat(" ", 49-filled) + "]  "
	}
	return " " + box + counts + left(d)
}

func amount(d *detail) string {
	if d.Units != "" && d.Units != "bytes" {
		if d.Total <= 0 {
			return fmt.Sprintf("%d %s", d.Current, d.Units)
		}
		return fmt.Sprintf("%d/%d %s", d.Current, d.Total, d.Units)
	}
	current := units.HumanSize(float64(d.Current))
	if d.Total <= 0 {
		return fmt.Sprintf("%8v", current)
	}
	if d.Current > d.Total {
		return fmt.Sprintf("%8v", current)
	}
	return fmt.Sprintf("%8v/%v", current, units.HumanSize(float64(d.Total)))
}

// left estimates the time that remains from the time that has passed.
func left(d *detail) string {
	if d.Start <= 0 || d.Current <= 0 || d.Current >= d.Total {
		return ""
	}
	passed := time.Since(time.Unix(d.Start, 0))
	per := passed / time.Duration(d.Current)
	return " " + (time.Duration(d.Total-d.Current) * per).Round(time.Second).String()
}
