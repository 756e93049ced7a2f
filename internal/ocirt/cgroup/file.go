package cgroup

import (
	"errors"
	"io/fs"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// readFile reads a control file. Control files are small, and each read is one
// or two system calls: no descriptor is registered with the runtime's poller.
func readFile(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, 4096)
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := unix.Read(fd, buf[len(buf):cap(buf)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return "", &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return string(buf), nil
		}
		buf = buf[:len(buf)+n]
	}
}

// writeFile writes a control file, which must exist.
func writeFile(path, value string) error {
	w, err := openControl(path)
	if err != nil {
		return err
	}
	defer w.close()
	return w.write(value)
}

// control is a control file that is open for writing.
type control struct {
	fd   int
	path string
}

func openControl(path string) (control, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return control{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return control{fd, path}, nil
}

func (w control) close() { _ = unix.Close(w.fd) }

// write is one write: control files take no part of a value.
func (w control) write(value string) error {
	for {
		_, err := unix.Write(w.fd, []byte(value))
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EINTR):
			return &fs.PathError{Op: "write", Path: w.path, Err: err}
		}
	}
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// readUint reads a control file that holds one number. "max" is the largest one.
func readUint(path string) (uint64, error) {
	s, err := readFile(path)
	if err != nil {
		return 0, err
	}
	return parseUint(strings.TrimSpace(s))
}

// parseUint reads a number as control files have it. v1 shows -1, v2 "max" for
// no limit: both are the largest number.
func parseUint(s string) (uint64, error) {
	if s == "max" || strings.HasPrefix(s, "-") {
		return 1<<64 - 1, nil
	}
	return strconv.ParseUint(s, 10, 64)
}

// readFlat reads a control file of "key value" lines. Lines of another form are
// left out.
func readFlat(path string) (map[string]uint64, error) {
	s, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return parseFlat(s), nil
}

func parseFlat(s string) map[string]uint64 {
	m := make(map[string]uint64, strings.Count(s, "\n"))
	for line := range strings.Lines(s) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		if n, err := parseUint(v); err == nil {
			m[k] = n
		}
	}
	return m
}
