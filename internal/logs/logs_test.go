package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 60_000_000, time.UTC)

func config(t testing.TB, driver string, opts ...string) Config {
	c := Config{Driver: driver, Path: filepath.Join(t.TempDir(), "x-json.log"), Opts: map[string]string{}}
	for _, o := range opts {
		k, v, _ := strings.Cut(o, "=")
		c.Opts[k] = v
	}
	return c
}

func open(t testing.TB, c Config) Writer {
	t.Helper()
	w, err := NewWriter(c)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

var everything = ReadOptions{Tail: -1, Stdout: true, Stderr: true}

func read(t testing.TB, c Config, o ReadOptions) (lines []string) {
	t.Helper()
	err := Read(t.Context(), c, o, nil, func(m *Message) error {
		lines = append(lines, string(m.Line))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// The layout is read by log shippers that know Docker's: it must not drift.
func TestJSONFileIsDockersLayout(t *testing.T) {
	c := config(t, JSONFile)
	c.Attrs = map[string]string{"b": "2", "a": "<1>"}
	w := open(t, c)
	w.Write(Stdout, at, []byte("hello \"you\" <&> \xff \u2028 é\t\r\x01\\\nhalf"))
	w.Write(Stderr, at, []byte("bad\n"))
	w.Write(Stdout, at, []byte(" done\nrest"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tail := `,"attrs":{"a":"\u003c1\u003e","b":"2"},"time":"2026-01-02T03:04:05.06Z"}` + "\n"
	want := `{"log":"hello \"you\" \u003c\u0026\u003e \ufffd \u2028 é\u0009\r\u0001\\\n","stream":"stdout"` + tail +
		`{"log":"bad\n","stream":"stderr"` + tail +
		`{"log":"half done\n","stream":"stdout"` + tail +
		`{"log":"rest","stream":"stdout"` + tail
	got, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// An entry of Docker's own local driver, made with its code.
func TestLocalIsDockersLayout(t *testing.T) {
	c := newLocalCodec(map[string]string{"k": "v"})
	got := c.append(nil, &entry{stream: Stdout, at: time.Unix(0, 300), line: []byte("hi"), piece: 2, id: "x", last: true})
	want := "\x00\x00\x00\x22" +
		"\x0a\x06stdout" + "\x10\xac\x02" + "\x1a\x02hi" + "\x20\x01" +
		"\x2a\x07\x08\x01\x12\x01x\x18\x02" + "\x32\x06\x0a\x01k\x12\x01v" +
		"\x00\x00\x00\x22"
	if string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestLongLinesAreCutAsDockerDoes(t *testing.T) {
	for _, driver := range []string{JSONFile, Local} {
		for _, size := range []int{maxLine - 1, maxLine, maxLine + 1, 3*maxLine + 5} {
			for _, chunk := range []int{1 << 20, 1000, maxLine} {
				c := config(t, driver)
				w := open(t, c)
				text := strings.Repeat("x", size)
				for p := []byte(text + "\nend\n"); len(p) > 0; {
					n := min(chunk, len(p))
					w.Write(Stdout, at, p[:n])
					p = p[n:]
				}
				w.Close()
				lines := read(t, c, everything)
				if got := strings.Join(lines, ""); got != text+"\nend\n" {
					t.Fatalf("%s %d/%d: %d bytes came back, not %d", driver, size, chunk, len(got), size+5)
				}
				for _, l := range lines[:len(lines)-2] {
					if len(l) != maxLine {
						t.Errorf("%s %d/%d: a piece has %d bytes", driver, size, chunk, len(l))
					}
				}
			}
		}
	}
}

func TestEveryByteComesBack(t *testing.T) {
	var all []byte
	for i := range 256 {
		if i != '\n' && i < 0x80 {
			all = append(all, byte(i))
		}
	}
	all = append(all, "日本語 🎉 \u2029\n"...)
	for _, driver := range []string{JSONFile, Local} {
		c := config(t, driver)
		w := open(t, c)
		w.Write(Stderr, at, all)
		w.Close()
		if got := read(t, c, everything); len(got) != 1 || got[0] != string(all) {
			t.Errorf("%s: got %q", driver, got)
		}
	}
}

// fill writes n numbered lines, each its own second.
func fill(w Writer, from, n int) {
	for i := from; i < from+n; i++ {
		w.Write(Stdout, at.Add(time.Duration(i)*time.Second), fmt.Appendf(nil, "line %d\n", i))
	}
}

func waitCompression(w Writer) { w.(*lineWriter).file.compression.Wait() }

func TestTailSinceUntilAcrossRotation(t *testing.T) {
	for _, opts := range [][]string{
		{JSONFile, "max-size=1k", "max-file=100"},
		{JSONFile, "max-size=1k", "max-file=100", "compress=true"},
		{Local, "max-size=1k", "max-file=100", "compress=false"},
		{Local, "max-size=1k", "max-file=100"},
	} {
		t.Run(strings.Join(opts, ","), func(t *testing.T) {
			c := config(t, opts[0], opts[1:]...)
			w := open(t, c)
			const n = 300
			fill(w, 0, n)
			waitCompression(w)
			w.Close()
			if got := read(t, c, everything); len(got) != n || got[0] != "line 0\n" || got[n-1] != "line 299\n" {
				t.Fatalf("%d lines came back", len(got))
			}
			for _, tail := range []int{0, 1, 2, 50, 299, 300, 1000} {
				o := everything
				o.Tail = tail
				got := read(t, c, o)
				if len(got) != min(tail, n) {
					t.Errorf("tail %d: %d lines", tail, len(got))
				} else if len(got) > 0 && got[0] != fmt.Sprintf("line %d\n", n-len(got)) {
					t.Errorf("tail %d begins with %q", tail, got[0])
				}
			}
			o := everything
			o.Since, o.Until = at.Add(100*time.Second), at.Add(199*time.Second)
			if got := read(t, c, o); len(got) != 100 || got[0] != "line 100\n" || got[99] != "line 199\n" {
				t.Errorf("since, until: %d lines", len(got))
			}
		})
	}
}

func TestOldFilesAreRemoved(t *testing.T) {
	for _, opts := range [][]string{
		{JSONFile, "max-size=1k", "max-file=3"},
		{Local, "max-size=1k", "max-file=3"},
		{JSONFile, "max-size=1k", "max-file=1"},
	} {
		c := config(t, opts[0], opts[1:]...)
		w := open(t, c)
		fill(w, 0, 500)
		waitCompression(w)
		w.Close()
		names, _ := filepath.Glob(c.Path + "*")
		if want := int(c.Opts["max-file"][0] - '0'); len(names) != want {
			t.Errorf("%v leaves %v", opts, names)
		}
		if got := read(t, c, everything); got[len(got)-1] != "line 499\n" {
			t.Errorf("%v ends with %q", opts, got[len(got)-1])
		}
	}
}

// A follower must see every line once while the file is rotated under it.
func TestFollowAcrossRotation(t *testing.T) {
	for _, opts := range [][]string{
		{JSONFile, "max-size=20k", "max-file=50"},
		{JSONFile, "max-size=20k", "max-file=50", "compress=true"},
		{Local, "max-size=20k", "max-file=50"},
	} {
		t.Run(strings.Join(opts, ","), func(t *testing.T) {
			c := config(t, opts[0], opts[1:]...)
			w := open(t, c)
			ended := make(chan struct{})
			var wg sync.WaitGroup
			const n = 8000
			var seen [3]int
			for f := range seen {
				wg.Go(func() {
					o := everything
					o.Follow = true
					err := Read(t.Context(), c, o, ended, func(m *Message) error {
						if want := fmt.Sprintf("line %d\n", seen[f]); string(m.Line) != want {
							return fmt.Errorf("got %q after line %d", m.Line, seen[f]-1)
						}
						seen[f]++
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			for i := 0; i < n; i += 100 {
				fill(w, i, 100)
			}
			w.Close()
			close(ended)
			wg.Wait()
			for f := range seen {
				if seen[f] != n {
					t.Errorf("follower %d saw %d of %d lines", f, seen[f], n)
				}
			}
		})
	}
}

// The moment between a follower's last look at a file and its rotation is short:
// rotate all the time to hit it.
func TestFollowThroughManyRotations(t *testing.T) {
	c := config(t, JSONFile, "max-size=200", "max-file=150")
	w := open(t, c)
	ended, done := make(chan struct{}), make(chan error, 1)
	seen := 0
	const n = 400
	go func() {
		o := everything
		o.Follow = true
		done <- Read(t.Context(), c, o, ended, func(m *Message) error {
			if want := fmt.Sprintf("line %d\n", seen); string(m.Line) != want {
				return fmt.Errorf("got %q after line %d", m.Line, seen-1)
			}
			seen++
			return nil
		})
	}()
	for i := range n {
		fill(w, i, 1)
	}
	w.Close()
	close(ended)
	if err := <-done; err != nil || seen != n {
		t.Errorf("the follower saw %d of %d lines: %v", seen, n, err)
	}
}

func TestFollowWaitsForTheFirstLineAndEnds(t *testing.T) {
	c := config(t, JSONFile)
	got, done := make(chan string, 10), make(chan error, 1)
	ended := make(chan struct{})
	o := everything
	o.Follow = true
	go func() {
		done <- Read(t.Context(), c, o, ended, func(m *Message) error { got <- string(m.Line); return nil })
	}()
	w := open(t, c)
	w.Write(Stdout, at, []byte("one\n"))
	if s := <-got; s != "one\n" {
		t.Errorf("got %q", s)
	}
	// Emptied by hand, as people do.
	if err := os.Truncate(c.Path, 0); err != nil {
		t.Fatal(err)
	}
	w.Write(Stdout, at, []byte("2\n")) // shorter: otherwise nobody could tell
	if s := <-got; s != "2\n" {
		t.Errorf("got %q", s)
	}
	w.Write(Stdout, at, []byte("half"))
	w.Close()
	close(ended)
	if s := <-got; s != "half" {
		t.Errorf("got %q", s)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestFollowUntil(t *testing.T) {
	c := config(t, JSONFile)
	open(t, c).Close()
	o := everything
	o.Follow, o.Until = true, time.Now().Add(20*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := Read(ctx, c, o, nil, func(*Message) error { return nil }); err != nil {
		t.Error(err)
	}
}

// A killed writer leaves half an entry; the next one goes on behind it.
func TestHalfEntriesAreSkipped(t *testing.T) {
	for _, driver := range []string{JSONFile, Local} {
		c := config(t, driver)
		w := open(t, c)
		fill(w, 0, 3)
		w.Close()
		whole, _ := os.ReadFile(c.Path)
		for cut := 2; cut < 20; cut++ {
			if err := os.WriteFile(c.Path, whole[:len(whole)-cut], 0o640); err != nil {
				t.Fatal(err)
			}
			if got := read(t, c, everything); len(got) != 2 {
				t.Errorf("%s cut %d: %q", driver, cut, got)
			}
			w := open(t, c)
			fill(w, 3, 2)
			w.Close()
			if got := strings.Join(read(t, c, everything), ""); got != "line 0\nline 1\nline 3\nline 4\n" {
				t.Errorf("%s cut %d, continued: %q", driver, cut, got)
			}
			o := everything
			o.Tail = 3
			if got := strings.Join(read(t, c, o), ""); got != "line 1\nline 3\nline 4\n" {
				t.Errorf("%s cut %d, tail: %q", driver, cut, got)
			}
		}
	}
}

func TestDamageInTheMiddle(t *testing.T) {
	for _, driver := range []string{JSONFile, Local} {
		c := config(t, driver)
		w := open(t, c)
		fill(w, 0, 10)
		w.Close()
		b, _ := os.ReadFile(c.Path)
		size := len(b) / 10
		copy(b[3*size+2:], strings.Repeat("\x00", size/2))
		os.WriteFile(c.Path, b, 0o640)
		if got := read(t, c, everything); len(got) != 9 {
			t.Errorf("%s: %q", driver, got)
		}
		o := everything
		o.Tail = 8
		if got := read(t, c, o); len(got) != 8 || got[0] != "line 1\n" {
			t.Errorf("%s: tail %q", driver, got)
		}
	}
}

func TestUnfinishedLinesChangeHands(t *testing.T) {
	for _, driver := range []string{JSONFile, Local} {
		c := config(t, driver)
		w := open(t, c)
		long := strings.Repeat("y", maxLine+10)
		w.Write(Stdout, at, []byte("a\nhel"))
		w.Write(Stderr, at, []byte(long))
		state, err := json.Marshal(w.Unfinished())
		if err != nil {
			t.Fatal(err)
		}
		var u []Unfinished
		if err := json.Unmarshal(state, &u); err != nil {
			t.Fatal(err)
		}
		w = open(t, c)
		w.Resume(u)
		w.Write(Stdout, at, []byte("lo\n"))
		w.Write(Stderr, at, []byte("z\n"))
		w.Close()
		want := []string{"a\n", long[:maxLine], "hello\n", long[maxLine:] + "z\n"}
		if got := read(t, c, everything); strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("%s: got %.40q", driver, got)
		}
	}
}

// A full disk loses lines and says so; the container goes on.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	for _, driver := range []string{JSONFile, Local} {
		c := config(t, driver, "max-size=10m", "max-file=2", "compress=false")
		dir := filepath.Dir(c.Path)
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
			t.Skipf("cannot mount a tmpfs: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		w := open(t, c)
		ballast := filepath.Join(dir, "ballast")
		os.WriteFile(ballast, make([]byte, 40<<10), 0o600)
		fill(w, 0, 2000)
		os.Remove(ballast)
		fill(w, 2000, 1)
		w.Close()
		got := read(t, c, everything)
		marker, kept := "", 0
		for _, l := range got {
			if strings.HasPrefix(l, "gantry: ") {
				marker = l
			} else {
				kept++
			}
		}
		if want := fmt.Sprintf("gantry: %d log entries were dropped here: ", 2001-kept); !strings.HasPrefix(marker, want) || !strings.Contains(marker, "no space left") {
			t.Errorf("%s: kept %d, marker %q", driver, kept, marker)
		}
		if got[len(got)-1] != "line 2000\n" {
			t.Errorf("%s: the log ends with %q", driver, got[len(got)-1])
		}
	}
}

func TestNonBlocking(t *testing.T) {
	c := config(t, JSONFile, "mode=non-blocking", "max-buffer-size=1k")
	w := open(t, c).(*ring)
	w.next.mu.Lock() // the disk hangs
	for i := range 1000 {
		w.Write(Stdout, at, fmt.Appendf(nil, "line %d\nand ", i))
	}
	w.next.mu.Unlock()
	w.Close()
	got := read(t, c, everything)
	text := strings.Join(got, "")
	if len(got) > 200 || !strings.HasPrefix(text, "line 0\nand line 1\n") || !strings.Contains(text, "the buffer of mode=non-blocking was full") {
		t.Errorf("got %d lines: %.200q", len(got), text)
	}
}

func TestOptions(t *testing.T) {
	for _, tc := range []struct{ driver, opts, want string }{
		{"json-file", "", ""},
		{"", "max-size=10k max-file=2 compress=true labels=a env-regex=^x tag=t", ""},
		{"local", "max-size=1m max-file=3 compress=false", ""},
		{"none", "anything=1", ""},
		{"json-file", "size=1", "unknown log opt 'size' for json-file log driver"},
		{"local", "size=1", "unknown log opt 'size' for log driver local"},
		{"json-file", "max-size=0", "max-size must be a positive number"},
		{"json-file", "max-size=x", "invalid size: 'x'"},
		{"json-file", "max-file=0", "max-file cannot be less than 1"},
		{"json-file", "max-file=1 compress=true", "compress cannot be true when max-file is less than 2 or max-size is not set"},
		{"local", "max-file=1", "compression cannot be enabled when max file count is 1"},
		{"json-file", "mode=fast", "logger: logging mode not supported: fast"},
		{"json-file", "max-buffer-size=1m", "logger: max-buffer-size option is only supported with 'mode=non-blocking'"},
		{"fluentd", "", "logger: no log driver named 'fluentd' is registered"},
	} {
		opts := map[string]string{}
		for _, kv := range strings.Fields(tc.opts) {
			k, v, _ := strings.Cut(kv, "=")
			opts[k] = v
		}
		err := Validate(tc.driver, opts)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || err.Error() != tc.want) {
			t.Errorf("%s %q: got %v, want %s", tc.driver, tc.opts, err, tc.want)
		}
		if err != nil && !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s %q: %v is not an invalid argument", tc.driver, tc.opts, err)
		}
	}
}

func BenchmarkYes(b *testing.B) {
	for _, line := range []string{"y\n", strings.Repeat("x", 99) + "\n"} {
		for _, driver := range []string{JSONFile, Local} {
			b.Run(fmt.Sprintf("%s-%d", driver, len(line)), func(b *testing.B) {
				c := config(b, driver, "compress=false")
				w := open(b, c)
				chunk := bytes.Repeat([]byte(line), (64<<10)/len(line))
				b.SetBytes(int64(len(chunk)))
				b.ReportAllocs()
				for b.Loop() {
					w.Write(Stdout, time.Now(), chunk)
				}
				w.Close()
			})
		}
	}
}

// Whatever else is JSON with these fields is a log as well: other tools write it.
func TestForeignJSON(t *testing.T) {
	c := config(t, JSONFile)
	text := ` { "time" : "2024-05-06T07:08:09Z", "stream":"stderr", "log" : "\ud83d\ude00 \/ \u00e9\n", "extra": [1] } ` + "\n" +
		`{"log":"\u0041\t\"","stream":"stdout","attrs":{"k":"\\"},"time":"2024-05-06T09:08:10.5+02:00"}` + "\n"
	if err := os.WriteFile(c.Path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := Read(t.Context(), c, everything, nil, func(m *Message) error {
		got = append(got, fmt.Sprintf("%s %q %s %v", m.Stream, m.Line, m.Time.UTC().Format(time.RFC3339Nano), m.Attrs))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`stderr "😀 / é\n" 2024-05-06T07:08:09Z map[]`, `stdout "A\t\"" 2024-05-06T07:08:10.5Z map[k:\]`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got %q", got)
	}
}

func TestExtraAttributes(t *testing.T) {
	got, err := ExtraAttributes(map[string]string{"labels": "a,none", "labels-regex": "^x", "env": "E"},
		map[string]string{"a": "1", "b": "2", "x1": "3"}, []string{"E=4", "F=5"})
	if err != nil || fmt.Sprint(got) != "map[E:4 a:1 x1:3]" {
		t.Errorf("%v, %v", got, err)
	}
}
