package server

import (
	"net/http"

	ctypes "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/gantry-containers/gantry/internal/container"
)

// commitRequest is the body of a commit, for which clients send nothing, null
// or the configuration of a container.
type commitRequest struct {
	*ctypes.Config
	Cmd        words
	Entrypoint words
	Shell      words
	MacAddress network.HardwareAddr // of versions before 1.52; an image has none
}

func (s *Server) commitContainer(w *response, r *request) error {
	var body commitRequest
	if err := r.json(&body); err != nil {
		return err
	}
	repo, tag := r.Form.Get("repo"), r.Form.Get("tag")
	if err := checkRepoTag(repo, tag); err != nil {
		return err
	}
	id, err := s.containers.Commit(r.Context(), r.Form.Get("container"), container.CommitOptions{
		Repo:    repo,
		Tag:     tag,
		Author:  r.Form.Get("author"),
		Comment: r.Form.Get("comment"),
		Config:  body.config(),
		Changes: r.Form["changes"],
		Pause:   r.flagOr("pause", true),
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, &ctypes.CommitResponse{ID: id.String()})
}

// config is nil when there was none.
func (b *commitRequest) config() *ctypes.Config {
	if b.Config == nil && b.Cmd == nil && b.Entrypoint == nil && b.Shell == nil {
		return nil
	}
	config := ctypes.Config{}
	if b.Config != nil {
		config = *b.Config
	}
	config.Cmd, config.Entrypoint, config.Shell = b.Cmd, b.Entrypoint, b.Shell
	return &config
}
