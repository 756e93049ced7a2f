package internal

import (
	"encoding/json"
	"os/exec"
	"sort"
	"strings"
	"testing"
)

const module = "github.com/gantry-containers/gantry/"

// arrows says which of our packages each room may import, itself and what is
// below it aside. It is ARCHITECTURE.md's list, held by a test; a new arrow is a
// decision and belongs into both.
func arrows() map[string]string {
	leaves := "errs filter mount"
	return map[string]string{
		"errs":         "",
		"filter":       "errs",
		"thread":       "",
		"mount":        "errs thread",
		"du":           "",
		"timerslack":   "",
		"ahead":        "thread topdir",
		"spawn":        "timerslack",
		"trash":        "",
		"topdir":       "",
		"heap":         "",
		"ocirt":        "spawn timerslack thread mount errs",
		"logs":         "errs",
		"portproxy":    "errs",
		"shim":         "ocirt spawn timerslack ahead heap logs portproxy thread " + leaves,
		"content":      "du errs",
		"layer":        "errs mount",
		"snapshot":     "du layer content topdir trash thread ahead " + leaves,
		"registry":     "errs content filter",
		"state":        "errs filter",
		"ocispec":      "mount errs",
		"ociruntime":   "ocirt shim spawn mount errs",
		"apparmor":     "",
		"image":        "state content snapshot layer registry " + leaves,
		"network":      "state portproxy shim ahead thread " + leaves,
		"volume":       "du state " + leaves,
		"container":    "du state shim snapshot layer logs ocispec ocirt topdir trash ahead heap " + leaves,
		"engine":       "apparmor container image network volume state content snapshot registry shim ocirt " + leaves,
		"server":       "engine container image network volume state logs ocirt " + leaves,
		"webui":        "errs",
		"registryd":    "registry webui errs",
		"daemonconfig": "engine logs errs",
		"daemon":       "server engine daemonconfig timerslack errs",
		"cli":          "errs",
		"manifest":     "cli registry errs",
		"enginetest":   "engine network ocirt shim state",
	}
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, patterns ...string) []listed {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, patterns...)...).Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p listed
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	return packages
}

func room(path string) string {
	rest, ok := strings.CutPrefix(path, module+"internal/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// What a person would lose: managers that know each other become one object
// nobody can change, and a client that links the engine takes long to start.
func TestImportsGoDownwards(t *testing.T) {
	allowed := arrows()
	for _, p := range list(t, "./...") {
		from := room(p.ImportPath)
		if from == "" {
			continue
		}
		may, known := allowed[from]
		if !known {
			t.Errorf("package %s is in no room of the table", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			to := room(imported)
			if to == "" || to == from || contains(may, to) {
				continue
			}
			t.Errorf("%s must not import %s", p.ImportPath, imported)
		}
	}
}

func contains(words, word string) bool {
	for _, w := range strings.Fields(words) {
		if w == word {
			return true
		}
	}
	return false
}

// The programs that are started often or hold what must stay small do not link
// what is slow to start or large.
func TestLeanProgramsStayLean(t *testing.T) {
	heavy := []string{"go.etcd.io/bbolt", "google.golang.org/grpc", "gopkg.in/yaml", "go.yaml.in", "sigs.k8s.io", "go.opentelemetry.io",
		"github.com/google/nftables", "oras.land", "github.com/klauspost/compress"}
	for program, extra := range map[string][]string{
		"gantry":      {"net/http", "crypto/tls", "crypto/x509", module + "internal/engine", module + "internal/server", module + "internal/shim", module + "internal/ocirt"},
		"gantry-shim": {"net/http", "github.com/moby/moby/api", module + "internal/container", module + "internal/state"},
		"gantry-init": {"net", module + "internal"},
	} {
		for _, p := range list(t, "-tags=lean", "../cmd/"+program) { // as the Makefile builds gantry
			var found []string
			for _, dep := range p.Deps {
				for _, bad := range append(heavy, extra...) {
					if dep == bad || strings.HasPrefix(dep, bad+"/") {
						found = append(found, dep)
					}
				}
			}
			sort.Strings(found)
			if len(found) > 0 {
				t.Errorf("%s links %s", program, strings.Join(found, ", "))
			}
		}
	}
}
