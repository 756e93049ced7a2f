package manifest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/config"
	"github.com/gantry-containers/gantry/internal/registry"
)

// tool is one run of the command.
type tool struct {
	out    io.Writer
	store  *store
	remote remote
}

// Main runs one command line, args[0] being the program's name and args[1] the
// word "manifest", as gantry starts plugins; it returns the exit code.
func Main(args []string) int {
	if len(args) == 2 && args[1] == "docker-cli-plugin-metadata" {
		fmt.Println(`{"SchemaVersion":"0.1.0","Vendor":"Gantry","ShortDescription":"Manage image manifests and manifest lists"}`)
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Stderr, args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "gantry:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, out, errOut io.Writer, args []string) error {
	if len(args) > 0 && args[0] == "manifest" {
		args = args[1:]
	}
	dir := config.Dir()
	logins, err := config.Load(dir)
	if err != nil {
		fmt.Fprintln(errOut, "WARNING:", err)
	}
	t := &tool{out: out, store: &store{filepath.Join(dir, "manifests")}, remote: remote{logins: logins, clients: map[string]*registry.Client{}}}
	root := &cobra.Command{Use: "gantry", SilenceErrors: true, SilenceUsage: true, CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true}}
	root.SetOut(out)
	root.SetErr(errOut)
	group := &cobra.Command{
		Use:   "manifest COMMAND",
		Short: "Manage image manifests and manifest lists",
		Long: `Manage image manifests and manifest lists: a list lets one name stand for an
image that was built for several platforms.

A list is put together here with create, completed with annotate, and sent to
the registry that has the images with push.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(group)
	group.AddCommand(t.annotateCommand(), t.createCommand(), t.inspectCommand(), t.pushCommand(), t.rmCommand())
	for _, cmd := range append(group.Commands(), group) {
		cmd.DisableFlagsInUseLine = true
	}
	root.SetArgs(append([]string{"manifest"}, args...))
	return root.ExecuteContext(ctx)
}

func (t *tool) addInsecure(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&t.remote.insecure, "insecure", false, "Allow communication with an insecure registry")
}

func (t *tool) createCommand() *cobra.Command {
	var amend bool
	cmd := &cobra.Command{
		Use:   "create MANIFEST_LIST MANIFEST [MANIFEST...]",
		Short: "Create a local manifest list for annotating and pushing to a registry",
		Args:  arguments(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := normal(args[0])
			if err != nil {
				return fmt.Errorf("error parsing name for manifest list %s: %w", args[0], err)
			}
			if _, err := t.store.all(list); err == nil && !amend {
				return errors.New("refusing to amend an existing manifest list with no --amend flag")
			} else if err != nil && !isNoList(err) {
				return err
			}
			for _, name := range args[1:] {
				ref, err := normal(name)
				if err != nil {
					return err
				}
				i, err := t.store.get(list, ref)
				if isNoList(err) || err == nil && len(i.Raw) == 0 {
					i, err = t.remote.image(cmd.Context(), ref)
				}
				if err != nil {
					return err
				}
				if err := t.store.save(list, ref, i); err != nil {
					return err
				}
			}
			fmt.Fprintln(t.out, "Created manifest list", list)
			return nil
		},
	}
	t.addInsecure(cmd)
	cmd.Flags().BoolVarP(&amend, "amend", "a", false, "Amend an existing manifest list")
	return cmd
}

func (t *tool) inspectCommand() *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] [MANIFEST_LIST] MANIFEST",
		Short: "Display an image manifest, or manifest list",
		Args:  arguments(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := normal(args[len(args)-1])
			if err != nil {
				return err
			}
			if len(args) == 2 {
				list, err := normal(args[0])
				if err != nil {
					return err
				}
				i, err := t.store.get(list, ref)
				if err != nil {
					return err
				}
				return t.showImage(i, verbose)
			}
			images, err := t.store.all(ref)
			isList := true
			if err != nil {
				if images, isList, err = t.remote.images(cmd.Context(), ref); err != nil {
					return err
				}
			}
			if !isList {
				return t.showImage(images[0], verbose)
			}
			if verbose {
				return t.showJSON(images)
			}
			l, err := newList(ref, images)
			if err != nil {
				return err
			}
			text, err := l.bytes()
			fmt.Fprintln(t.out, string(text))
			return err
		},
	}
	t.addInsecure(cmd)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Output additional info including layers and platform")
	return cmd
}

func (t *tool) showImage(i *image, verbose bool) error {
	if verbose {
		return t.showJSON(i)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, i.shown(), "", "\t"); err != nil {
		return err
	}
	fmt.Fprintln(t.out, b.String())
	return nil
}

func (t *tool) showJSON(v any) error {
	text, err := json.MarshalIndent(v, "", "\t")
	fmt.Fprintln(t.out, string(text))
	return err
}

func (t *tool) annotateCommand() *cobra.Command {
	var p ocispec.Platform
	cmd := &cobra.Command{
		Use:   "annotate [OPTIONS] MANIFEST_LIST MANIFEST",
		Short: "Add additional information to a local image manifest",
		Args:  arguments(2, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			list, err := normal(args[0])
			if err != nil {
				return fmt.Errorf("annotate: error parsing name for manifest list %s: %w", args[0], err)
			}
			ref, err := normal(args[1])
			if err != nil {
				return fmt.Errorf("annotate: error parsing name for manifest %s: %w", args[1], err)
			}
			i, err := t.store.get(list, ref)
			if isNoList(err) {
				return fmt.Errorf("manifest for image %s does not exist in %s", args[1], args[0])
			}
			if err != nil {
				return err
			}
			if err := annotate(i, p); err != nil {
				return err
			}
			return t.store.save(list, ref, i)
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&p.OS, "os", "", "Set operating system")
	fs.StringVar(&p.Architecture, "arch", "", "Set architecture")
	fs.StringVar(&p.OSVersion, "os-version", "", "Set operating system version")
	fs.StringSliceVar(&p.OSFeatures, "os-features", nil, "Set operating system feature")
	fs.StringVar(&p.Variant, "variant", "", "Set architecture variant")
	return cmd
}

// annotate overwrites what of the platform is given.
func annotate(i *image, p ocispec.Platform) error {
	if i.Descriptor.Platform == nil {
		i.Descriptor.Platform = &ocispec.Platform{}
	}
	d := i.Descriptor.Platform
	for _, field := range []struct {
		to   *string
		from string
	}{{&d.OS, p.OS}, {&d.Architecture, p.Architecture}, {&d.OSVersion, p.OSVersion}, {&d.Variant, p.Variant}} {
		if field.from != "" {
			*field.to = field.from
		}
	}
	for _, f := range p.OSFeatures {
		if !slices.Contains(d.OSFeatures, f) {
			d.OSFeatures = append(d.OSFeatures, f)
		}
	}
	if !supported(d.OS, d.Architecture) {
		return fmt.Errorf("manifest entry for image has unsupported os/arch combination: %s/%s", p.OS, p.Architecture)
	}
	return nil
}

// supported tells the pairs that Docker accepts in a list: what Go compiles for.
func supported(os, arch string) bool {
	architectures := map[string]string{
		"darwin": "386 amd64 arm arm64", "dragonfly": "amd64", "freebsd": "386 amd64 arm",
		"linux":  "386 amd64 arm arm64 loong64 mips64 mips64le ppc64le riscv64 s390x",
		"netbsd": "386 amd64 arm", "openbsd": "386 amd64 arm", "plan9": "386 amd64", "solaris": "amd64",
		"windows": "386 amd64 arm64",
	}
	return slices.Contains(strings.Fields(architectures[os]), arch)
}

func (t *tool) pushCommand() *cobra.Command {
	var purge bool
	cmd := &cobra.Command{
		Use:   "push [OPTIONS] MANIFEST_LIST",
		Short: "Push a manifest list to a repository",
		Args:  arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := normal(args[0])
			if err != nil {
				return err
			}
			images, err := t.store.all(list)
			if err != nil {
				return err
			}
			if len(images) == 0 {
				return fmt.Errorf("%s not found", list)
			}
			if err := t.remote.push(cmd.Context(), list, images, func(line string) { fmt.Fprintln(t.out, line) }); err != nil {
				return err
			}
			if purge {
				return t.store.remove(list)
			}
			return nil
		},
	}
	t.addInsecure(cmd)
	cmd.Flags().BoolVarP(&purge, "purge", "p", false, "Remove the local manifest list after push")
	return cmd
}

func (t *tool) rmCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rm MANIFEST_LIST [MANIFEST_LIST...]",
		Short: "Delete one or more manifest lists from local storage",
		Args:  arguments(1, -1),
		RunE: func(_ *cobra.Command, args []string) error {
			var errs []error
			for _, name := range args {
				list, err := normal(name)
				if err == nil {
					_, err = t.store.all(list)
				}
				if err == nil {
					err = t.store.remove(list)
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
}

// arguments bounds their number, in Docker's words; most is -1 for any.
func arguments(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		word := func(n int) string {
			if n == 1 {
				return "1 argument"
			}
			return fmt.Sprintf("%d arguments", n)
		}
		text := ""
		switch {
		case len(args) >= least && (most < 0 || len(args) <= most):
			return nil
		case most < 0:
			text = "requires at least " + word(least)
		case least == most:
			text = "requires " + word(least)
		default:
			text = fmt.Sprintf("requires at least %d and at most %s", least, word(most))
		}
		return fmt.Errorf("'%s' %s\n\nUsage:  %s\n\nRun '%[1]s --help' for more information", cmd.CommandPath(), text, cmd.UseLine())
	}
}
