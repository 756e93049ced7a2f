// Package e2e runs the same scripts with our command line and with the stock
// Docker CLI against a real engine: what one of them can do the other can, with
// the same output and the same exit codes.
package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/bcrypt"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

var (
	shared *enginetest.Engine
	// Debian's docker-registry, for everybody and for "me" with the password
	// "secret"; empty where that is not installed.
	openRegistry, closedRegistry string
)

func TestMain(m *testing.M) {
	run := func() int {
		stop, err := registries(shared.Dir)
		if err != nil {
			fmt.Println("cannot start registries:", err)
			return 1
		}
		defer stop()
		return m.Run()
	}
	os.Exit(enginetest.One(run, func(e *enginetest.Engine) error {
		shared = e
		shared.Args = []string{"--cdi-spec-dir", e.Dir}
		return os.WriteFile(filepath.Join(e.Dir, "gpu.json"), []byte(fakeGPU), 0o644)
	}))
}

func registries(dir string) (stop func(), err error) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		return nil, err
	}
	accounts := filepath.Join(dir, "htpasswd")
	if err := os.WriteFile(accounts, []byte("me:"+string(hash)+"\n"), 0o600); err != nil {
		return nil, err
	}
	opened, stopOpen, err := enginetest.DockerRegistry(filepath.Join(dir, "registry"))
	if errors.Is(err, exec.ErrNotFound) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	guarded, stopClosed, err := enginetest.DockerRegistry(filepath.Join(dir, "registry-me"), fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", accounts))
	if err != nil {
		stopOpen()
		return nil, err
	}
	openRegistry, closedRegistry = opened, guarded
	return func() { stopOpen(); stopClosed() }, nil
}

// fakeGPU describes a GPU as NVIDIA's toolkit does, with a device every machine
// has.
const fakeGPU = `{"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu",
	"containerEdits": {"env": ["NVIDIA_VISIBLE_DEVICES=void"]},
	"devices": [
		{"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/null"}]}},
		{"name": "all", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/null"}]}}]}`

// Every script runs with each client as the command "docker".
func TestScripts(t *testing.T) {
	for _, client := range []string{"gantry", "docker"} {
		t.Run(client, func(t *testing.T) {
			path := filepath.Join(shared.Bin, "gantry")
			if client == "docker" {
				var err error
				if path, err = exec.LookPath("docker"); err != nil {
					t.Skip("the stock Docker CLI is not installed")
				}
			}
			scripts(t, client, path, "testdata/script")
		})
	}
}

func scripts(t *testing.T, client, path, dir string) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			bin := filepath.Join(env.WorkDir, ".bin")
			if err := os.Mkdir(bin, 0o755); err != nil {
				return err
			}
			if err := os.Symlink(path, filepath.Join(bin, "docker")); err != nil {
				return err
			}
			env.Setenv("PATH", bin+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("DOCKER_HOST", shared.Host())
			env.Setenv("CLIENT", client)
			env.Setenv("BIN", shared.Bin)
			env.Setenv("REG", openRegistry)
			env.Setenv("CLOSED", closedRegistry)
			// Names are shared by all scripts of an engine.
			env.Setenv("N", client+"-"+filepath.Base(env.WorkDir))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "registry" {
				return openRegistry != "", nil
			}
			return cond == client, nil
		},
	})
}
