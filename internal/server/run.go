package server

import (
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/common"
	ctypes "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/container"
)

// What a client of our own adds to a create that it would follow with an attach
// and a start. Docker ignores it and answers 201, as we do when it cannot be had;
// the client goes on by itself then.
const (
	// runHeader of a request holds the parameters of the attach, as its query
	// would, or detach=1. In the answer to the latter it says that a second
	// document follows when the start is over: {} or the error. With end=1 the
	// client asks to be told on the attached stream how the run ended; in the answer
	// to it end=1 says that it is: in a last frame, container.FrameEnding. A stream
	// that ends without leaves the client to wait.
	runHeader = "Gantry-Run"
	// runUpgrade is what the connection of a client that attaches becomes: the
	// answer is 101 as soon as the container exists.
	runUpgrade = "gantry-run"
	// createdHeader holds, with 101, what is the body of a create's answer.
	createdHeader = "Gantry-Created"
)

// runAsked returns what a create says of the start that is to follow, nil when
// none is, or must be asked for: with keys that are refused, too, when the
// container is there. A connection can only be taken over, and its
// socket handed on, when it is a plain one; and clients of the versions left out
// cannot wait for more than a container that does not run.
func runAsked(r *request) url.Values {
	text := r.Header.Get(runHeader)
	if text == "" || r.before(1_30) {
		return nil
	}
	run, err := url.ParseQuery(text)
	if err != nil {
		return nil
	}
	if run.Get("detach") == "1" {
		return run
	}
	if r.TLS != nil || r.ProtoMajor != 1 || !container.ValidDetachKeys(run.Get("detachKeys")) || !strings.EqualFold(r.Header.Get("Upgrade"), runUpgrade) {
		return nil
	}
	return run
}

// runContainer creates and starts in one request.
func (s *Server) runContainer(w *response, r *request, o *container.CreateOptions, run url.Values, warnings []string) error {
	if run.Get("detach") == "1" {
		return s.runDetached(w, r, o, warnings)
	}
	s.runs.Add(1) // a stop waits no longer for a request whose connection was taken
	defer s.runs.Done()
	asked := &request{Request: &http.Request{Form: run}}
	options := &container.RunOptions{Attach: attachOptions(asked)}
	options.Attach.Stream, options.Attach.Logs = true, false
	options.TellEnd = run.Get("end") == "1"
	options.Created = func(answer ctypes.CreateResponse, tty bool) (net.Conn, []byte, error) {
		created, err := json.Marshal(withWarnings(answer, warnings))
		if err != nil {
			return nil, nil, err
		}
		told := ""
		if options.TellsEnd(tty) {
			told = runHeader + ": end=1\r\n"
		}
		return takeOver(w, r, "HTTP/1.1 101 UPGRADED\r\nContent-Type: "+streamType(r, tty)+
			"\r\nConnection: Upgrade\r\nUpgrade: "+runUpgrade+"\r\n"+told+createdHeader+": "+string(created)+"\r\n\r\n")
	}
	return s.containers.Run(r.Context(), o, options)
}

func (s *Server) runDetached(w *response, r *request, o *container.CreateOptions, warnings []string) error {
	var answer any = struct{}{}
	options := &container.RunOptions{Created: func(created ctypes.CreateResponse, _ bool) (net.Conn, []byte, error) {
		w.Header().Set(runHeader, "1")
		err := writeJSON(w, http.StatusCreated, withWarnings(created, warnings))
		w.Flush()
		return nil, nil, err
	}}
	if err := s.containers.Run(r.Context(), o, options); err != nil {
		if !w.started {
			return err
		}
		s.note(r, err)
		answer = &common.ErrorResponse{Message: err.Error()}
	}
	return encodeJSON(w, answer)
}
