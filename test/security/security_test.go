// Package security attacks a real engine from inside its containers, the way
// those who broke out of others did, and by what containers, images and
// programs of the host may send to it. Each test says what a person would lose.
package security

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/enginetest"
)

var engine *enginetest.Engine

// attackEnv makes this test binary, inside a container, one of the attackers.
const attackEnv = "GANTRY_TEST_ATTACK"

func TestMain(m *testing.M) {
	if attack := os.Getenv(attackEnv); attack != "" {
		attacks[attack]()
		return
	}
	os.Exit(enginetest.One(m.Run, func(e *enginetest.Engine) error {
		engine = e
		return nil
	}))
}

// gantry runs a command that has to succeed.
func gantry(t *testing.T, args ...string) string {
	t.Helper()
	out, err := engine.Run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// attacker starts a container that runs one of the attacks and returns its ID.
func attacker(t *testing.T, attack string, flags ...string) string {
	t.Helper()
	args := append([]string{"run", "-d", "-e", attackEnv + "=" + attack, "-v", testBinary(t) + ":/attack:ro"}, flags...)
	id := gantry(t, append(args, "busybox", "/attack")...)
	t.Cleanup(func() { engine.Run("rm", "-f", "-v", id) })
	eventually(t, func() bool {
		out, err := engine.Run("logs", id)
		return err == nil && strings.Contains(out, "ready")
	})
	return id
}

// container starts a container that sleeps.
func container(t *testing.T, flags ...string) string {
	t.Helper()
	id := gantry(t, append(append([]string{"run", "-d"}, flags...), "busybox", "sleep", "300")...)
	t.Cleanup(func() { engine.Run("rm", "-f", "-v", id) })
	return id
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func eventually(t *testing.T, happened func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !happened(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen in 20 s")
		}
	}
}

func busybox(t *testing.T) []byte {
	t.Helper()
	archive, err := enginetest.Busybox()
	if err != nil {
		t.Fatal(err)
	}
	return archive
}
