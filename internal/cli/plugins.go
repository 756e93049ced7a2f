package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// plugin is a command in a program of its own, in the words of Docker's
// protocol for them: asked with the argument docker-cli-plugin-metadata, it
// prints this as JSON.
type plugin struct {
	SchemaVersion    string
	Vendor           string
	Version          string `json:",omitempty"`
	ShortDescription string `json:",omitempty"`
	URL              string `json:",omitempty"`
	Name             string
	Path             string `json:",omitempty"`
}

// pluginDirs are searched in order: beside gantry, the user's, the system's.
// Docker's plugins are found too, because they speak to any engine.
func (a *app) pluginDirs() []string {
	var dirs []string
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		dirs = append(dirs, filepath.Dir(exe))
	}
	if a.global.configDir != "" {
		dirs = append(dirs, filepath.Join(a.global.configDir, "cli-plugins"))
	}
	if runtime.GOOS == "windows" {
		return append(dirs,
			filepath.Join(os.Getenv("ProgramData"), "Docker", "cli-plugins"),
			filepath.Join(os.Getenv("ProgramFiles"), "Docker", "cli-plugins"))
	}
	for _, base := range []string{"/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec"} {
		dirs = append(dirs, base+"/gantry/cli-plugins", base+"/docker/cli-plugins")
	}
	return dirs
}

// findPlugin looks for gantry-NAME everywhere before it takes docker-NAME.
func (a *app) findPlugin(name string) string {
	if name == "" || strings.ContainsAny(name, `/\.`) {
		return ""
	}
	for _, prefix := range []string{"gantry-", "docker-"} {
		for _, dir := range a.pluginDirs() {
			path := filepath.Join(dir, prefix+name+exeSuffix())
			if info, err := os.Stat(path); err == nil && isExecutable(info) {
				return path
			}
		}
	}
	return ""
}

func exeSuffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

func isExecutable(info os.FileInfo) bool {
	return info.Mode().IsRegular() && (runtime.GOOS == "windows" || info.Mode()&0o111 != 0)
}

// runPlugin becomes the plugin for args[0], when there is one. It gets the same
// arguments, and the engine we would have used in its environment.
func (a *app) runPlugin(args []string) (found bool, err error) {
	if strings.HasPrefix(args[0], "-") || isOurProgram(args[0]) {
		return false, nil
	}
	path := a.findPlugin(args[0])
	if path == "" {
		return false, nil
	}
	host := a.host()
	env := append(os.Environ(),
		"GANTRY_HOST="+host,
		"DOCKER_HOST="+host,
		"DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND="+os.Args[0],
	)
	if a.global.configDir != "" {
		env = append(env, "DOCKER_CONFIG="+a.global.configDir)
	}
	return true, become(path, append([]string{path}, args...), env)
}

// isOurProgram names the programs beside gantry that are no plugins.
func isOurProgram(name string) bool {
	return slices.Contains([]string{"shim", "oci", "init", "tls"}, name)
}

// describePlugins asks every plugin there is what it does. Those that do not
// answer within a second are left out.
func (a *app) describePlugins() []plugin {
	paths := map[string]string{}
	for _, prefix := range []string{"gantry-", "docker-"} {
		for _, dir := range a.pluginDirs() {
			entries, _ := os.ReadDir(dir) // a directory that is absent holds none
			for _, e := range entries {
				name, ok := strings.CutPrefix(strings.TrimSuffix(e.Name(), exeSuffix()), prefix)
				if !ok || paths[name] != "" || isOurProgram(name) || slices.Contains(commandNames(), name) {
					continue
				}
				if p := a.findPlugin(name); p != "" {
					paths[name] = p
				}
			}
		}
	}
	found := []plugin{}
	for name, path := range paths {
		if p, err := describe(name, path); err == nil {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(x, y plugin) int { return strings.Compare(x.Name, y.Name) })
	return found
}

func describe(name, path string) (plugin, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "docker-cli-plugin-metadata")
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return plugin{}, err
	}
	var p plugin
	if err := json.Unmarshal(out.Bytes(), &p); err != nil {
		return p, err
	}
	if p.SchemaVersion == "" || p.Vendor == "" {
		return p, errors.New("not a plugin")
	}
	p.Name, p.Path = name, path
	return p, nil
}
