package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/copytree"
)

type cpFlags struct {
	followLink, archive, quiet bool
}

func (a *app) cpCommand() *cobra.Command {
	var f cpFlags
	cmd := &cobra.Command{
		Use: `cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-
	gantry cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH`,
		Short: "Copy files/folders between a container and the local filesystem",
		Long: `Copy files/folders between a container and the local filesystem

Use '-' as the source to read a tar archive from stdin
and extract it to a directory destination in a container.
Use '-' as the destination to stream a tar archive of a
container source to stdout.`,
		Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("quiet") {
				f.quiet = !isTerminal(a.out)
			}
			return a.cp(cmd.Context(), &f, args[0], args[1])
		},
	}
	fs := cmd.Flags()
	fs.BoolVarP(&f.followLink, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	fs.BoolVarP(&f.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached")
	return cmd
}

func (a *app) cp(ctx context.Context, f *cpFlags, from, to string) error {
	switch {
	case from == "":
		return errors.New("source can not be empty")
	case to == "":
		return errors.New("destination can not be empty")
	}
	fromName, fromPath := splitCopyArg(from)
	toName, toPath := splitCopyArg(to)
	switch {
	case fromName != "" && toName != "":
		return errors.New("copying between containers is not supported")
	case fromName != "":
		return a.copyFrom(ctx, f, fromName, fromPath, toPath)
	case toName != "":
		return a.copyTo(ctx, f, fromPath, toName, toPath)
	}
	return errors.New("must specify at least one container source")
}

// splitCopyArg splits CONTAINER:PATH. A local name with a colon in it can be
// written with ./ in front.
func splitCopyArg(arg string) (name, p string) {
	if filepath.IsAbs(arg) || strings.HasPrefix(arg, string(os.PathSeparator)) {
		return "", arg
	}
	name, p, ok := strings.Cut(arg, ":")
	if !ok || strings.HasPrefix(name, ".") {
		return "", arg
	}
	return name, p
}

func (a *app) copyFrom(ctx context.Context, f *cpFlags, name, src, dst string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	if dst != "-" {
		if err := checkParent(dst); err != nil {
			return err
		}
	}
	source := src
	if f.followLink {
		if st, err := a.statPath(ctx, name, src); err == nil && st.Mode&os.ModeSymlink != 0 {
			source = linkTarget(src, st.LinkTarget)
		}
	}
	q := url.Values{"path": {source}}
	resp, err := c.Do(ctx, &client.Request{Method: client.MethodGet, Path: containerPath(name, "archive"), Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if dst == "-" {
		_, err = io.Copy(a.out, resp.Body)
		return err
	}
	st, err := readStat(resp.Header)
	if err != nil {
		return err
	}
	target, err := copytree.LocalTarget(src, st.Mode.IsDir(), dst)
	if err != nil {
		return err
	}
	counted := &counter{Reader: resp.Body}
	if err := copytree.Extract(counted, target, copytree.Options{KeepOwner: f.archive, Warn: a.err}); err != nil {
		return err
	}
	if !f.quiet {
		fmt.Fprintln(a.err, "Successfully copied", counted, "to", dst)
	}
	return nil
}

func checkParent(dst string) error {
	parent := filepath.Dir(strings.TrimRight(dst, "/"))
	if _, err := os.Stat(parent); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("invalid output path: directory %q does not exist", parent)
	}
	if info, err := os.Stat(dst); err == nil && info.Mode()&(os.ModeDevice|os.ModeNamedPipe|os.ModeSocket) != 0 {
		return fmt.Errorf("invalid output path: %q must be a directory or a regular file", dst)
	}
	return nil
}

func (a *app) copyTo(ctx context.Context, f *cpFlags, src, name, dst string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	to := copytree.Destination{Path: dst}
	st, err := a.statPath(ctx, name, dst)
	if err == nil && st.Mode&os.ModeSymlink != 0 {
		to.Path = linkTarget(dst, st.LinkTarget)
		st, err = a.statPath(ctx, name, to.Path)
	}
	switch {
	case err == nil && !st.Mode.IsDir() && !st.Mode.IsRegular():
		return fmt.Errorf(`destination "%s:%s" must be a directory or a regular file`, name, dst)
	case err == nil:
		to.Exists, to.IsDir = true, st.Mode.IsDir()
	case client.IsInvalid(err):
		return fmt.Errorf(`no such directory: "%s:%s"`, name, dst)
	case !client.IsNotFound(err):
		return err
	default:
		// Either can be missing, and an answer to HEAD has no text to tell.
		if _, err := a.inspectContainer(ctx, name); err != nil {
			return err
		}
	}
	counted := &counter{}
	dir := to.Path
	if src == "-" {
		if !to.IsDir {
			return fmt.Errorf(`destination "%s:%s" must be a directory`, name, dst)
		}
		counted.Reader = a.in
	} else {
		packed, err := copytree.Pack(src, f.followLink, to)
		if err != nil {
			return err
		}
		defer packed.Close()
		counted.Reader, dir = packed, packed.Dir
	}
	q := url.Values{"path": {dir}, "noOverwriteDirNonDir": {"true"}}
	if f.archive {
		q.Set("copyUIDGID", "true")
	}
	resp, err := c.Do(ctx, &client.Request{Method: client.MethodPut, Path: containerPath(name, "archive"), Query: q, Stream: counted, ContentType: "application/x-tar"})
	if err != nil {
		return err
	}
	resp.Body.Close()
	if !f.quiet {
		fmt.Fprintln(a.err, "Successfully copied", counted, "to", name+":"+dst)
	}
	return nil
}

func linkTarget(link, target string) string {
	if path.IsAbs(target) {
		return target
	}
	return path.Join(path.Dir(strings.TrimRight(link, "/")), target)
}

// statPath asks about a path in a container without following it.
func (a *app) statPath(ctx context.Context, name, p string) (container.PathStat, error) {
	c, err := a.client()
	if err != nil {
		return container.PathStat{}, err
	}
	resp, err := c.Do(ctx, &client.Request{Method: client.MethodHead, Path: containerPath(name, "archive"), Query: url.Values{"path": {p}}})
	if err != nil {
		return container.PathStat{}, err
	}
	resp.Body.Close()
	return readStat(resp.Header)
}

func readStat(h client.Header) (st container.PathStat, err error) {
	text, err := base64.StdEncoding.DecodeString(h.Get("X-Docker-Container-Path-Stat"))
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	if err != nil {
		return st, fmt.Errorf("cannot read what the engine says about the path: %w", err)
	}
	return st, nil
}

// counter counts what passes through it.
type counter struct {
	io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) String() string { return units.HumanSizeWithPrecision(float64(c.n), 3) }
