// Command head prints how files begin: head [-n N | -N | -c BYTES] [FILE]...
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"

	"github.com/gantry-containers/gantry/toolbox/ends"
)

func main() {
	o, err := ends.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "head: %v\n", err)
		os.Exit(1)
	}
	os.Exit(o.Each("head", func(f *os.File) error {
		if o.Bytes {
			_, err := io.CopyN(os.Stdout, f, o.Count)
			return err
		}
		r := bufio.NewReader(f)
		for range o.Count {
			line, err := r.ReadSlice('\n')
			for err == bufio.ErrBufferFull {
				os.Stdout.Write(line)
				line, err = r.ReadSlice('\n')
			}
			if _, werr := os.Stdout.Write(line); werr != nil {
				return werr
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
}
