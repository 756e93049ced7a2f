package progress

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// screen keeps a block of lines, one per layer, at the bottom of a terminal,
// and knows what of them the terminal shows.
type screen struct {
	w    io.Writer
	size func() (width, height int)
	now  func() time.Time

	lines []*line
	byID  map[string]*line
	drawn []string // what the terminal shows of the block
	width int      // of the terminal when it was drawn
}

func newScreen(w io.Writer, size func() (int, int), now func() time.Time) *screen {
	return &screen{w: w, size: size, now: now, byID: map[string]*line{}}
}

// add takes in a message. What has no line of its own is printed above the
// block while anything in that still moves, and below it otherwise.
func (s *screen) add(m *message) {
	if m.ID != "" && m.Progress != nil {
		l := s.byID[m.ID]
		if l == nil {
			l = &line{id: printable(m.ID)}
			s.byID[m.ID] = l
			s.lines = append(s.lines, l)
		}
		l.update(m, s.now())
		return
	}
	text := m.Stream
	switch {
	case text != "":
	case m.ID != "":
		text = m.ID + ": " + m.Status + "\n"
	case m.Progress != nil && m.Progress.Total > 0:
		return // the progress of the whole: the lines show it
	case m.Status != "":
		text = m.Status + "\n"
	}
	if !s.moving() || !strings.HasSuffix(text, "\n") {
		s.freeze()
		io.WriteString(s.w, text)
		return
	}
	io.WriteString(s.w, s.up()+"\x1b[J"+text)
	s.drawn = nil
	s.draw()
}

func (s *screen) moving() bool {
	for _, l := range s.lines {
		if l.moving() {
			return true
		}
	}
	return false
}

// freeze leaves the block as it is, in full, and begins a new one.
func (s *screen) freeze() {
	width, _ := s.terminal()
	s.show(width, s.render(s.lines, width))
	s.lines, s.byID, s.drawn = nil, map[string]*line{}, nil
}

// draw makes the terminal show the block, as far as it has room.
func (s *screen) draw() {
	width, height := s.terminal()
	lines, rest := s.fitting(max(height-1, 1))
	text := s.render(lines, width)
	if rest != "" {
		text = append(text, cut(rest, width-1))
	}
	s.show(width, text)
}

func (s *screen) terminal() (width, height int) {
	width, height = s.size()
	if width <= 0 {
		width = 80
	}
	if height <= 0 {
		height = 24
	}
	return width, height
}

// fitting chooses at most rows lines: those that move, when all are too many.
// What scrolls off the top of a terminal can not be written to any more.
func (s *screen) fitting(rows int) (lines []*line, rest string) {
	if len(s.lines) <= rows {
		return s.lines, ""
	}
	var moving []*line
	for _, l := range s.lines {
		if l.moving() {
			moving = append(moving, l)
		}
	}
	lines = moving[:min(len(moving), rows-1)]
	return lines, fmt.Sprintf("… %d of %d done", len(s.lines)-len(moving), len(s.lines))
}

func (s *screen) render(lines []*line, width int) []string {
	head, now := 0, s.now()
	for _, l := range lines {
		if l.moving() {
			head = max(head, utf8.RuneCountInString(l.head()))
		}
	}
	text := make([]string, len(lines))
	for i, l := range lines {
		// The last column stays empty: some terminals wrap when it is written.
		text[i] = l.render(head, width-1, now)
	}
	return text
}

// show writes what differs from what the terminal shows, in one piece.
func (s *screen) show(width int, text []string) {
	same := width == s.width && len(text) == len(s.drawn)
	changed := !same
	for i := 0; same && i < len(text); i++ {
		changed = changed || text[i] != s.drawn[i]
	}
	if !changed {
		return
	}
	var b strings.Builder
	s.width = width
	b.WriteString(s.up())
	if !same {
		b.WriteString("\x1b[J")
	}
	for i, t := range text {
		if !same || t != s.drawn[i] {
			b.WriteString("\x1b[2K" + t)
		}
		b.WriteString("\r\n")
	}
	s.drawn = text
	io.WriteString(s.w, b.String())
}

// up moves the cursor to the first row of the block. A terminal that became
// narrower has wrapped our lines.
func (s *screen) up() string {
	width, _ := s.terminal()
	rows := 0
	for _, t := range s.drawn {
		rows += max(1, (utf8.RuneCountInString(t)+width-1)/width)
	}
	if rows == 0 {
		return "\r"
	}
	return fmt.Sprintf("\x1b[%dA\r", rows)
}

// cut shortens text to n characters.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:max(n, 0)])
}
