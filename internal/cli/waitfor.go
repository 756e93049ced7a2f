package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// exited is how a container ended, or why that cannot be told.
type exited struct {
	code int
	err  error
}

// waitFor subscribes to the end of a container before it returns, so that a
// start that follows cannot be missed. Meanwhile may be nil; see client.Request.
func (a *app) waitFor(ctx context.Context, id string, condition container.WaitCondition, meanwhile func()) (<-chan exited, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	q := url.Values{}
	if condition != "" {
		q.Set("condition", string(condition))
	}
	resp, err := c.Do(ctx, &client.Request{Method: http.MethodPost, Path: "/containers/" + id + "/wait", Query: q, Meanwhile: meanwhile})
	if err != nil {
		return nil, err
	}
	done := make(chan exited, 1)
	go func() {
		defer resp.Body.Close()
		var r container.WaitResponse
		if err := json.NewDecoder(resp.Body).Decode(&r); err != nil {
			done <- exited{125, fmt.Errorf("error waiting for container: %w", lostEngine(err))}
			return
		}
		if r.Error != nil && r.Error.Message != "" {
			done <- exited{125, fmt.Errorf("error waiting for container: %s", r.Error.Message)}
			return
		}
		done <- exited{int(r.StatusCode), nil}
	}()
	return done, nil
}

// lostEngine puts the end of a connection into words.
func lostEngine(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("the connection to the engine ended (%w); the container may still be running", err)
}

// status turns the end of a container into the end of the command.
func (e exited) status() error {
	if e.err != nil {
		return &exitError{code: e.code, err: e.err}
	}
	if e.code != 0 {
		return &exitError{code: e.code}
	}
	return nil
}
