package server

import (
	"fmt"
	"net"
	"net/http"

	"github.com/containerd/errdefs"
	ctypes "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/errs"
)

func (s *Server) createExec(w *response, r *request) error {
	var config ctypes.ExecCreateRequest
	if err := r.json(&config); err != nil {
		return err
	}
	if len(config.Cmd) == 0 {
		return errs.InvalidArgument("No exec command specified")
	}
	if r.before(1_42) {
		config.ConsoleSize = nil
	}
	id, err := s.containers.ExecCreate(r.Context(), r.name, &config)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, &ctypes.ExecCreateResponse{ID: id})
}

func (s *Server) inspectExec(w *response, r *request) error {
	e, err := s.containers.ExecInspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, e)
}

// startExec runs the command. What keeps it from starting is told on the stream
// as if the command had said it: a client that asked for a stream looks for the
// reason there, and then for the exit code.
func (s *Server) startExec(w *response, r *request) error {
	var config ctypes.ExecStartRequest
	if err := r.json(&config); err != nil {
		return err
	}
	if _, err := s.containers.ExecInspect(r.Context(), r.name); err != nil {
		return err
	}
	o := container.ExecStartOptions{Detach: config.Detach, Tty: config.Tty}
	if config.Tty && !r.before(1_42) {
		o.ConsoleSize = config.ConsoleSize
	}
	take := hijack(w, r)
	err := s.containers.ExecStart(r.Context(), r.name, o, take)
	if err == nil || w.started || config.Detach || errdefs.IsConflict(err) {
		return err
	}
	conn, _, herr := take(config.Tty)
	if herr != nil {
		return err
	}
	tellOnStream(conn, config.Tty, err)
	return err // for the log
}

func tellOnStream(conn net.Conn, tty bool, err error) {
	defer conn.Close()
	if tty {
		fmt.Fprintf(conn, "%v\r\n", err)
		return
	}
	_ = writeFrame(conn, frameStdout, err.Error()+"\r\n") // the client may have gone: nothing is left to do
}

func (s *Server) resizeExec(w *response, r *request) error {
	height, width, err := r.terminalSize()
	if err != nil {
		return err
	}
	return s.containers.ExecResize(r.Context(), r.name, height, width) // 200, not 204
}
