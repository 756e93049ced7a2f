package registryd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"text/tabwriter"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"github.com/gantry-containers/gantry/internal/errs"
)

// controlSocket is below the root, for those who may read it: root, or whom the
// registry runs as. By it another process has the one that serves collect.
const controlSocket = "control.sock"

func listenControl(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, errs.System("cannot listen for commands: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, errs.System("cannot protect the socket for commands: %w", err)
	}
	return l, nil
}

func (s *Server) controlHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /collect", func(w http.ResponseWriter, r *http.Request) {
		report, err := s.runCollection(r.Context(), r.FormValue("dry-run") == "true")
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(report) // the client is gone
	})
	return mux
}

// runCollect is "gantryd registry gc": the registry that serves the root does
// it, or when there is none, this process.
func runCollect(ctx context.Context, args []string, out io.Writer) error {
	var root, file, format string
	var dry bool
	flags := pflag.NewFlagSet("gantryd registry gc", pflag.ContinueOnError)
	flags.StringVar(&root, "root", "", "Directory of the registry (default "+DefaultRoot+")")
	flags.StringVar(&file, "config", "", "Configuration file of the registry (TOML)")
	flags.BoolVar(&dry, "dry-run", false, "Show what would be removed, and remove nothing")
	flags.StringVar(&format, "format", "table", "table or json")
	flags.SetOutput(out)
	flags.Usage = func() {
		fmt.Fprintf(out, "Usage: gantryd registry gc [OPTIONS]\n\nCollect garbage, and tags that retention lets go. A registry that is being served\ngoes on serving meanwhile, and uses its own configuration.\n\nOptions:\n%s", flags.FlagUsages())
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errs.InvalidArgument("gantryd registry gc takes no arguments: %s", flags.Arg(0))
	}
	var given []string
	if root != "" {
		given = append(given, "--root", root)
	}
	if file != "" {
		given = append(given, "--config", file)
	}
	c, err := Parse(given, io.Discard)
	if err != nil {
		return err
	}
	report, err := askCollect(ctx, filepath.Join(c.Root, controlSocket), dry)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		report, err = collectAlone(ctx, c, dry)
	}
	if err != nil {
		return err
	}
	if format == "json" {
		return json.NewEncoder(out).Encode(report)
	}
	return report.print(out, dry)
}

// askCollect has the serving process collect.
func askCollect(ctx context.Context, socket string, dry bool) (*Report, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, fmt.Sprintf("http://registry/collect?dry-run=%v", dry), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, errs.Unavailable("cannot ask the registry to collect: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, errs.Unavailable("cannot read what the registry collected: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errs.System("%s", bytes.TrimSpace(body))
	}
	report := &Report{}
	if err := json.Unmarshal(body, report); err != nil {
		return nil, errs.System("cannot read what the registry collected: %w", err)
	}
	return report, nil
}

func (r *Report) print(out io.Writer, dry bool) error {
	verb := "Removed"
	if dry {
		verb = "Would remove"
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, item := range r.Items {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", item.Kind, item.Repository, item.Name, item.Why)
	}
	if r.More > 0 {
		fmt.Fprintf(w, "and %d more\n", r.More)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s %d tags, %d manifests and %d blobs: %s\n", verb, r.Tags, r.Manifests, r.Blobs, units.HumanSize(float64(r.Bytes)))
	return err
}
