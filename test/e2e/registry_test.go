package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

// box is a registry in a process of its own, as a person starts it.
type box struct {
	cmd  *exec.Cmd
	addr string
	root string
}

func startRegistry(t *testing.T, bin string, args ...string) *box {
	t.Helper()
	b := &box{root: t.TempDir(), addr: freeAddress(t)}
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, fmt.Appendf(nil, "ann:%s\n", hash), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"registry", "serve", "--listen", b.addr, "--root", b.root, "--htpasswd", users}, args...)
	b.cmd = exec.Command(filepath.Join(bin, "gantry"), args...)
	log, err := b.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 1)
	go func() {
		var text strings.Builder
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			text.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "the registry is served") {
				ready <- ""
			}
		}
		ready <- text.String()
	}()
	t.Cleanup(func() {
		_ = b.cmd.Process.Signal(syscall.SIGTERM)
		if err := b.cmd.Wait(); err != nil {
			t.Errorf("the registry ended: %v", err)
		}
	})
	if text := <-ready; text != "" {
		t.Fatalf("the registry did not start:\n%s", text)
	}
	return b
}

// The stock Docker CLI, through our engine, against our registry: with
// passwords, with tokens, and in TLS that is verified.
func TestDockerWithOurRegistry(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the docker client is not installed")
	}
	for name, args := range map[string][]string{
		"passwords": nil, "tokens": {"--tokens"}, "open to read": {"--anonymous-read"}, "tls": {"--tls-self-signed", "--tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			bin, err := enginetest.Programs(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			b := startRegistry(t, bin, args...)
			hosts := t.TempDir()
			if name == "tls" {
				trust(t, hosts, b)
			}
			e := startEngine(t, ctx, "--registry-hosts-dir", hosts)
			if err := e.ImportBusybox(); err != nil {
				t.Fatal(err)
			}
			config := t.TempDir()
			run := func(ok bool, args ...string) string {
				t.Helper()
				cmd := exec.Command(docker, args...)
				cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.Host(), "DOCKER_CONFIG="+config)
				out, err := cmd.CombinedOutput()
				if (err == nil) != ok {
					t.Fatalf("docker %s: %v\n%s\n%s", strings.Join(args, " "), err, out, e.Log())
				}
				return string(out)
			}
			image := b.addr + "/team/busybox:1"
			run(true, "tag", "busybox", image)
			run(false, "push", image)
			run(false, "login", "-u", "ann", "-p", "wrong", b.addr)
			run(true, "login", "-u", "ann", "-p", "secret", b.addr)
			run(true, "push", image)
			id := run(true, "inspect", "-f", "{{.Id}}", image)
			run(true, "rmi", image)
			run(true, "pull", image)
			if got := run(true, "inspect", "-f", "{{.Id}}", image); got != id {
				t.Errorf("pulled %s, pushed %s", got, id)
			}
			if out := run(true, "search", b.addr+"/busy"); !strings.Contains(out, "team/busybox") {
				t.Errorf("docker search finds\n%s", out)
			}
			run(true, "logout", b.addr)
			run(true, "rmi", image)
			run(name == "open to read", "pull", image)
			if out := run(true, "search", b.addr+"/busy"); strings.Contains(out, "team/busybox") != (name == "open to read") {
				t.Errorf("without a login docker search finds\n%s", out)
			}
		})
	}
}

// trust has an engine trust the authority of the registry, and only that.
func trust(t *testing.T, hosts string, b *box) {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(b.root, "tls", "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(hosts, b.addr)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
}
