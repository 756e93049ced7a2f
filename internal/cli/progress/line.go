package progress

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-units"
)

// line is what is known about one layer.
type line struct {
	id, status string
	note       string // stays beside the status: where a transfer resumed
	d          detail
	samples    []sample // of the last few seconds, oldest first
}

// sample is how far a transfer had come at a time.
type sample struct {
	at      time.Time
	current int64
}

const window = 4 * time.Second

func (l *line) update(m *message, now time.Time) {
	if rest, ok := strings.CutPrefix(m.Status, "Resuming"); ok {
		l.note = "(resumed" + rest + ")"
	}
	if printable(m.Status) != l.status {
		l.samples = l.samples[:0] // another transfer, or none
	}
	l.status, l.d = printable(m.Status), *m.Progress
	if l.d.Total <= 0 {
		return
	}
	n := len(l.samples)
	if n > 0 && l.d.Current < l.samples[n-1].current {
		l.samples, n = l.samples[:0], 0 // begun again
	}
	if n > 0 && now.Sub(l.samples[n-1].at) < window/16 {
		return
	}
	l.samples = append(l.samples, sample{now, l.d.Current})
}

// printable leaves out what would move the cursor: part of a status may be a
// registry's.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, s)
}

// moving says that more is to come. The words are the engine's.
func (l *line) moving() bool {
	if l.d.Total > 0 && l.d.Current < l.d.Total {
		return true
	}
	for _, word := range []string{"Pulling", "Waiting", "Preparing", "Downloading", "Download complete", "Verifying", "Extracting", "Pushing", "Retrying", "Resuming", "Loading", "Importing"} {
		if strings.HasPrefix(l.status, word) {
			return true
		}
	}
	return false
}

// speed is in units per second; 0 when it is not known yet.
func (l *line) speed(now time.Time) float64 {
	for len(l.samples) > 2 && now.Sub(l.samples[0].at) > window {
		l.samples = append(l.samples[:0], l.samples[1:]...)
	}
	if len(l.samples) == 0 {
		return 0
	}
	passed := now.Sub(l.samples[0].at)
	if passed < window/16 {
		return 0
	}
	return float64(l.d.Current-l.samples[0].current) / passed.Seconds()
}

func (l *line) head() string {
	text := l.id + ": " + l.status
	if l.note != "" && l.d.Total > 0 {
		text += " " + l.note
	}
	return text
}

// render is the line in at most width characters, its bar beginning after head
// characters. What does not fit is left out, what matters least first: the bar,
// then the time left, then the speed, then how much there is.
func (l *line) render(head, width int, now time.Time) string {
	text := l.head()
	counts := l.counts()
	if counts == "" || !l.moving() {
		return cut(text, width)
	}
	text += strings.Repeat(" ", max(head-utf8.RuneCountInString(text), 0))
	parts := []string{fmt.Sprintf("%15s", counts)}
	if l.d.HideCounts {
		parts = nil
	} else if v := l.speed(now); v >= 1 && l.bytes() {
		parts = append(parts, fmt.Sprintf("%9s", units.HumanSizeWithPrecision(v, 3)+"/s"))
		if left := float64(l.d.Total-l.d.Current) / v; left > 0 && left < 100*3600 {
			parts = append(parts, (time.Duration(left) * time.Second).String())
		}
	}
	// Room for the time left is kept, so that the bar does not jump with it.
	const most, least, timeLeft = 50, 10, 8
	room := width - utf8.RuneCountInString(text)
	if box := room - len(" []") - len("  ") - 15 - len("  ") - 9 - len("  ") - timeLeft; box >= least && l.d.Total > 0 {
		text += " " + bar(&l.d, min(box, most))
	}
	for _, p := range parts {
		if utf8.RuneCountInString(text)+2+len(strings.TrimLeft(p, " ")) > width {
			break
		}
		if utf8.RuneCountInString(text)+2+len(p) > width {
			p = strings.TrimLeft(p, " ")
		}
		text += "  " + p
	}
	return cut(text, width)
}

// bar draws [====>    ], n characters between the brackets.
func bar(d *detail, n int) string {
	filled := int(float64(min(d.Current, d.Total)) / float64(d.Total) * float64(n))
	if filled >= n {
		return "[" + strings.Repeat("=", n) + "]"
	}
	return "[" + strings.Repeat("=", filled) + ">" + strings.Repeat(" ", n-filled-1) + "]"
}

func (l *line) bytes() bool { return l.d.Units == "" || l.d.Units == "bytes" }

// counts is current/total; nothing when neither is known.
func (l *line) counts() string {
	d := &l.d
	human := func(n int64) string {
		if l.bytes() {
			return units.HumanSizeWithPrecision(float64(n), 3)
		}
		return fmt.Sprint(n)
	}
	text := ""
	switch {
	case d.Current <= 0 && d.Total <= 0:
		return ""
	case d.Total <= 0, d.Current > d.Total:
		text = human(d.Current)
	default:
		text = human(d.Current) + "/" + human(d.Total)
	}
	if !l.bytes() {
		text += " " + d.Units
	}
	return text
}
