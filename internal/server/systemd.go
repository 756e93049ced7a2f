package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstActivated is the first descriptor systemd hands over, sd_listen_fds(3).
const firstActivated = 3

// activated takes over the sockets systemd has opened: all of them, or the one
// of a number or name.
func activated(which string) ([]net.Listener, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || pid != strconv.Itoa(os.Getpid()) {
		return nil, errors.New("no sockets found via socket activation: make sure the service was started by systemd")
	}
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	var list []net.Listener
	for i := range n {
		fd := firstActivated + i
		if which != "" && which != "*" && which != strconv.Itoa(fd) && (i >= len(names) || which != names[i]) {
			continue
		}
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "activated")
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("cannot use the activated socket %d: %w", fd, err)
		}
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // the file is systemd's
		}
		list = append(list, l)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no socket %q was activated", which)
	}
	return list, nil
}

// Notify tells systemd about the state of the service, sd_notify(3): READY=1,
// RELOADING=1, STOPPING=1. It does nothing for a process that systemd did not
// start.
func Notify(state string) error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("cannot notify systemd: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}
