// Command kill sends signals: kill [-SIGNAL | -s SIGNAL] PID..., or kill -l.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	args := os.Args[1:]
	signal := unix.SIGTERM
	var err error
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		name := args[0][1:]
		args = args[1:]
		switch {
		case name == "l":
			list()
			return
		case name == "s" && len(args) > 0:
			name, args = args[0], args[1:]
			signal, err = parse(name)
		case name != "-":
			signal, err = parse(name)
		}
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if err == nil && len(args) == 0 {
		err = fmt.Errorf("usage: kill [-SIGNAL | -s SIGNAL] PID... | kill -l")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "kill: %v\n", err)
		os.Exit(1)
	}
	status := 0
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		if err == nil {
			err = unix.Kill(pid, signal)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "kill: cannot kill %s: %v\n", arg, err)
			status = 1
		}
	}
	os.Exit(status)
}

func parse(name string) (unix.Signal, error) {
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n <= 64 {
		return unix.Signal(n), nil
	}
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if s := unix.SignalNum("SIG" + name); s != 0 {
		return s, nil
	}
	return 0, fmt.Errorf("unknown signal %s", name)
}

func list() {
	for n := 1; n < 32; n++ {
		fmt.Printf("%2d %s\n", n, strings.TrimPrefix(unix.SignalName(unix.Signal(n)), "SIG"))
	}
}
