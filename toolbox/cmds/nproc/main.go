// Command nproc prints how many processors this process may run on.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func main() {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		fmt.Fprintf(os.Stderr, "nproc: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(set.Count())
}
