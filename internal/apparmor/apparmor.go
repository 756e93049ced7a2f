// Package apparmor loads the profile containers get where the kernel has
// AppArmor and nobody asked for another: Docker's name for it, docker-default,
// and what Docker's allows.
//
// It owns the text of the profile. It runs apparmor_parser(8), which alone can
// compile one, and must not know what a container is: the profile is entered at
// execve, by ocirt.
package apparmor

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// DefaultProfile is the name of the profile.
const DefaultProfile = "docker-default"

//go:embed docker-default
var profile string

// Enabled tells whether the kernel confines programs by AppArmor.
func Enabled() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && len(b) > 0 && b[0] == 'Y'
}

// LoadDefault sees to it that the kernel knows DefaultProfile. One that is there
// already stays: it is another engine's too. It must be called only where
// Enabled.
func LoadDefault(ctx context.Context) error {
	if loaded, err := isLoaded(DefaultProfile); loaded || err != nil {
		return err
	}
	parser, err := findParser()
	if err != nil {
		return err
	}
	// Neither read nor write the cache of the distribution's own profiles.
	cmd := exec.CommandContext(ctx, parser, "--skip-cache", "--replace")
	cmd.Stdin = strings.NewReader(profile)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot load the AppArmor profile %s: apparmor_parser: %w: %s", DefaultProfile, err, bytes.TrimSpace(out))
	}
	return nil
}

// isLoaded looks into the kernel's list: a line is "NAME (MODE)".
func isLoaded(name string) (bool, error) {
	const list = "/sys/kernel/security/apparmor/profiles"
	b, err := os.ReadFile(list)
	if err != nil {
		return false, fmt.Errorf("cannot read the loaded AppArmor profiles: %w", err)
	}
	return strings.Contains("\n"+string(b), "\n"+name+" ("), nil
}

// findParser finds the program, whose directory is not in everybody's PATH.
func findParser() (string, error) {
	const name = "apparmor_parser"
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("cannot find %s (of the package apparmor)", name)
}
