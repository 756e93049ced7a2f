package cli

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/common"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/runflags"
)

// ahead is what an engine of ours is asked to do at once with a container that it
// creates, in the same request: attach us and start it. Another engine ignores
// that and creates; then run goes on by itself. What internal/server/run.go says
// of the headers holds here.
type ahead struct {
	params url.Values // those of an attach, or detach=1

	// What an engine that does it leaves here: one of the two.
	stream *client.Stream // attached
	tells  bool           // the stream, how the run ended
	begun  func() error   // returns how the start of a detached container went
}

// aheadOf says what is to follow the creation of a container; keys are those to
// detach with.
func aheadOf(cfg *container.Config, keys string) *ahead {
	if !cfg.AttachStdin && !cfg.AttachStdout && !cfg.AttachStderr {
		return &ahead{params: url.Values{"detach": {"1"}}}
	}
	params := attachQuery(cfg, keys)
	if mayTell(cfg) {
		params.Set("end", "1")
	}
	return &ahead{params: params}
}

// mayTell says whether an engine may tell on the attached stream how the run ended: in
// a frame, and when we send nothing (internal/container, RunOptions.TellsEnd).
func mayTell(cfg *container.Config) bool {
	return !cfg.Tty && !cfg.AttachStdin && (cfg.AttachStdout || cfg.AttachStderr)
}

// create sends the request r, which creates a container.
func (h *ahead) create(ctx context.Context, c *client.Client, r *client.Request) (created container.CreateResponse, err error) {
	r.Header = client.Header{"Gantry-Run": {h.params.Encode()}}
	if !h.params.Has("detach") {
		r.Upgrade = "gantry-run"
	}
	resp, err := c.Do(ctx, r)
	if err != nil {
		return created, err
	}
	if s, ok := resp.Body.(*client.Stream); ok {
		if created, err = readCreated(resp.Header.Get("Gantry-Created")); err != nil {
			s.Close()
			return created, fmt.Errorf("cannot read the engine's answer: %w", err)
		}
		h.stream, h.tells = s, resp.Header.Get("Gantry-Run") == "end=1"
		return created, nil
	}
	answers := json.NewDecoder(resp.Body)
	if err := answers.Decode(&created); err != nil {
		resp.Body.Close()
		return created, fmt.Errorf("cannot read the engine's answer: %w", err)
	}
	if resp.Header.Get("Gantry-Run") == "" {
		client.Drain(resp)
		return created, nil
	}
	h.begun = func() error {
		defer client.Drain(resp)
		var failure common.ErrorResponse
		if err := answers.Decode(&failure); err != nil {
			return client.Lost(err)
		}
		if failure.Message != "" {
			return &client.Error{Status: client.StatusInternalServerError, Message: failure.Message}
		}
		return nil
	}
	return created, nil
}

// readCreated reads what is in the header of an answer, as a rule the ID alone:
// encoding/json takes longer to learn the type than the container to be made.
func readCreated(text string) (created container.CreateResponse, err error) {
	id, begins := strings.CutPrefix(text, `{"Id":"`)
	id, ends := strings.CutSuffix(id, `","Warnings":[]}`)
	if _, notHex := hex.DecodeString(id); begins && ends && notHex == nil {
		return container.CreateResponse{ID: id}, nil
	}
	return created, json.Unmarshal([]byte(text), &created)
}

// runAhead is runAttached for a container that the engine is starting already, with
// us attached to it.
func (a *app) runAhead(ctx context.Context, cmd *cobra.Command, f *runFlags, spec *runflags.Container, id string, signals *signalProxy) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cfg := spec.Config
	att := a.attachment(f.ahead.stream, cfg.AttachStdin, cfg.AttachStdout, cfg.AttachStderr, cfg.Tty, a.detachKeys(f.detachKeys))
	streamed := make(chan error, 1)
	if f.ahead.tells {
		if told, err := seeTold(ctx, cmd, att); told || err != nil {
			return err
		}
		streamed <- nil // an engine is to be asked
	} else {
		go func() { streamed <- a.copy(ctx, att) }()
	}
	var end *waiting
	waited := make(chan error, 1)
	go func() {
		var err error
		end, err = a.waitFor(cmd.Context(), id, waitConditionFirstExit)
		waited <- err
	}()
	select {
	case <-ctx.Done():
		<-streamed // the terminal is itself again
		return runError(cmd, context.Cause(ctx))
	case err := <-waited:
		if err != nil {
			cancel()
			<-streamed
			return runError(cmd, err)
		}
	}
	return a.seeOut(ctx, cfg, id, streamed, end, signals, cancel)
}
