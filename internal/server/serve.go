package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve answers on the listeners until the context ends, and then stops: it
// takes no more connections, ends the streams that would wait for ever, and
// gives other requests the time to finish, for ever when it is negative. The
// listeners are closed; connections that were handed over go on.
func (s *Server) Serve(ctx context.Context, grace time.Duration, listeners ...net.Listener) error {
	h := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		ConnState:         deepen,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, len(listeners))
	var serving sync.WaitGroup
	for _, l := range listeners {
		serving.Go(func() { failed <- h.Serve(l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.stop(h, grace)
	serving.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

func (s *Server) stop(h *http.Server, grace time.Duration) {
	s.EndStreams()
	ctx := context.Background()
	if grace >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, grace)
		defer cancel()
	}
	if err := h.Shutdown(ctx); err != nil {
		s.log.Warn("requests were cut off at the stop", "after", grace)
		h.Close()
	}
	started := make(chan struct{})
	go func() {
		s.runs.Wait()
		close(started)
	}()
	select {
	case <-started:
	case <-ctx.Done():
	}
}

// deepen makes the stack of a connection's goroutine what its first request needs
// at once. The runtime would copy it each time it is twice as deep.
func deepen(_ net.Conn, state http.ConnState) {
	if state == http.StateActive {
		useStack(-1)
	}
}

//go:noinline
func useStack(at int) byte {
	if at < 0 {
		return 0 // before the frame, which is room for, is cleared
	}
	var frame [10 << 10]byte
	return frame[at]
}
