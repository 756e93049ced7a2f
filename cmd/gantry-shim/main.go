// Command gantry-shim holds the containers of one engine: package shim says how.
package main

import (
	"os"

	"github.com/gantry-containers/gantry/internal/shim"
)

func main() {
	os.Exit(shim.Main(os.Args[1:], os.Stdout, os.Stderr))
}
