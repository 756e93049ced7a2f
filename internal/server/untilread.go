package server

import (
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// headPatience is how long a client may take to read the head of an answer
// before output follows all the same: one that first sends all its input must
// not wait for ever.
const headPatience = 100 * time.Millisecond

// untilRead returns when the client has read what was written to it. Clients of
// the kind of docker-py read the head through a buffer, take the socket from
// below it, and lose what came together with the head: the whole output of a
// short command, as an engine this fast writes it at once. Only of a Unix socket
// is it known what its peer has read.
// The command lines, which are in a hurry, read on through their buffers.
func untilRead(conn net.Conn, r *request) {
	socket, ok := conn.(*net.UnixConn)
	if agent := r.UserAgent(); !ok || strings.HasPrefix(agent, "Docker-Client/") || strings.HasPrefix(agent, "Gantry-Client/") {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	for end := time.Now().Add(headPatience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		unread := 0
		if raw.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }) != nil || err != nil || unread == 0 {
			return
		}
	}
}
