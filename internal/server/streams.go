package server

import (
	"encoding/binary"
	"io"
	"math"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	ctypes "github.com/moby/moby/api/types/container"

	"github.com/gantry-containers/gantry/internal/container"
	"github.com/gantry-containers/gantry/internal/errs"
	"github.com/gantry-containers/gantry/internal/logs"
)

// timeFixed is RFC 3339 with all the digits, so that lines stay aligned.
const timeFixed = "2006-01-02T15:04:05.000000000Z07:00"

// followHead is how long a followed log may show no error before the head of the
// answer is sent.
const followHead = 20 * time.Millisecond

// The streams of a frame, as the first byte of its head names them.
const (
	frameStdout   = 1
	frameStderr   = 2
	frameInternal = 3 // an error of the engine's own
)

func (s *Server) containerLogs(w *response, r *request) error {
	o, err := logsOptions(r)
	if err != nil {
		return err
	}
	tty, err := s.containers.Tty(r.name)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", streamType(r, tty))
	out := &logStream{w: w, mux: !tty, timestamps: r.flag("timestamps"), details: r.flag("details")}
	defer out.close()
	if o.Follow {
		// There may be nothing to send for long, and the client waits for the
		// head: it is sent if no error shows up at once.
		timer := time.AfterFunc(followHead, out.begin)
		defer timer.Stop()
	}
	err = s.containers.Logs(r.Context(), r.name, o, out.send)
	return out.end(err, r)
}

func logsOptions(r *request) (o container.LogsOptions, err error) {
	o.Stdout, o.Stderr, o.Follow = r.flag("stdout"), r.flag("stderr"), r.flag("follow")
	if !o.Stdout && !o.Stderr {
		return o, errs.InvalidArgument("Bad parameters: you must choose at least one stream")
	}
	if o.Since, err = r.timestamp("since"); err != nil {
		return o, err
	}
	if o.Until, err = r.timestamp("until"); err != nil {
		return o, err
	}
	o.Tail = -1
	if n, err := strconv.Atoi(r.Form.Get("tail")); err == nil && n >= 0 {
		o.Tail = n // anything else is "all"
	}
	return o, nil
}

// timestamp is a parameter of seconds since 1970 with a fraction of up to nine
// digits; the zero time when it is absent or zero.
func (r *request) timestamp(key string) (time.Time, error) {
	text := r.Form.Get(key)
	if text == "" || text == "0" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(text, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || sec > math.MaxInt64/int64(time.Second) || sec < math.MinInt64/int64(time.Second) {
		return time.Time{}, errs.InvalidArgument("invalid value for '%s': %q is not a number of seconds since 1970", key, text)
	}
	var nsec int64
	if fraction != "" {
		if len(fraction) > 9 || strings.Trim(fraction, "0123456789") != "" {
			return time.Time{}, errs.InvalidArgument("invalid value for '%s': %q is not a number of seconds since 1970", key, text)
		}
		nsec, _ = strconv.ParseInt(fraction+strings.Repeat("0", 9-len(fraction)), 10, 64) // digits only
	}
	return time.Unix(sec, nsec), nil
}

// logStream writes log lines in Docker's form: each a frame that says of which
// stream it is, unless the container has a terminal.
type logStream struct {
	w                        *response
	mux, timestamps, details bool

	once   onceStream
	buffer []byte
}

func (l *logStream) begin() { l.once.begin(l.w) }
func (l *logStream) close() { l.once.close() }

func (l *logStream) send(m *logs.Message) error {
	kind := byte(frameStdout)
	if m.Stream == "stderr" {
		kind = frameStderr
	}
	b := l.buffer[:0]
	if l.mux {
		b = append(b, kind, 0, 0, 0, 0, 0, 0, 0)
	}
	head := len(b)
	if l.timestamps {
		b = m.Time.UTC().AppendFormat(b, timeFixed)
		b = append(b, ' ')
	}
	if l.details {
		b = appendAttrs(b, m.Attrs)
		b = append(b, ' ')
	}
	b = append(b, m.Line...)
	if l.mux {
		binary.BigEndian.PutUint32(b[4:8], uint32(len(b)-head))
	}
	l.buffer = b
	_, err := l.once.begin(l.w).Write(b)
	return err
}

// end tells of an error in the stream when it is too late for a status.
func (l *logStream) end(err error, r *request) error {
	if err == nil {
		l.begin() // an empty log is an answer too
		return nil
	}
	if l.once.cancel() {
		return err
	}
	if r.Context().Err() != nil {
		return nil
	}
	text := "Error grabbing logs: " + err.Error() + "\n"
	if !l.mux {
		_, werr := io.WriteString(l.once.begin(l.w), text)
		return werr
	}
	return writeFrame(l.once.begin(l.w), frameInternal, text)
}

func writeFrame(w io.Writer, kind byte, text string) error {
	b := binary.BigEndian.AppendUint32([]byte{kind, 0, 0, 0}, uint32(len(text)))
	_, err := w.Write(append(b, text...))
	return err
}

// appendAttrs writes the attributes as a query, sorted.
func appendAttrs(b []byte, attrs map[string]string) []byte {
	keys := make([]string, 0, len(attrs))
	for key := range attrs {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for i, key := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, url.QueryEscape(key)+"="+url.QueryEscape(attrs[key])...)
	}
	return b
}

func (s *Server) containerStats(w *response, r *request) error {
	o := container.StatsOptions{Stream: r.flagOr("stream", true)}
	if !r.before(1_41) {
		o.OneShot = r.flag("one-shot")
	}
	if !o.Stream {
		w.Header().Set("Content-Type", "application/json")
	}
	var once onceStream
	defer once.close()
	return s.containers.Stats(r.Context(), r.name, o, func(stats *ctypes.StatsResponse) error {
		stats.OSType = "" // came with API 1.52
		return encodeJSON(once.begin(w), stats)
	})
}

func (s *Server) exportContainer(w *response, r *request) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	return s.containers.Export(r.Context(), r.name, w)
}

func (s *Server) attachContainer(w *response, r *request) error {
	if err := skipBody(r); err != nil {
		return err
	}
	return s.containers.Attach(r.Context(), r.name, attachOptions(r), hijack(w, r))
}

func attachOptions(r *request) container.AttachOptions {
	return container.AttachOptions{
		Stdin: r.flag("stdin"), Stdout: r.flag("stdout"), Stderr: r.flag("stderr"),
		Stream: r.flag("stream"), Logs: r.flag("logs"), DetachKeys: r.Form.Get("detachKeys"),
	}
}
