// Package config reads the command line's configuration file, which is
// Docker's: credentials of registries, default formats, detach keys, proxies.
//
// A file that is absent is an empty one. The only thing that is ever changed in
// it is a login (change.go); helper programs that keep logins are asked here too
// (helper.go). The package must not know the engine.
package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// File is the part of config.json that Gantry uses.
type File struct {
	Auths          map[string]Auth   `json:"auths"`
	CredsStore     string            `json:"credsStore"`
	CredHelpers    map[string]string `json:"credHelpers"`
	HTTPHeaders    map[string]string `json:"HttpHeaders"`
	DetachKeys     string            `json:"detachKeys"`
	PsFormat       string            `json:"psFormat"`
	ImagesFormat   string            `json:"imagesFormat"`
	StatsFormat    string            `json:"statsFormat"`
	VolumesFormat  string            `json:"volumesFormat"`
	NetworksFormat string            `json:"networksFormat"`
	PruneFilters   []string          `json:"pruneFilters"`
	Proxies        map[string]Proxy  `json:"proxies"`

	name string // of the file
}

// Proxy is what containers are told about the proxies of their network.
type Proxy struct {
	HTTPProxy  string `json:"httpProxy"`
	HTTPSProxy string `json:"httpsProxy"`
	NoProxy    string `json:"noProxy"`
	FTPProxy   string `json:"ftpProxy"`
	AllProxy   string `json:"allProxy"`
}

// Dir is the directory of the file: DOCKER_CONFIG, or .docker in the home
// directory.
func Dir() string {
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".docker")
}

// Load reads config.json in dir.
func Load(dir string) (*File, error) {
	f := &File{}
	if dir == "" {
		return f, nil
	}
	f.name = filepath.Join(dir, "config.json")
	text, err := os.ReadFile(f.name)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(bytes.TrimSpace(text)) == 0 {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(text, f)
	}
	if err != nil {
		return f, fmt.Errorf("cannot read the configuration file %s: %w", f.name, err)
	}
	return f, nil
}

// ProxyEnv lists the proxy variables for containers of the engine at host, in
// upper and lower case, without those in taken.
func (f *File) ProxyEnv(host string, taken map[string]bool) []string {
	p, ok := f.Proxies[host]
	if !ok {
		p, ok = f.Proxies["default"]
	}
	if !ok {
		return nil
	}
	var env []string
	for _, v := range []struct{ name, value string }{
		{"HTTP_PROXY", p.HTTPProxy}, {"HTTPS_PROXY", p.HTTPSProxy}, {"NO_PROXY", p.NoProxy},
		{"FTP_PROXY", p.FTPProxy}, {"ALL_PROXY", p.AllProxy},
	} {
		if v.value == "" {
			continue
		}
		for _, name := range []string{v.name, strings.ToLower(v.name)} {
			if !taken[name] {
				env = append(env, name+"="+v.value)
			}
		}
	}
	return env
}
