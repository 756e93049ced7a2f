package seccomp

import (
	"runtime"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// x32Bit marks the numbers of x32, which shares its AUDIT_ARCH with amd64.
const x32Bit = 0x40000000

// arch is one system call interface of a kernel.
type arch struct {
	name   specs.Arch
	audit  uint32
	column int // in numbers
	bit    uint32
	narrow bool // arguments are 32 bits wide
}

// archesOf lists the interfaces a kernel for goarch offers, the native first.
// It is empty where the compiler cannot serve.
func archesOf(goarch string) []arch {
	switch goarch {
	case "amd64":
		return []arch{
			{name: specs.ArchX86_64, audit: unix.AUDIT_ARCH_X86_64, column: 1},
			{name: specs.ArchX86, audit: unix.AUDIT_ARCH_I386, column: 2, narrow: true},
			{name: specs.ArchX32, audit: unix.AUDIT_ARCH_X86_64, column: 3, bit: x32Bit, narrow: true},
		}
	case "arm64":
		return []arch{
			{name: specs.ArchAARCH64, audit: unix.AUDIT_ARCH_AARCH64, column: 4},
			{name: specs.ArchARM, audit: unix.AUDIT_ARCH_ARM, column: 5, narrow: true},
		}
	}
	return nil
}

func native() []arch { return archesOf(runtime.GOARCH) }

// row returns the line of numbers of a system call, without its name, or "".
func row(name string) string {
	lo, hi := 0, len(numbers)
	for lo < hi {
		mid := (lo + hi) / 2
		start := strings.LastIndexByte(numbers[lo:mid], '\n') + lo + 1
		end := start + strings.IndexByte(numbers[start:], '\n')
		line := numbers[start:end]
		space := strings.IndexByte(line, ' ')
		switch key := line[:space]; {
		case key == name:
			return line[space:]
		case key < name:
			lo = end + 1
		default:
			hi = start
		}
	}
	return ""
}

// number returns the number in a column of a row, counted from 1.
func number(row string, column int) (nr uint32, ok bool) {
	field := 0
	for i := 0; i < len(row); i++ {
		switch c := row[i]; {
		case c == ' ':
			field++
		case field != column:
		case c == '-':
			return 0, false
		default:
			nr, ok = nr*10+uint32(c-'0'), true
		}
	}
	return nr, ok
}

// Known says whether this package knows a system call by that name on any
// architecture.
func Known(name string) bool { return row(name) != "" }
