// Command sha256sum prints the SHA-256 of files.
package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
)

func main() {
	names := os.Args[1:]
	if len(names) == 0 {
		names = []string{"-"}
	}
	status := 0
	for _, name := range names {
		if err := sum(name); err != nil {
			fmt.Fprintf(os.Stderr, "sha256sum: %v\n", err)
			status = 1
		}
	}
	os.Exit(status)
}

func sum(name string) error {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = os.Open(name); err != nil {
			return err
		}
		defer f.Close()
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	fmt.Printf("%x  %s\n", h.Sum(nil), name)
	return nil
}
