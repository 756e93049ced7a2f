package cli

import (
	"fmt"
	"io"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

type logsFlags struct {
	follow, timestamps, details bool
	since, until, tail          string
}

func (a *app) logsCommand() *cobra.Command {
	var f logsFlags
	cmd := &cobra.Command{
		Use:               "logs [OPTIONS] CONTAINER",
		Short:             "Fetch the logs of a container",
		Args:              exactArgs(1),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.logs(cmd, &f, args[0]) },
		ValidArgsFunction: a.completeContainers(anyState),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.follow, "follow", "f", false, "Follow log output")
	fs.StringVar(&f.since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVar(&f.until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.BoolVarP(&f.timestamps, "timestamps", "t", false, "Show timestamps")
	fs.BoolVar(&f.details, "details", false, "Show extra details provided to logs")
	fs.StringVarP(&f.tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	return cmd
}

func (a *app) logs(cmd *cobra.Command, f *logsFlags, name string) error {
	c, err := a.inspectContainer(cmd.Context(), name)
	if err != nil {
		return err
	}
	q := url.Values{"stdout": {"1"}, "stderr": {"1"}, "tail": {f.tail}}
	for key, value := range map[string]string{"since": f.since, "until": f.until} {
		ts, err := timestamp(value, time.Now())
		if err != nil {
			return fmt.Errorf("invalid value for %q: %w", key, err)
		}
		if ts != "" {
			q.Set(key, ts)
		}
	}
	for key, on := range map[string]bool{"follow": f.follow, "timestamps": f.timestamps, "details": f.details} {
		if on {
			q.Set(key, "1")
		}
	}
	cl, err := a.client()
	if err != nil {
		return err
	}
	resp, err := cl.Do(cmd.Context(), &client.Request{Method: client.MethodGet, Path: containerPath(c.ID, "logs"), Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if c.Config.Tty {
		_, err = io.Copy(a.out, resp.Body)
	} else {
		_, err = stdcopy.StdCopy(a.out, a.err, resp.Body)
	}
	return err
}

// timestamp turns what a person gives as a time into seconds since 1970, as
// the API wants it: a duration back from now, a date in one of RFC 3339's
// precisions in local time, or the number itself.
func timestamp(v string, now time.Time) (string, error) {
	if v == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(v); v != "0" && err == nil {
		return strconv.FormatInt(now.Add(-d).Unix(), 10), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15Z07:00",
		"2006-01-02T15", "2006-01-02T15:04Z07:00", "2006-01-02Z07:00", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()), nil
		}
	}
	if n, err := strconv.ParseFloat(v, 64); err == nil && !math.IsInf(n, 0) && !math.IsNaN(n) && !strings.ContainsAny(v, "eExX") {
		return v, nil
	}
	return "", fmt.Errorf("failed to parse value as time or duration: %q", v)
}
