// Command sh is the shell.
package main

import (
	"os"

	"github.com/gantry-containers/gantry/toolbox/shell"
)

func main() { os.Exit(shell.Main(os.Args)) }
