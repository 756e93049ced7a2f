// Command sleep waits: sleep NUMBER[smhd]..., or sleep infinity.
package main

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"
)

// forever is the longest that can be waited, in seconds: 290 years.
const forever = 9.2e9

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: sleep NUMBER[smhd]... | infinity")
		os.Exit(1)
	}
	total := 0.0 // seconds
	for _, arg := range os.Args[1:] {
		seconds, err := parse(arg)
		if err != nil {
			fmt.Fprintf(os.Stderr, "sleep: %v\n", err)
			os.Exit(1)
		}
		total += seconds
	}
	time.Sleep(time.Duration(min(total, forever) * 1e9))
}

func parse(s string) (float64, error) {
	if s == "infinity" || s == "inf" {
		return forever, nil
	}
	unit := 1.0
	number := strings.TrimRight(s, "smhd")
	switch s[len(number):] {
	case "", "s":
	case "m":
		unit = 60
	case "h":
		unit = 3600
	case "d":
		unit = 86400
	default:
		return 0, fmt.Errorf("invalid time interval %q", s)
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 || math.IsNaN(n) {
		return 0, fmt.Errorf("invalid time interval %q", s)
	}
	return n * unit, nil
}
