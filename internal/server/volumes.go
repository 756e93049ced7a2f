package server

import (
	"net/http"

	vtypes "github.com/moby/moby/api/types/volume"
)

func (s *Server) listVolumes(w *response, r *request) error {
	filters, err := r.filters()
	if err != nil {
		return err
	}
	list, err := s.volumes.List(r.Context(), filters)
	if err != nil {
		return err
	}
	if list.Volumes == nil {
		list.Volumes = []vtypes.Volume{}
	}
	return writeJSON(w, http.StatusOK, list)
}

func (s *Server) createVolume(w *response, r *request) error {
	var o vtypes.CreateRequest
	if err := r.json(&o); err != nil {
		return err
	}
	volume, err := s.volumes.Create(r.Context(), &o)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, volume)
}

func (s *Server) inspectVolume(w *response, r *request) error {
	volume, err := s.volumes.Inspect(r.Context(), r.name)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, volume)
}

func (s *Server) removeVolume(w *response, r *request) error {
	return noContent(w, s.volumes.Remove(r.Context(), r.name, r.flag("force")))
}
