// Command test is the shell's own test as a program.
package main

import (
	"os"

	"github.com/gantry-containers/gantry/toolbox/shell"
)

func main() { os.Exit(shell.Builtin(append([]string{"test"}, os.Args[1:]...))) }
