// Command gantry is Gantry's command line.
package main

import (
	"os"

	"github.com/gantry-containers/gantry/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
