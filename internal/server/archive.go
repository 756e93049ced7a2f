package server

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"

	ctypes "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/errs"
)

// archivePath is the path in the container, which these routes cannot do without.
func archivePath(r *request) (string, error) {
	if r.name == "" {
		return "", errs.InvalidArgument("bad parameter: name cannot be empty")
	}
	path := r.Form.Get("path")
	if path == "" {
		return "", errs.InvalidArgument("bad parameter: path cannot be empty")
	}
	return path, nil
}

// setPathStat puts what the path is into the head of the answer.
func setPathStat(h http.Header, stat *ctypes.PathStat) error {
	data, err := json.Marshal(stat)
	if err != nil {
		return err
	}
	h.Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(data))
	return nil
}

func (s *Server) statArchive(w *response, r *request) error {
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	stat, err := s.containers.StatPath(r.Context(), r.name, path)
	if err != nil {
		return err
	}
	return setPathStat(w.Header(), stat)
}

func (s *Server) getArchive(w *response, r *request) error {
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	var statErr error
	err = s.containers.CopyFrom(r.Context(), r.name, path, func(stat *ctypes.PathStat) io.Writer {
		statErr = setPathStat(w.Header(), stat)
		w.Header().Set("Content-Type", "application/x-tar")
		return w
	})
	if err == nil {
		err = statErr
	}
	return err
}

func (s *Server) putArchive(w *response, r *request) error {
	path, err := archivePath(r)
	if err != nil {
		return err
	}
	o := container.CopyToOptions{NoOverwriteDirNonDir: r.flag("noOverwriteDirNonDir"), CopyUIDGID: r.flag("copyUIDGID")}
	return s.containers.CopyTo(r.Context(), r.name, path, o, r.Body)
}
