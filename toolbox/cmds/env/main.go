// Command env prints the environment, or runs a command in a changed one:
// env [-i] [-u NAME]... [NAME=VALUE]... [COMMAND [ARG]...].
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

func main() {
	args := os.Args[1:]
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "-i" || arg == "-" || arg == "--ignore-environment":
			os.Clearenv()
		case arg == "-u" && len(args) > 0:
			os.Unsetenv(args[0])
			args = args[1:]
		case strings.HasPrefix(arg, "--unset="):
			os.Unsetenv(strings.TrimPrefix(arg, "--unset="))
		default:
			fmt.Fprintln(os.Stderr, "usage: env [-i] [-u NAME]... [NAME=VALUE]... [COMMAND [ARG]...]")
			os.Exit(125)
		}
	}
	for len(args) > 0 && strings.Contains(args[0], "=") {
		name, value, _ := strings.Cut(args[0], "=")
		os.Setenv(name, value)
		args = args[1:]
	}
	if len(args) == 0 {
		for _, pair := range os.Environ() {
			fmt.Println(pair)
		}
		return
	}
	environ := os.Environ()
	if os.Getenv("PATH") == "" {
		os.Setenv("PATH", "/bin:/usr/bin") // to look in, as execvp does
	}
	path, err := exec.LookPath(args[0])
	if err == nil {
		err = syscall.Exec(path, args, environ)
	}
	fmt.Fprintf(os.Stderr, "env: cannot run %s: %v\n", args[0], err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		os.Exit(127)
	}
	os.Exit(126)
}
