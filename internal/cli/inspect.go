package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"text/template"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/format"
)

// kind is a sort of object that can be inspected. typed makes an empty value of
// its type, whose fields and methods templates may use.
type kind struct {
	name  string
	path  func(ref string) string
	typed func() any
}

func containerKind() kind {
	return kind{"container", func(r string) string { return containerPath(r, "json") }, func() any { return new(inspectedContainer) }}
}

func imageKind() kind {
	return kind{"image", func(r string) string { return imagePath(r, "json") }, func() any { return new(image.InspectResponse) }}
}

func networkKind() kind {
	return kind{"network", func(r string) string { return "/networks/" + r }, func() any { return new(inspectedNetwork) }}
}

func volumeKind() kind {
	return kind{"volume", func(r string) string { return "/volumes/" + r }, func() any { return new(volume.Volume) }}
}

func (a *app) inspectCommand() *cobra.Command {
	var text, objectType string
	var size bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short: "Return low-level information on containers, images, networks and volumes",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			kinds := []kind{containerKind(), imageKind(), networkKind(), volumeKind()}
			if cmd.Flags().Changed("type") {
				k, err := kindNamed(kinds, objectType)
				if err != nil {
					return err
				}
				kinds = []kind{k}
			}
			q := url.Values{}
			if size {
				q.Set("size", "1")
			}
			return a.inspectAll(cmd.Context(), args, text, q, kinds...)
		},
		ValidArgsFunction: a.completeContainers(anyState),
	}
	fs := cmd.Flags()
	fs.StringVarP(&text, "format", "f", "", format.InspectHelp)
	fs.StringVar(&objectType, "type", "", "Only inspect objects of the given type")
	fs.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	return cmd
}

func kindNamed(kinds []kind, name string) (kind, error) {
	var names []string
	for _, k := range kinds {
		if k.name == name {
			return k, nil
		}
		names = append(names, k.name)
	}
	list := strings.Join(names, `", "`)
	if name == "" {
		return kind{}, fmt.Errorf(`type is empty: must be one of "%s"`, list)
	}
	return kind{}, fmt.Errorf(`unknown type: %q: must be one of "%s"`, name, list)
}

// inspectOne builds `container inspect` and its like.
func (a *app) inspectOne(k kind, noun string, flags func(cmd *cobra.Command) func(url.Values) error, complete completion) *cobra.Command {
	var text string
	var add func(url.Values) error
	cmd := &cobra.Command{
		Use:   fmt.Sprintf("inspect [OPTIONS] %[1]s [%[1]s...]", noun),
		Short: fmt.Sprintf("Display detailed information on one or more %ss", k.name),
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{}
			if add != nil {
				if err := add(q); err != nil {
					return err
				}
			}
			return a.inspectAll(cmd.Context(), args, text, q, k)
		},
		ValidArgsFunction: complete,
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", format.InspectHelp)
	if flags != nil {
		add = flags(cmd)
	}
	return cmd
}

func (a *app) containerInspectCommand() *cobra.Command {
	return a.inspectOne(containerKind(), "CONTAINER", func(cmd *cobra.Command) func(url.Values) error {
		size := cmd.Flags().BoolP("size", "s", false, "Display total file sizes")
		return func(q url.Values) error {
			if *size {
				q.Set("size", "1")
			}
			return nil
		}
	}, a.completeContainers(anyState))
}

func (a *app) imageInspectCommand() *cobra.Command {
	return a.inspectOne(imageKind(), "IMAGE", func(cmd *cobra.Command) func(url.Values) error {
		platform := cmd.Flags().String("platform", "", "Inspect a specific platform of the multi-platform image (e.g., \"linux/amd64\")")
		return func(q url.Values) error { return addPlatforms(q, "platform", *platform) }
	}, a.completeImages(-1))
}

func (a *app) networkInspectCommand() *cobra.Command {
	return a.inspectOne(networkKind(), "NETWORK", func(cmd *cobra.Command) func(url.Values) error {
		verbose := cmd.Flags().BoolP("verbose", "v", false, "Verbose output for diagnostics")
		return func(q url.Values) error {
			if *verbose {
				q.Set("verbose", "true")
			}
			return nil
		}
	}, a.completeNetworks())
}

func (a *app) volumeInspectCommand() *cobra.Command {
	return a.inspectOne(volumeKind(), "VOLUME", nil, a.completeVolumes())
}

// inspectAll looks every ref up among kinds and prints what was found, even
// when some were not.
func (a *app) inspectAll(ctx context.Context, refs []string, text string, q url.Values, kinds ...kind) error {
	p, err := newObjectPrinter(text)
	if err != nil {
		return err
	}
	var errs []error
	for _, ref := range refs {
		raw, k, err := a.lookUp(ctx, ref, q, kinds)
		if err == nil {
			err = p.add(raw, k.typed())
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if _, err := a.out.Write(p.bytes()); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func (a *app) lookUp(ctx context.Context, ref string, q url.Values, kinds []kind) (json.RawMessage, kind, error) {
	if strings.Trim(ref, "/ ") == "" {
		return nil, kind{}, errors.New("invalid name or ID: value is empty")
	}
	for _, k := range kinds {
		var raw json.RawMessage
		query := q
		if len(kinds) > 1 && k.name != "container" {
			query = nil // --size is about containers
		}
		err := a.json(ctx, &client.Request{Method: client.MethodGet, Path: k.path(ref), Query: query}, &raw)
		if err == nil {
			return raw, k, nil
		}
		if len(kinds) == 1 || !skippable(err) {
			return nil, k, err
		}
	}
	return nil, kind{}, fmt.Errorf("no such object: %s", ref)
}

// skippable errors say that the object is not of this kind.
func skippable(err error) bool {
	return client.IsNotFound(err) || strings.Contains(err.Error(), "invalid reference format") || strings.Contains(err.Error(), "not supported")
}

// objectPrinter prints objects as one JSON list, indented or not, or through a
// template.
type objectPrinter struct {
	out   bytes.Buffer
	text  string
	tmpl  *template.Template
	count int
}

func newObjectPrinter(text string) (*objectPrinter, error) {
	p := &objectPrinter{text: text}
	if text == "" || text == "json" {
		return p, nil
	}
	tmpl, err := format.Parse(text)
	if err != nil {
		return nil, &exitError{code: 64, err: err}
	}
	p.tmpl = tmpl
	return p, nil
}

func (p *objectPrinter) add(raw json.RawMessage, typed any) error {
	if p.tmpl != nil {
		return p.execute(raw, typed)
	}
	var one bytes.Buffer
	compact, separator := p.text == "json", ",\n    "
	var err error
	if compact {
		separator = ","
		err = json.Compact(&one, raw)
	} else {
		err = json.Indent(&one, bytes.TrimSpace(raw), "    ", "    ")
	}
	if err != nil {
		return fmt.Errorf("cannot read the engine's answer: %w", err)
	}
	if p.count > 0 {
		p.out.WriteString(separator)
	}
	p.count++
	_, err = one.WriteTo(&p.out)
	return err
}

// execute tries the typed value first, which knows every field an engine left
// out, and then the answer as it came, which has fields we do not know.
func (p *objectPrinter) execute(raw json.RawMessage, typed any) error {
	var line bytes.Buffer
	err := json.Unmarshal(raw, typed)
	if err == nil {
		err = p.tmpl.Execute(&line, typed)
	}
	if err != nil {
		var m any
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		if e := dec.Decode(&m); e != nil {
			return fmt.Errorf("cannot read the engine's answer: %w", e)
		}
		line.Reset()
		strict, e := p.tmpl.Clone()
		if e != nil {
			return e
		}
		if e := strict.Option("missingkey=error").Execute(&line, m); e != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
	}
	p.out.Write(line.Bytes())
	p.out.WriteByte('\n')
	return nil
}

func (p *objectPrinter) bytes() []byte {
	switch {
	case p.tmpl != nil:
		if p.out.Len() == 0 {
			return []byte("\n")
		}
		return p.out.Bytes()
	case p.count == 0:
		return []byte("[]\n")
	case p.text == "json":
		return fmt.Appendf(nil, "[%s]\n", p.out.Bytes())
	}
	return fmt.Appendf(nil, "[\n    %s\n]\n", p.out.Bytes())
}
