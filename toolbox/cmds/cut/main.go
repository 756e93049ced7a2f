// Command cut prints parts of lines: cut -f LIST [-d CHAR] [-s], or -c LIST.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// span is a range of positions, counted from 1; the end may be open.
type span struct{ from, to int }

const open = 1 << 30

func main() {
	fields := flag.String("f", "", "fields to print")
	chars := flag.String("c", "", "characters to print")
	delimiter := flag.String("d", "\t", "what separates fields")
	only := flag.Bool("s", false, "leave out lines without the delimiter")
	flag.Parse()
	list := *fields + *chars
	spans, err := parse(list)
	if err != nil || (*fields == "") == (*chars == "") {
		fmt.Fprintln(os.Stderr, "usage: cut -f LIST [-d CHAR] [-s] [FILE]... | cut -c LIST [FILE]...")
		os.Exit(1)
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	each := func(line string) {
		if *chars != "" {
			parts := strings.Split(line, "")
			fmt.Fprintln(out, strings.Join(pick(parts, spans), ""))
			return
		}
		if !strings.Contains(line, *delimiter) {
			if !*only {
				fmt.Fprintln(out, line)
			}
			return
		}
		fmt.Fprintln(out, strings.Join(pick(strings.Split(line, *delimiter), spans), *delimiter))
	}
	names := flag.Args()
	if len(names) == 0 {
		names = []string{"-"}
	}
	for _, name := range names {
		f := os.Stdin
		if name != "-" {
			if f, err = os.Open(name); err != nil {
				out.Flush()
				fmt.Fprintf(os.Stderr, "cut: %v\n", err)
				os.Exit(1)
			}
		}
		r := bufio.NewReader(f)
		for {
			line, err := r.ReadString('\n')
			if line != "" {
				each(strings.TrimSuffix(line, "\n"))
			}
			if err == io.EOF {
				break
			}
		}
	}
}

func parse(list string) (spans []span, err error) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		s := span{1, open}
		if first != "" || !isRange {
			if s.from, err = strconv.Atoi(first); err != nil {
				return nil, err
			}
		}
		if !isRange {
			s.to = s.from
		} else if last != "" {
			if s.to, err = strconv.Atoi(last); err != nil {
				return nil, err
			}
		}
		spans = append(spans, s)
	}
	return spans, nil
}

func pick(parts []string, spans []span) (picked []string) {
	for i, part := range parts {
		for _, s := range spans {
			if i+1 >= s.from && i+1 <= s.to {
				picked = append(picked, part)
				break
			}
		}
	}
	return picked
}
