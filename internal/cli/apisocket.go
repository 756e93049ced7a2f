package cli

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/moby/moby/api/types/mount"

	"github.com/gantry-containers/gantry/internal/cli/client"
	"github.com/gantry-containers/gantry/internal/cli/config"
	"github.com/gantry-containers/gantry/internal/cli/runflags"
)

// Where a container finds the engine and the logins with --use-api-socket.
const (
	socketInContainer = "/var/run/docker.sock"
	loginsInContainer = "/run/secrets/docker/config.json"
)

// useAPISocket mounts the engine's socket into a container that is yet to be
// created, and returns the configuration file with the logins it shall find,
// if there are any. A container that is given DOCKER_CONFIG has its own.
func (a *app) useAPISocket(spec *runflags.Container) (logins []byte, err error) {
	socket, ok := strings.CutPrefix(a.host(), "unix://")
	if !ok {
		return nil, fmt.Errorf("flag --use-api-socket can only be used with unix sockets: docker endpoint %s incompatible", a.host())
	}
	spec.HostConfig.Mounts = append(spec.HostConfig.Mounts, mount.Mount{
		Type: mount.TypeBind, Source: socket, Target: socketInContainer, BindOptions: &mount.BindOptions{},
	})
	for _, v := range spec.Config.Env {
		if strings.HasPrefix(v, "DOCKER_CONFIG=") {
			return nil, nil
		}
	}
	all, err := a.allLogins()
	if err != nil {
		return nil, fmt.Errorf("resolving credentials failed: %w", err)
	}
	if len(all) == 0 {
		return nil, nil
	}
	spec.Config.Env = append(spec.Config.Env, "DOCKER_CONFIG="+path.Dir(loginsInContainer))
	file := struct {
		Auths map[string]config.Auth `json:"auths"`
	}{map[string]config.Auth{}}
	for key, c := range all {
		file.Auths[key] = c.Auth()
	}
	return json.MarshalIndent(file, "", "\t")
}

// allLogins are those of the variable DOCKER_AUTH_CONFIG, which holds the text
// of a configuration file, or else those that are kept.
func (a *app) allLogins() (map[string]config.Credentials, error) {
	if text := os.Getenv("DOCKER_AUTH_CONFIG"); text != "" {
		var f config.File
		if err := json.Unmarshal([]byte(text), &f); err != nil {
			return nil, fmt.Errorf("failed to read credentials from DOCKER_AUTH_CONFIG: %w", err)
		}
		if given := (&config.File{Auths: f.Auths}); len(f.Auths) > 0 {
			return given.All()
		}
	}
	return a.config().All()
}

// putLogins copies the logins into a container that was created.
func (a *app) putLogins(ctx context.Context, id string, logins []byte) error {
	if logins == nil {
		return nil
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err := w.WriteHeader(&tar.Header{Name: loginsInContainer, Size: int64(len(logins)), Mode: 0o600})
	if err == nil {
		_, err = w.Write(logins)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		q := url.Values{"path": {"/"}, "noOverwriteDirNonDir": {"true"}}
		err = a.json(ctx, &client.Request{Method: client.MethodPut, Path: containerPath(id, "archive"), Query: q, Stream: &archive, ContentType: "application/x-tar"}, nil)
	}
	if err != nil {
		return fmt.Errorf("injecting docker config.json into container failed: %w", err)
	}
	return nil
}
