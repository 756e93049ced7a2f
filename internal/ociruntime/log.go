package ociruntime

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gantry-containers/gantry/internal/errs"
)

// logger writes what goes wrong to stderr, where people look, and to the file of
// --log, where containerd and Podman do. Its lines have the fields and names
// those read: time, level, msg.
type logger struct {
	w     io.Writer
	json  bool
	debug bool
}

func (l *logger) open(path, format string) error {
	switch format {
	case "text":
	case "json":
		l.json = true
	default:
		return errs.InvalidArgument("invalid --log-format %q: must be text or json", format)
	}
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("cannot open the log: %w", err)
	}
	l.w = f
	return nil
}

func (l *logger) fail(err error) {
	msg := strings.TrimSpace(err.Error())
	l.line("error", msg)
	fmt.Fprintln(os.Stderr, "gantry-oci:", msg)
}

func (l *logger) warn(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	l.line("warning", msg)
	fmt.Fprintln(os.Stderr, "gantry-oci: warning:", msg)
}

func (l *logger) line(level, msg string) {
	if l.w == nil {
		return
	}
	now := time.Now().UTC().Format(time.RFC3339Nano)
	if !l.json {
		fmt.Fprintf(l.w, "time=%q level=%s msg=%q\n", now, level, msg)
		return
	}
	b, err := json.Marshal(map[string]string{"time": now, "level": level, "msg": msg})
	if err == nil {
		_, _ = l.w.Write(append(b, '\n'))
	}
}
