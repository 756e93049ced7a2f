// Command tail prints how files end: tail [-n [+]N | -N | -c [+]BYTES] [-f]
// [FILE]...
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gantry-containers/gantry/toolbox/ends"
)

func main() {
	o, err := ends.Parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "tail: %v\n", err)
		os.Exit(1)
	}
	var followed []*os.File
	status := o.Each("tail", func(f *os.File) error {
		followed = append(followed, f)
		if o.Bytes {
			return lastBytes(f, o)
		}
		return lastLines(f, o)
	})
	for o.Follow && len(followed) > 0 {
		for _, f := range followed {
			follow(f)
		}
		time.Sleep(250 * time.Millisecond)
	}
	os.Exit(status)
}

// follow prints what was added; a file that became shorter begins anew.
func follow(f *os.File) {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		if at, err := f.Seek(0, io.SeekCurrent); err == nil && info.Size() < at {
			f.Seek(0, io.SeekStart)
		}
	}
	io.Copy(os.Stdout, f)
}

func lastBytes(f *os.File, o *ends.Options) error {
	if o.Plus {
		io.CopyN(io.Discard, f, max(o.Count-1, 0))
		_, err := io.Copy(os.Stdout, f)
		return err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > o.Count {
		f.Seek(-o.Count, io.SeekEnd)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(data[max(0, int64(len(data))-o.Count):])
	return err
}

func lastLines(f *os.File, o *ends.Options) error {
	r := bufio.NewReader(f)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	var kept []string
	for n := int64(1); ; n++ {
		line, err := r.ReadString('\n')
		switch {
		case o.Plus && n >= o.Count:
			out.WriteString(line)
		case !o.Plus && line != "" && o.Count > 0:
			if int64(len(kept)) == o.Count {
				kept = append(kept[:0], kept[1:]...)
			}
			kept = append(kept, line)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	for _, line := range kept {
		out.WriteString(line)
	}
	return nil
}
