package shim

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
	"github.com/gantry-containers/gantry/internal/ocirt"
)

// maxSaid bounds, in bytes, what is read of a runtime's complaints.
const maxSaid = 64 << 10

// explain makes an error of what the runtime has written: into its log, where
// all of them do, or to standard error when it did not get that far.
func (c *runtimeCall) explain(name string, exit *exec.ExitError, logFile string) error {
	said := ""
	if f, err := os.Open(logFile); err == nil {
		raw, _ := io.ReadAll(io.LimitReader(f, maxSaid))
		f.Close()
		said = loggedError(raw)
	}
	if said == "" {
		said = lastLine(c.standardError())
	}
	if said == "" {
		said = exit.Error()
	}
	if err := execError(c.process, said); err != nil {
		return err
	}
	return errs.System("runtime %s: %s", name, said)
}

// standardError is what the runtime has written to standard error.
func (c *runtimeCall) standardError() []byte {
	buf := make([]byte, maxSaid)
	n := 0
	switch {
	case c.errors != nil:
		n, _ = c.errors.ReadAt(buf, 0)
	case c.io != nil && c.io.out[logs.Stderr] != nil:
		control(c.io.out[logs.Stderr], func(fd int) (err error) {
			n, err = unix.Read(fd, buf) // it does not block
			return err
		})
	}
	return buf[:max(n, 0)]
}

// loggedError is the last error in the log of a runtime: a JSON object in each
// line, as asked for, or what it wrote instead.
func loggedError(raw []byte) string {
	found := ""
	for line := range bytes.Lines(raw) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal(line, &entry) != nil {
			continue
		}
		switch strings.ToLower(entry.Level) {
		case "", "error", "fatal", "panic":
			if entry.Msg != "" {
				found = entry.Msg
			}
		}
	}
	if found == "" && !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		found = lastLine(raw)
	}
	return strings.TrimSpace(found)
}

func lastLine(raw []byte) string {
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// execError recognises that the program was the problem, which decides the exit
// code, in the words of runc, crun and others; nil when it was not. There is no
// better way: the command line of a runtime has no exit codes for it.
func execError(p *specs.Process, said string) error {
	if p == nil || len(p.Args) == 0 {
		return nil
	}
	program := p.Args[0]
	text := strings.ToLower(said)
	about := strings.Contains(text, "executable") || strings.Contains(text, "execve") ||
		strings.Contains(said, `exec: "`+program) || strings.Contains(said, "exec "+program) ||
		strings.Contains(text, "exec format error")
	if !about {
		return nil
	}
	e := &ocirt.ExecError{Path: program, Searched: !strings.Contains(program, "/")}
	for _, known := range []struct {
		words string
		errno syscall.Errno
	}{
		{"exec format error", unix.ENOEXEC},
		{"is a directory", unix.EACCES},
		{"permission denied", unix.EACCES},
		{"not found", unix.ENOENT},
		{"no such file", unix.ENOENT},
		{"not a directory", unix.ENOTDIR},
	} {
		if strings.Contains(text, known.words) {
			e.Errno, e.Dir = known.errno, known.words == "is a directory"
			return e
		}
	}
	return nil
}
