package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

func (a *app) eventsCommand() *cobra.Command {
	var since, until, text string
	var filter filters
	cmd := &cobra.Command{
		Use:   "events [OPTIONS]",
		Short: "Get real time events from the server",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tmpl, err := eventTemplate(text)
			if err != nil {
				return &exitError{code: 64, err: fmt.Errorf("error parsing format: %w", err)}
			}
			q := url.Values{}
			for key, value := range map[string]string{"since": since, "until": until} {
				ts, err := timestamp(value, time.Now())
				if err != nil {
					return fmt.Errorf("invalid value for %q: %w", key, err)
				}
				if ts != "" {
					q.Set(key, ts)
				}
			}
			return a.events(cmd, filter.query(q), tmpl)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&since, "since", "", "Show all events created since timestamp")
	fs.StringVar(&until, "until", "", "Stream events until this timestamp")
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&text, "format", "", format.InspectHelp)
	return cmd
}

// event adds the fields engines sent before API 1.52 and templates still use.
type event struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func eventTemplate(text string) (*template.Template, error) {
	switch text {
	case "":
		return nil, nil
	case "json":
		text = "{{json .}}"
	}
	tmpl, err := format.Parse(text)
	if err != nil {
		return nil, err
	}
	// A field that does not exist is told now, and not at the first event.
	return tmpl, tmpl.Execute(io.Discard, &event{})
}

func (a *app) events(cmd *cobra.Command, q url.Values, tmpl *template.Template) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	resp, err := c.Do(cmd.Context(), &client.Request{Method: client.MethodGet, Path: "/events", Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if tmpl == nil {
			fmt.Fprintln(a.out, e.line())
			continue
		}
		if err := tmpl.Execute(a.out, &e); err != nil {
			return err
		}
		fmt.Fprintln(a.out)
	}
}

// line is time, type, action and ID, with the attributes in parentheses.
func (e *event) line() string {
	var b strings.Builder
	const layout = "2006-01-02T15:04:05.000000000Z07:00"
	switch {
	case e.TimeNano != 0:
		b.WriteString(time.Unix(0, e.TimeNano).Format(layout) + " ")
	case e.Time != 0:
		b.WriteString(time.Unix(e.Time, 0).Format(layout) + " ")
	}
	fmt.Fprintf(&b, "%s %s %s", e.Type, e.Action, e.Actor.ID)
	var attrs []string
	for _, k := range slices.Sorted(maps.Keys(e.Actor.Attributes)) {
		attrs = append(attrs, k+"="+e.Actor.Attributes[k])
	}
	if len(attrs) > 0 {
		fmt.Fprintf(&b, " (%s)", strings.Join(attrs, ", "))
	}
	return b.String()
}
