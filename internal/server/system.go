package server

import (
	"net/http"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/system"

	"github.com/gantry-containers/gantry/internal/errs"
)

func (s *Server) ping(w *response, r *request) error {
	h := w.Header()
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Builder-Version", "2")
	h.Set("Swarm", "inactive")
	if r.Method == http.MethodHead {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Content-Length", "0")
		return nil
	}
	_, err := w.Write([]byte("OK"))
	return err
}

func (s *Server) options(w *response, _ *request) error {
	w.WriteHeader(http.StatusOK)
	return nil
}

func (s *Server) getVersion(w *response, r *request) error {
	v, err := s.system.Version(r.Context())
	if err != nil {
		return err
	}
	answer := *v
	answer.APIVersion, answer.MinAPIVersion = MaxAPIVersion, MinAPIVersion
	answer.Components = append([]system.ComponentVersion{engineComponent(&answer)}, answer.Components...)
	return writeJSON(w, http.StatusOK, &legacyVersion{&answer, answer.GitCommit, answer.GoVersion})
}

// engineComponent repeats the answer as the first part of itself, where newer
// clients look.
func engineComponent(v *system.VersionResponse) system.ComponentVersion {
	return system.ComponentVersion{Name: "Engine", Version: v.Version, Details: map[string]string{
		"ApiVersion": v.APIVersion, "MinAPIVersion": v.MinAPIVersion, "GitCommit": v.GitCommit, "GoVersion": v.GoVersion,
		"Os": v.Os, "Arch": v.Arch, "KernelVersion": v.KernelVersion, "BuildTime": v.BuildTime, "Experimental": strconv.FormatBool(v.Experimental),
	}}
}

func (s *Server) getInfo(w *response, r *request) error {
	info, err := s.system.Info(r.Context())
	if err != nil {
		return err
	}
	answer := legacyInfo(r, info)
	if answer.RegistryConfig != nil {
		answer.RegistryConfig.Neighbours = s.system.Neighbours()
	}
	return writeJSON(w, http.StatusOK, answer)
}

// getEvents sends what happened and what happens, each event a line, until the
// client goes or the time it named has come.
func (s *Server) getEvents(w *response, r *request) error {
	since, err := r.timestamp("since")
	if err != nil {
		return err
	}
	until, err := r.timestamp("until")
	if err != nil {
		return err
	}
	if r.Form.Get("until") == "0" {
		until = time.Unix(0, 0) // a time, where logs take it for none
	}
	if !until.IsZero() && until.Before(since) {
		return errs.InvalidArgument("`since` time (%s) cannot be after `until` time (%s)", r.Form.Get("since"), r.Form.Get("until"))
	}
	filters, err := r.filters()
	if err != nil {
		return err
	}
	past, next, end := s.system.Subscribe(since, filters)
	defer end()
	w.Header().Set("Content-Type", "application/json")
	out := begin(w)
	defer out.Close()
	for i := range past {
		if !until.IsZero() && past[i].TimeNano > until.UnixNano() {
			return nil
		}
		if err := sendEvent(out, r, &past[i]); err != nil {
			return err
		}
	}
	return followEvents(out, r, next, until)
}

func followEvents(out *stream, r *request, next <-chan events.Message, until time.Time) error {
	var timeout <-chan time.Time
	if !until.IsZero() {
		left := time.Until(until)
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		timeout = timer.C
	}
	for {
		select {
		case m, ok := <-next:
			if !ok {
				return nil // the client was too slow to be told everything
			}
			if err := sendEvent(out, r, &m); err != nil {
				return err
			}
		case <-timeout:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

func sendEvent(out *stream, r *request, m *events.Message) error {
	if r.before(1_46) && m.Type == events.ImageEventType && m.Action == events.ActionCreate {
		return nil
	}
	return encodeJSON(out, legacyEvent(m))
}
