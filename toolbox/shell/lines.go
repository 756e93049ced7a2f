package shell

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// lines reads lines from standard input; from a terminal with editing and a
// history.
type lines struct {
	term  *term.Terminal // nil when there is none
	plain *bufio.Reader
}

func newLines() *lines {
	if !term.IsTerminal(0) {
		return &lines{plain: bufio.NewReader(os.Stdin)}
	}
	return &lines{term: term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{&keys{}, os.Stdout}, "")}
}

// read returns the next line without its end. The terminal is raw only while a
// line is typed: commands find it as they expect it.
func (l *lines) read(prompt string) (string, error) {
	if l.term == nil {
		fmt.Fprint(os.Stdout, prompt)
		line, err := l.plain.ReadString('\n')
		if line != "" {
			err = nil
		}
		return strings.TrimSuffix(line, "\n"), err
	}
	before, err := term.MakeRaw(0)
	if err != nil {
		return "", err
	}
	defer term.Restore(0, before)
	if width, height, err := term.GetSize(0); err == nil && width > 0 {
		l.term.SetSize(width, height)
	}
	l.term.SetPrompt(prompt)
	return l.term.ReadLine()
}

// keys is the keyboard, with Ctrl-C turned into "forget this line", which is
// not the end of input.
type keys struct {
	left []byte
}

func (k *keys) Read(p []byte) (int, error) {
	if len(k.left) == 0 {
		buf := make([]byte, 256)
		n, err := os.Stdin.Read(buf)
		if n == 0 {
			return 0, err
		}
		for _, ch := range buf[:n] {
			if ch == 3 {
				k.left = append(k.left, 5, 21, '\r') // to the end, kill, enter
			} else {
				k.left = append(k.left, ch)
			}
		}
	}
	n := copy(p, k.left)
	k.left = k.left[n:]
	return n, nil
}
