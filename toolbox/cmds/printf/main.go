// Command printf is the shell's own printf as a program.
package main

import (
	"os"

	"github.com/gantry-containers/gantry/toolbox/shell"
)

func main() { os.Exit(shell.Builtin(append([]string{"printf"}, os.Args[1:]...))) }
