package progress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// display is as much of a terminal as the view uses: it wraps, scrolls, and
// moves its cursor.
type display struct {
	t             *testing.T
	width, height int
	rows          [][]rune // all there were; the last height ones are on the screen
	x, y          int
	written       int
}

func (d *display) row(y int) []rune {
	for len(d.rows) <= y {
		d.rows = append(d.rows, nil)
	}
	return d.rows[y]
}

func (d *display) top() int { return max(len(d.rows)-d.height, 0) }

func (d *display) Write(p []byte) (int, error) {
	d.written += len(p)
	for s := string(p); s != ""; {
		if rest, ok := strings.CutPrefix(s, "\x1b["); ok {
			i := strings.IndexFunc(rest, func(r rune) bool { return r >= '@' })
			d.control(rest[:i], rest[i])
			s = rest[i+1:]
			continue
		}
		r, n := utf8.DecodeRuneInString(s)
		s = s[n:]
		switch r {
		case '\r':
			d.x = 0
		case '\n':
			d.y++ // a terminal in its usual mode adds the return
			d.x = 0
			d.row(d.y)
		default:
			if d.x == d.width {
				d.x, d.y = 0, d.y+1
			}
			row := d.row(d.y)
			for len(row) <= d.x {
				row = append(row, ' ')
			}
			row[d.x] = r
			d.rows[d.y] = row
			d.x++
		}
	}
	return len(p), nil
}

func (d *display) control(arg string, command byte) {
	n, _ := strconv.Atoi(arg)
	switch command {
	case 'A':
		if d.y-n < d.top() {
			d.t.Errorf("the cursor is moved %d rows up from row %d of the screen", n, d.y-d.top())
		}
		d.y = max(d.y-n, d.top())
	case 'J':
		d.row(d.y)
		d.rows = d.rows[:d.y+1]
		d.rows[d.y] = d.rows[d.y][:min(d.x, len(d.rows[d.y]))]
	case 'K':
		d.row(d.y)
		d.rows[d.y] = nil
	default:
		d.t.Errorf("unknown control %q %c", arg, command)
	}
}

// resize wraps what is on the screen anew, as terminals do.
func (d *display) resize(width, height int) {
	var rows [][]rune
	for _, r := range d.rows {
		for len(r) > width {
			rows, r = append(rows, r[:width]), r[width:]
		}
		rows = append(rows, r)
	}
	d.y += len(rows) - len(d.rows)
	d.rows, d.width, d.height = rows, width, height
}

func (d *display) String() string {
	var out []string
	for _, r := range d.rows {
		out = append(out, strings.TrimRight(string(r), " "))
	}
	return strings.TrimRight(strings.Join(out, "\n"), "\n")
}

// clock is a time that passes when it is told to.
type clock struct{ now time.Time }

func terminal(t *testing.T, width, height int) (*display, *screen, *clock) {
	d := &display{t: t, width: width, height: height}
	c := &clock{time.Unix(1e9, 0)}
	s := newScreen(d, func() (int, int) { return d.width, d.height }, func() time.Time { return c.now })
	return d, s, c
}

func feed(t *testing.T, s *screen, messages ...string) {
	t.Helper()
	for _, text := range messages {
		var m message
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		s.add(&m)
	}
}

func bytesOf(id string, current, total int) string {
	return fmt.Sprintf(`{"id":%q,"status":"Downloading","progressDetail":{"current":%d,"total":%d}}`, id, current, total)
}

func want(t *testing.T, d *display, text string) {
	t.Helper()
	if got := d.String(); got != strings.Trim(text, "\n") {
		t.Errorf("the terminal shows\n%s\nwant\n%s", got, strings.Trim(text, "\n"))
	}
}

func TestBars(t *testing.T) {
	d, s, c := terminal(t, 100, 24)
	feed(t, s, `{"status":"Pulling from library/x","id":"latest"}`,
		`{"status":"Pulling fs layer","progressDetail":{},"id":"aaaa"}`, `{"status":"Pulling fs layer","progressDetail":{},"id":"bb"}`,
		bytesOf("aaaa", 0, 50_000_000), `{"status":"Resuming at 10MB","progressDetail":{},"id":"bb"}`, bytesOf("bb", 10_000_000, 20_000_000))
	s.draw()
	c.now = c.now.Add(2 * time.Second)
	feed(t, s, bytesOf("aaaa", 10_000_000, 50_000_000), bytesOf("bb", 12_000_000, 20_000_000))
	s.draw()
	want(t, d, `
latest: Pulling from library/x
aaaa: Downloading                 [=====>                   ]        10MB/50MB      5MB/s  8s
bb: Downloading (resumed at 10MB) [===============>         ]        12MB/20MB      1MB/s  8s`)

	before := d.written
	s.draw()
	if d.written != before {
		t.Errorf("%d bytes are written although nothing has changed", d.written-before)
	}
	feed(t, s, `{"status":"Rate limit: 5 of 100 left"}`, `{"status":"Pull complete","progressDetail":{},"id":"bb"}`, bytesOf("aaaa", 50_000_000, 50_000_000))
	s.draw()
	feed(t, s, `{"status":"Pull complete","progressDetail":{},"id":"aaaa"}`, `{"status":"Digest: sha256:1"}`)
	s.freeze()
	want(t, d, `
latest: Pulling from library/x
Rate limit: 5 of 100 left
aaaa: Pull complete
bb: Pull complete
Digest: sha256:1`)
}

// A transfer that stands still has no speed and no time left.
func TestStalled(t *testing.T) {
	d, s, c := terminal(t, 60, 24)
	feed(t, s, bytesOf("a", 0, 1000))
	c.now = c.now.Add(time.Second)
	feed(t, s, bytesOf("a", 500, 1000))
	s.draw()
	want(t, d, "a: Downloading         500B/1kB     500B/s  1s")
	c.now = c.now.Add(time.Second)
	feed(t, s, bytesOf("a", 500, 1000))
	c.now = c.now.Add(time.Minute)
	s.draw()
	want(t, d, "a: Downloading         500B/1kB")
}

// Whatever the width, no line is longer than it, and what matters stays.
func TestEveryWidth(t *testing.T) {
	for width := 1; width < 200; width++ {
		d, s, c := terminal(t, width, 24)
		feed(t, s, bytesOf("0123456789ab", 0, 123_456_789))
		c.now = c.now.Add(3 * time.Second)
		feed(t, s, bytesOf("0123456789ab", 23_456_789, 123_456_789), `{"status":"Already exists","progressDetail":{},"id":"ba9876543210"}`)
		s.draw()
		feed(t, s, bytesOf("0123456789ab", 33_456_789, 123_456_789))
		s.draw()
		s.freeze()
		shown := strings.Split(d.String(), "\n")
		if len(shown) > 2 {
			t.Fatalf("width %d: the lines wrap or were not overwritten:\n%s", width, d)
		}
		if width > 45 && !strings.Contains(shown[0], "33.5MB/123MB") || width > 28 && !strings.HasSuffix(shown[1], "Already exists") {
			t.Errorf("width %d:\n%s", width, d)
		}
	}
}

// A terminal may become narrower between two frames, and has wrapped the lines.
func TestResize(t *testing.T) {
	d, s, c := terminal(t, 120, 24)
	feed(t, s, bytesOf("a", 0, 1e6), bytesOf("b", 0, 1e6))
	for _, width := range []int{120, 50, 30, 140, 33} {
		d.resize(width, 24)
		c.now = c.now.Add(time.Second)
		feed(t, s, bytesOf("a", 5e5, 1e6), bytesOf("b", 6e5, 1e6))
		s.draw()
		lines := strings.Split(d.String(), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[0], "a: Downloading") || !strings.Contains(lines[1], "600kB/1MB") {
			t.Fatalf("at width %d:\n%s", width, d)
		}
	}
}

// More layers than rows: those that move are shown, and in the end all are.
func TestManyLayers(t *testing.T) {
	d, s, _ := terminal(t, 80, 6)
	var all []string
	for i := range 30 {
		id := fmt.Sprintf("layer%02d", i)
		feed(t, s, `{"status":"Pulling fs layer","progressDetail":{},"id":"`+id+`"}`)
		all = append(all, id+": Pull complete")
		s.draw()
	}
	for i := range 30 {
		feed(t, s, fmt.Sprintf(`{"status":"Pull complete","progressDetail":{},"id":"layer%02d"}`, i))
		s.draw()
		if i == 27 {
			want(t, d, "layer28: Pulling fs layer\nlayer29: Pulling fs layer\n… 28 of 30 done")
		}
	}
	s.freeze()
	want(t, d, strings.Join(all, "\n"))
}

// Where nobody looks on, there is a line per event, as scripts know them.
func TestPlain(t *testing.T) {
	name := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var aux []string
	stream := strings.Join([]string{`{"status":"Pulling from x","id":"latest"}`, `{"status":"Resuming at 5MB","progressDetail":{},"id":"a"}`, bytesOf("a", 1, 2), `{"stream":"Loaded "}{"stream":"it\n"}`,
		`{"aux":{"Tag":"x"}}`, `{"progressDetail":{},"aux":{"Tag":"y"}}`, `{"status":"Digest: d"}`, `{"errorDetail":{"code":1,"message":"no"},"error":"no"}`, `{"status":"never"}`}, "\n")
	err = View{Out: out, Aux: func(raw json.RawMessage) { aux = append(aux, string(raw)) }}.Show(strings.NewReader(stream))
	if err == nil || err.Error() != "no" {
		t.Errorf("the error is %v", err)
	}
	text, _ := os.ReadFile(name)
	if got, want := string(text), "latest: Pulling from x\na: Resuming at 5MB\nLoaded it\nDigest: d\n"; got != want {
		t.Errorf("it prints %q, want %q", got, want)
	}
	if fmt.Sprint(aux) != `[{"Tag":"x"} {"Tag":"y"}]` {
		t.Errorf("programs see %v", aux)
	}
	if err := (View{}).Show(strings.NewReader(`{"status":"x"}` + "\n" + `{"stat`)); err == nil {
		t.Error("a stream that is cut is no error")
	}
}

// FuzzStream shows arbitrary streams on small terminals: nothing may panic, and
// the cursor never leaves the screen.
func FuzzStream(f *testing.F) {
	f.Add([]byte(bytesOf("a", 1, 2)+bytesOf("a", 3, 2)+bytesOf("b", -1, 0)), 20, 3)
	f.Add([]byte(`{"status":"Pushing","id":"x","progressDetail":{"current":5,"total":9,"units":"files","hidecounts":true}}{"stream":"s"}{"status":"y"}`), 3, 1)
	f.Fuzz(func(t *testing.T, stream []byte, width, height int) {
		if bytes.ContainsAny(stream, "\\") || len(stream) > 4096 {
			return // control characters are the engine's to leave out
		}
		d, s, c := terminal(t, 1+abs(width)%150, 2+abs(height)%40)
		for dec := json.NewDecoder(bytes.NewReader(stream)); ; {
			m, err := View{}.next(dec)
			if err != nil {
				break
			}
			s.add(m)
			c.now = c.now.Add(time.Second)
			s.draw()
		}
		s.freeze()
		_ = d.String()
	})
}

func abs(n int) int { return max(n, -(n + 1)) }
