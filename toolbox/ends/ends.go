// Package ends is what head and tail have in common: how much of a file is
// asked for, and the files.
package ends

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Options is a command line of head or tail.
type Options struct {
	Count   int64 // of lines, or of bytes
	Bytes   bool
	Plus    bool // tail: from the Count-th on; head: all but the last Count
	Follow  bool
	Quiet   bool
	Verbose bool
	Files   []string // never empty; "-" is standard input
}

// Parse reads -n N, -nN, -N, -c N, -f, -q and -v.
func Parse(args []string) (*Options, error) {
	o := &Options{Count: 10}
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			break
		}
		if n, err := strconv.ParseInt(arg[1:], 10, 64); err == nil {
			o.Count, o.Plus = n, arg[0] == '+'
			continue
		}
		for letters := arg[1:]; letters != ""; letters = letters[1:] {
			switch letters[0] {
			case 'f', 'F':
				o.Follow = true
			case 'q':
				o.Quiet = true
			case 'v':
				o.Verbose = true
			case 'n', 'c':
				o.Bytes = letters[0] == 'c'
				value := letters[1:]
				if value == "" {
					if len(args) == 0 {
						return nil, fmt.Errorf("-%c needs a number", letters[0])
					}
					value, args = args[0], args[1:]
				}
				if err := o.count(value); err != nil {
					return nil, err
				}
				letters = letters[:1]
			default:
				return nil, fmt.Errorf("unknown option -%c", letters[0])
			}
		}
	}
	if o.Files = args; len(args) == 0 {
		o.Files = []string{"-"}
	}
	return o, nil
}

func (o *Options) count(s string) (err error) {
	digits := strings.TrimLeft(s, "+-")
	o.Plus = strings.HasPrefix(s, "+")
	if o.Count, err = strconv.ParseInt(digits, 10, 64); err != nil || o.Count < 0 {
		return fmt.Errorf("invalid number %q", s)
	}
	return nil
}

// Each opens every file and calls do with it; it returns the exit status.
func (o *Options) Each(name string, do func(f *os.File) error) int {
	status := 0
	for i, file := range o.Files {
		f := os.Stdin
		var err error
		if file != "-" {
			f, err = os.Open(file)
		}
		if err == nil {
			if o.Verbose || len(o.Files) > 1 && !o.Quiet {
				if i > 0 {
					fmt.Println()
				}
				fmt.Printf("==> %s <==\n", file)
			}
			err = do(f)
		}
		if err != nil && err != io.EOF {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			status = 1
		}
	}
	return status
}
