package runflags

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ReadEnv reads environment files and appends the variables given one by one,
// which win. A name without a value takes it from the environment and is left
// out when it has none there.
func ReadEnv(files, env []string) ([]string, error) { return readPairs(files, env, os.LookupEnv) }

func readPairs(files, values []string, lookup func(string) (string, bool)) ([]string, error) {
	var all []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		lines, err := parsePairs(f, lookup)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("invalid env file (%s): %w", name, err)
		}
		all = append(all, lines...)
	}
	return append(all, values...), nil
}

// parsePairs reads KEY=value lines. Blank lines and those starting with # are
// skipped; a value is kept as it is, quotes and trailing blanks included.
func parsePairs(r io.Reader, lookup func(string) (string, bool)) ([]string, error) {
	var out []string
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		raw := lines.Bytes()
		if !utf8.Valid(raw) {
			return nil, fmt.Errorf("invalid utf8 bytes at line %d: %v", n, raw)
		}
		if n == 1 {
			raw = bytes.TrimPrefix(raw, []byte("\xef\xbb\xbf"))
		}
		line := strings.TrimLeftFunc(string(raw), unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		k, _, has := strings.Cut(line, "=")
		switch {
		case k == "":
			return nil, fmt.Errorf("no variable name on line '%s'", line)
		case strings.ContainsAny(k, " \t"):
			return nil, fmt.Errorf("variable '%s' contains whitespaces", k)
		case has:
			out = append(out, line)
		case lookup != nil:
			if v, ok := lookup(k); ok {
				out = append(out, k+"="+v)
			}
		}
	}
	if err := lines.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, errors.New("a line is longer than 1 MiB")
		}
		return nil, err
	}
	return out, nil
}
