package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// Whatever a log file holds, reading it ends without a fault, and the last
// entries are those a whole reading ends with.
func fuzz(f *testing.F, driver string) {
	c := newCodec(&Config{Driver: driver, Attrs: map[string]string{"a": "b"}})
	good := c.append(nil, &entry{stream: Stdout, at: at, line: []byte("hello \\ é"), last: true})
	good = c.append(good, &entry{stream: Stderr, at: at, line: []byte("x"), piece: 1, id: "i"})
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(append(good[5:len(good):len(good)], good...))
	f.Fuzz(func(t *testing.T, b []byte) {
		conf := Config{Driver: driver, Path: filepath.Join(t.TempDir(), "log")}
		if err := os.WriteFile(conf.Path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		collect := func(tail int) (lines [][]byte) {
			o := ReadOptions{Tail: tail, Stdout: true, Stderr: true}
			err := Read(context.Background(), conf, o, nil, func(m *Message) error {
				lines = append(lines, bytes.Clone(m.Line))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return lines
		}
		all, two := collect(-1), collect(2)
		if driver == JSONFile && len(two) != min(2, len(all)) {
			t.Fatalf("%d lines, of which the last two are %d", len(all), len(two))
		}
	})
}

func FuzzReadJSONFile(f *testing.F) { fuzz(f, JSONFile) }
func FuzzReadLocal(f *testing.F)    { fuzz(f, Local) }

// The escapes are those encoding/json undoes.
func FuzzEscape(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte("\x00\x1f\"\\<>&\xff\xc3\u2028\U0001f389 and a long plain text"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var got string
		raw := append(appendEscaped([]byte{'"'}, b), '"')
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatalf("%q: %v", raw, err)
		}
		if want := toValid(b); got != want {
			t.Fatalf("%q became %q", b, got)
		}
	})
}

// toValid replaces each byte that is not UTF-8 by one replacement character.
func toValid(b []byte) string { return string([]rune(string(b))) }
