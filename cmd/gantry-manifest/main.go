// Command gantry-manifest is `gantry manifest`: a program beside gantry, because
// it talks to registries, and gantry must start fast.
package main

import (
	"os"

	"github.com/gantry-containers/gantry/internal/manifest"
)

func main() { os.Exit(manifest.Main(os.Args)) }
