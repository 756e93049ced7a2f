package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/runflags"
)

// createFlags are those of run and create that are about the image and the
// name, not about the container's configuration.
type createFlags struct {
	name     string
	platform string
	pull     string
	quiet    bool
	socket   bool
	flags    *runflags.Flags
	// connections are how many more than one the caller is going to need.
	connections int
	// meanwhile is called while the engine works, exists when it has: with the
	// ID. Both may be nil.
	meanwhile func()
	exists    func(id string)
	// ahead is what the engine may do with the container in the same request; nil
	// for nothing.
	ahead *ahead
}

func (f *createFlags) add(fs *pflag.FlagSet, verb string) {
	fs.SetInterspersed(false)
	fs.StringVar(&f.name, "name", "", "Assign a name to the container")
	fs.StringVar(&f.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	fs.StringVar(&f.pull, "pull", "missing", `Pull image before `+verb+` ("always", "missing", "never")`)
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.BoolVar(&f.socket, "use-api-socket", false, "Bind mount the engine's API socket and required auth")
	fs.Bool("disable-content-trust", true, "Accepted for Docker's sake: there is no content trust")
	fs.Lookup("disable-content-trust").Hidden = true
	fs.Bool("help", false, "Print usage") // -h is the host name
	f.flags = runflags.Add(fs)
}

func (a *app) createCommand() *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create a new container",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := a.spec(cmd, &f, args)
			if err != nil {
				return withHelp(cmd, 125, err)
			}
			id, err := a.create(cmd.Context(), &f, spec)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, id)
			return nil
		},
		ValidArgsFunction: a.completeImages(1),
	}
	f.add(cmd.Flags(), "creating")
	return cmd
}

// spec validates the command line without asking the engine.
func (a *app) spec(cmd *cobra.Command, f *createFlags, args []string) (*runflags.Container, error) {
	switch f.pull {
	case "always", "missing", "never", "":
	default:
		return nil, fmt.Errorf(`invalid pull option: '%s': must be one of "always", "missing" or "never"`, f.pull)
	}
	if env := a.config().ProxyEnv(a.host(), f.flags.EnvNames()); len(env) > 0 {
		f.flags.AddEnv(env)
	}
	return f.flags.Container(args[0], args[1:])
}

func (a *app) host() string {
	h, _ := a.global.host()
	return h
}

// create makes the container, pulling its image when that is missing and may
// be pulled, and returns its ID.
func (a *app) create(ctx context.Context, f *createFlags, spec *runflags.Container) (id string, err error) {
	cid, err := openCIDFile(f.flags.CIDFile())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, cid.close()) }()
	ref, err := parseRef(spec.Config.Image)
	if err != nil {
		return "", err
	}
	var logins []byte
	if f.socket {
		if logins, err = a.useAPISocket(spec); err != nil {
			return "", err
		}
	}
	if f.pull == "always" {
		if err := a.pullForRun(ctx, ref, f); err != nil {
			return "", err
		}
	}
	spec.HostConfig.ConsoleSize = a.terminalSize()
	resp, err := a.postCreate(ctx, f, spec)
	if client.IsNotFound(err) && !ref.isID && (f.pull == "missing" || f.pull == "") {
		if !f.quiet {
			fmt.Fprintf(a.err, "Unable to find image '%s' locally\n", ref.familiar())
		}
		if err := a.pullForRun(ctx, ref, f); err != nil {
			return "", err
		}
		resp, err = a.postCreate(ctx, f, spec)
	}
	if err != nil {
		return "", err
	}
	if f.exists != nil {
		f.exists(resp.ID)
	}
	for _, w := range append(resp.Warnings, dnsWarnings(spec.HostConfig)...) {
		fmt.Fprintln(a.err, "WARNING:", w)
	}
	if err := cid.write(resp.ID); err != nil {
		return resp.ID, err
	}
	return resp.ID, a.putLogins(ctx, resp.ID, logins)
}

func (a *app) postCreate(ctx context.Context, f *createFlags, spec *runflags.Container) (resp container.CreateResponse, err error) {
	q := url.Values{}
	if f.name != "" {
		q.Set("name", f.name)
	}
	if f.platform != "" {
		q.Set("platform", f.platform)
	}
	c, err := a.client()
	if err != nil {
		return resp, err
	}
	r := &client.Request{
		Method: client.MethodPost,
		Path:   "/containers/create",
		Query:  q,
		Meanwhile: func() {
			if f.meanwhile != nil {
				f.meanwhile()
			}
			c.Prepare(ctx, f.connections)
		},
		JSON: client.Sparse{V: &container.CreateRequest{
			Config:           spec.Config,
			HostConfig:       spec.HostConfig,
			NetworkingConfig: spec.Networking,
		}},
	}
	if f.ahead != nil {
		return f.ahead.create(ctx, c, r)
	}
	err = c.JSON(ctx, r, &resp)
	return resp, err
}

func dnsWarnings(h *container.HostConfig) []string {
	for _, addr := range h.DNS {
		if addr.IsLoopback() {
			return []string{fmt.Sprintf("Localhost DNS (%s) may fail in containers.", addr)}
		}
	}
	return nil
}

// cidFile is created before the container and removed again when there is none.
type cidFile struct {
	file    *os.File
	written bool
}

func openCIDFile(name string) (*cidFile, error) {
	if name == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", name)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidFile{file: f}, nil
}

func (c *cidFile) write(id string) error {
	if c.file == nil {
		return nil
	}
	if _, err := c.file.WriteString(id); err != nil {
		return fmt.Errorf("failed to write the container ID to the file: %w", err)
	}
	c.written = true
	return nil
}

func (c *cidFile) close() error {
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	if !c.written {
		err = os.Remove(c.file.Name())
	}
	return err
}
