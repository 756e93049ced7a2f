package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	ctypes "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/errs"
)

func (s *Server) listContainers(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	// Long ago these were parameters of their own.
	for _, key := range []string{"since", "before"} {
		if v := r.Form.Get(key); v != "" {
			filters[key] = append(filters[key], v)
		}
	}
	limit, err := r.integer("limit")
	if err != nil {
		return err
	}
	o := container.ListOptions{All: r.flag("all"), Size: r.flag("size"), Filters: filters}
	if limit != nil {
		o.Limit = *limit
	}
	list, err := s.containers.List(r.Context(), o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, legacySummaries(r, list))
}

func (s *Server) inspectContainer(w *response, r *request) error {
	c, err := s.containers.Inspect(r.Context(), r.name, r.flag("size"))
	if err != nil {
		return err
	}
	answer := legacyContainer(r, c)
	answer.Config.MacAddress = s.containers.AskedMAC(r.name).String()
	return writeJSON(w, http.StatusOK, answer)
}

func (s *Server) topContainer(w *response, r *request) error {
	top, err := s.containers.Top(r.Context(), r.name, r.Form.Get("ps_args"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, top)
}

func (s *Server) containerChanges(w *response, r *request) error {
	changes, err := s.containers.Changes(r.Context(), r.name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, changes) // null when there are none, as Docker
}

func (s *Server) startContainer(w *response, r *request) error {
	// Seven bytes are room for what clients send when they have nothing to say.
	if r.ContentLength > 7 || r.ContentLength == -1 {
		return errs.InvalidArgument("starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24")
	}
	return noContent(w, s.containers.Start(r.Context(), r.name))
}

func (s *Server) stopContainer(w *response, r *request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	return noContent(w, s.containers.Stop(r.Context(), r.name, o))
}

func (s *Server) restartContainer(w *response, r *request) error {
	o, err := stopOptions(r)
	if err != nil {
		return err
	}
	return noContent(w, s.containers.Restart(r.Context(), r.name, o))
}

func stopOptions(r *request) (o container.StopOptions, err error) {
	if !r.before(1_42) {
		o.Signal = r.Form.Get("signal")
	}
	o.Timeout, err = r.integer("t")
	return o, err
}

func (s *Server) killContainer(w *response, r *request) error {
	err := s.containers.Kill(r.Context(), r.name, r.Form.Get("signal"))
	if err != nil {
		err = fmt.Errorf("cannot kill container: %s: %w", r.name, err)
	}
	return noContent(w, err)
}

func (s *Server) pauseContainer(w *response, r *request) error {
	return noContent(w, s.containers.Pause(r.Context(), r.name))
}

func (s *Server) unpauseContainer(w *response, r *request) error {
	return noContent(w, s.containers.Unpause(r.Context(), r.name))
}

func (s *Server) renameContainer(w *response, r *request) error {
	return noContent(w, s.containers.Rename(r.Context(), r.name, r.Form.Get("name")))
}

func (s *Server) removeContainer(w *response, r *request) error {
	o := container.RemoveOptions{Force: r.flag("force"), Volumes: r.flag("v"), Link: r.flag("link")}
	return noContent(w, s.containers.Remove(r.Context(), r.name, o))
}

func (s *Server) updateContainer(w *response, r *request) error {
	var config ctypes.UpdateConfig
	if err := r.json(&config); err != nil {
		return err
	}
	if r.before(1_40) {
		config.PidsLimit = nil
	}
	if config.PidsLimit != nil && *config.PidsLimit < 0 {
		config.PidsLimit = new(int64) // any negative value means unlimited, as 0 does
	}
	// These came with API 1.55; before, they were accepted and ignored.
	config.BlkioWeightDevice = nil
	config.BlkioDeviceReadBps, config.BlkioDeviceWriteBps = nil, nil
	config.BlkioDeviceReadIOps, config.BlkioDeviceWriteIOps = nil, nil
	answer, err := s.containers.Update(r.Context(), r.name, &config)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (s *Server) resizeContainer(w *response, r *request) error {
	height, width, err := r.terminalSize()
	if err != nil {
		return err
	}
	return s.containers.Resize(r.Context(), r.name, height, width) // 200, not 204
}

func (r *request) terminalSize() (height, width uint, err error) {
	if height, err = r.size("h", "height"); err == nil {
		width, err = r.size("w", "width")
	}
	return height, width, err
}

// waitContainer answers with the head at once, so that the client knows it has
// not missed what happens from now on.
func (s *Server) waitContainer(w *response, r *request) error {
	condition := ctypes.WaitConditionNotRunning
	if v := ctypes.WaitCondition(r.Form.Get("condition")); v != "" && !r.before(1_30) {
		switch v {
		case ctypes.WaitConditionNotRunning, ctypes.WaitConditionNextExit, ctypes.WaitConditionRemoved, container.WaitConditionFirstExit:
			condition = v
		default:
			return errs.InvalidArgument("invalid condition: %q", v)
		}
	}
	exit, err := s.containers.Wait(r.Context(), r.name, condition)
	if err != nil {
		if s.streams.Err() != nil && errors.Is(err, context.Canceled) {
			panic(http.ErrAbortHandler) // the client may ask the next daemon
		}
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if !r.before(1_30) {
		w.WriteHeader(http.StatusOK)
		w.Flush()
	}
	select {
	case <-r.Context().Done():
		return r.Context().Err()
	case answer, ok := <-exit:
		if !ok {
			return r.Context().Err() // the manager ends with the request
		}
		if answer.Error != nil && condition == ctypes.WaitConditionRemoved && r.before(1_34) {
			return nil // no answer is how such a client learns of an error
		}
		return encodeJSON(w, answer)
	}
}
