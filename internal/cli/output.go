package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantry-containers/gantry/internal/cli/client"
)

// download writes the answer to a file, which appears only when it is whole, or
// to the output when name is empty.
func (a *app) download(cmd *cobra.Command, path string, q url.Values, name string) error {
	if name == "" && isTerminal(a.out) {
		return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
	}
	if err := checkOutput(name); err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	resp, err := c.Do(cmd.Context(), &client.Request{Method: client.MethodGet, Path: path, Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if name == "" {
		_, err = io.Copy(a.out, resp.Body)
		return err
	}
	return writeWhole(name, resp.Body)
}

// checkOutput refuses what cannot be written to before the engine is asked.
func checkOutput(name string) error {
	if name == "" {
		return nil
	}
	dir := filepath.Dir(filepath.Clean(name))
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("invalid output path: directory %q does not exist", dir)
	}
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return fmt.Errorf("invalid output path: %q is a directory", name)
	}
	return nil
}

// writeWhole writes r beside name and renames it when it is complete. Devices
// and pipes are written to directly.
func writeWhole(name string, r io.Reader) (err error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// showAnswer prints an answer of the engine as --format has it: through a
// template, in JSON as it came, as fields this client does not know are in it
// too, or, by default, as a table. The answer is decoded into v.
func (a *app) showAnswer(raw json.RawMessage, text string, v any, table func() error) error {
	if text == "json" {
		_, err := fmt.Fprintf(a.out, "%s\n", strings.TrimSpace(string(raw)))
		return err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("cannot read the engine's answer: %w", err)
	}
	if text != "" && text != "table" {
		return a.oneObject(text, v)
	}
	return table()
}
