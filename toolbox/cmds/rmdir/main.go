// Command rmdir removes empty directories; with -p their parents as well.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

func main() {
	parents := flag.Bool("p", false, "remove empty parents as well")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: rmdir [-p] DIRECTORY...")
		os.Exit(1)
	}
	status := 0
	for _, dir := range flag.Args() {
		for dir = filepath.Clean(dir); ; dir = filepath.Dir(dir) {
			if err := syscall.Rmdir(dir); err != nil {
				fmt.Fprintf(os.Stderr, "rmdir: cannot remove %s: %v\n", dir, err)
				status = 1
				break
			}
			if up := filepath.Dir(dir); !*parents || up == "." || up == "/" {
				break
			}
		}
	}
	os.Exit(status)
}
