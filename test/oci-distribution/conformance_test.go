package conformance

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

const program = "github.com/opencontainers/distribution-spec/conformance"

// perSubject bounds one run of the program; it takes some seconds.
const perSubject = 3 * time.Minute

// subject is a registry under test.
type subject struct {
	name    string
	ours    bool
	address string
	env     []string // what the program is told besides
	// skips explains what the program may leave out, by a part of the names
	// of its checks. All the rest has to be run and passed.
	skips map[string]string
}

// everything has the program ask for what it leaves out by itself, as the
// specification does not demand it of all registries, and for what is to come
// with the next version. Left out is one thing: manifests some of whose content
// was never pushed, which a registry may refuse and ours does, as whoever pulls
// such a tag is left with a part of an image.
func everything() []string {
	return []string{
		"OCI_VERSION=dev", "OCI_DATA_SPARSE=false",
		"OCI_API_BLOBS_UPLOAD_CANCEL=true", "OCI_API_BLOBS_DIGEST_HEADER=true",
		"OCI_API_MANIFESTS_DIGEST_HEADER=true", "OCI_API_MANIFESTS_TAG_PARAM=true",
	}
}

// What a person would lose: that any tool which keeps to the specification works
// with this registry, whichever storage it is on.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute: left out of short runs")
	}
	dir := t.TempDir()
	suite := build(t, ".", filepath.Join(dir, "conformance"), program)
	gantryd := os.Getenv("GANTRY_BIN")
	if gantryd != "" {
		gantryd = filepath.Join(gantryd, "gantryd")
	} else {
		gantryd = build(t, "../..", filepath.Join(dir, "gantryd"), "./cmd/gantryd")
	}
	subjects := []subject{onDirectory(t, gantryd), onBucket(t, gantryd), withAccounts(t, gantryd)}
	if peer, ok := dockerRegistry(t); ok {
		subjects = append(subjects, peer)
	}
	table := newTable(subjects)
	for _, s := range subjects {
		table.add(s, run(t, suite, s))
	}
	table.report(t)
}

func build(t *testing.T, dir, to, what string) string {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", to, what)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot build %s: %v\n%s", what, err, out)
	}
	return to
}

// check is one request or comparison of the program.
type check struct {
	Name   string `xml:"name,attr"`
	Status string `xml:"status,attr"` // passed, skipped, failure, error
	Output string `xml:"system-out"`
}

// run has the program test a registry.
func run(t *testing.T, suite string, s subject) []check {
	t.Helper()
	results := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), perSubject)
	defer cancel()
	cmd := exec.CommandContext(ctx, suite)
	cmd.Dir = results
	cmd.Env = slices.Concat(os.Environ(), everything(), []string{
		"OCI_REGISTRY=" + s.address, "OCI_TLS=disabled", "OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two",
		"OCI_RESULTS_DIR=" + results, "OCI_LOG=error",
	}, s.env)
	// An exit code of 1 says that something failed: the report says what.
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		t.Fatalf("%s: the program did not come to its end: %v\n%s", s.name, err, out)
	}
	data, err := os.ReadFile(filepath.Join(results, "junit.xml"))
	if err != nil {
		t.Fatalf("%s: the program left no report: %v\n%s", s.name, err, out)
	}
	var report struct {
		Suites []struct {
			Checks []check `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(data, &report); err != nil {
		t.Fatalf("%s: the report cannot be read: %v", s.name, err)
	}
	var checks []check
	for _, suite := range report.Suites {
		checks = append(checks, suite.Checks...)
	}
	if len(checks) == 0 {
		t.Fatalf("%s: the program checked nothing:\n%s", s.name, out)
	}
	return checks
}

// table counts the checks of each part of the program, for each registry.
type table struct {
	subjects []subject
	parts    []string                     // in the program's order
	counts   map[string]map[string]*count // by part and subject
	failures map[string][]check           // by subject
	skipped  map[string][]check           // by subject
}

type count struct{ passed, failed, skipped int }

func newTable(subjects []subject) *table {
	return &table{subjects: subjects, counts: map[string]map[string]*count{}, failures: map[string][]check{}, skipped: map[string][]check{}}
}

// part is the second component of a name, "sha256 blobs" of "OCI Conformance
// Test/sha256 blobs/mount/blob-head".
func part(name string) string {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) < 2 {
		return name
	}
	return parts[1]
}

func (tb *table) add(s subject, checks []check) {
	for _, c := range checks {
		p := part(c.Name)
		if tb.counts[p] == nil {
			tb.counts[p] = map[string]*count{}
			tb.parts = append(tb.parts, p)
		}
		n := tb.counts[p][s.name]
		if n == nil {
			n = &count{}
			tb.counts[p][s.name] = n
		}
		switch c.Status {
		case "passed":
			n.passed++
		case "skipped":
			n.skipped++
			tb.skipped[s.name] = append(tb.skipped[s.name], c)
		default:
			n.failed++
			tb.failures[s.name] = append(tb.failures[s.name], c)
		}
	}
}

func (n *count) String() string {
	if n == nil {
		return "-"
	}
	text := fmt.Sprintf("%d/%d", n.passed, n.passed+n.failed)
	if n.skipped > 0 {
		text += fmt.Sprintf(" (%d skipped)", n.skipped)
	}
	return text
}

// report prints the table, and fails the test for whatever ours does not pass.
// What the program skips, it skips because a registry said that it cannot do it.
func (tb *table) report(t *testing.T) {
	t.Helper()
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "part")
	for _, s := range tb.subjects {
		fmt.Fprintf(w, "\t%s", s.name)
	}
	fmt.Fprintln(w)
	totals := map[string]*count{}
	for _, p := range tb.parts {
		fmt.Fprint(w, p)
		for _, s := range tb.subjects {
			n := tb.counts[p][s.name]
			fmt.Fprintf(w, "\t%s", n)
			if n == nil {
				continue
			}
			if totals[s.name] == nil {
				totals[s.name] = &count{}
			}
			total := totals[s.name]
			total.passed, total.failed, total.skipped = total.passed+n.passed, total.failed+n.failed, total.skipped+n.skipped
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "all")
	for _, s := range tb.subjects {
		fmt.Fprintf(w, "\t%s", totals[s.name])
	}
	fmt.Fprintln(w)
	w.Flush()
	t.Logf("passed/run of each part\n%s", text.String())
	for _, s := range tb.subjects {
		if !s.ours {
			continue
		}
		const shown = 20 // more say the same
		for _, c := range tb.failures[s.name][:min(len(tb.failures[s.name]), shown)] {
			t.Errorf("%s: %s: %s", s.name, c.Name, c.Output)
		}
		for _, c := range tb.skipped[s.name] {
			if !s.explains(c) {
				t.Errorf("%s: %s was skipped: %s", s.name, c.Name, c.Output)
			}
		}
		for what, why := range s.skips {
			t.Logf("%s skips %q: %s", s.name, what, why)
		}
	}
}

func (s subject) explains(c check) bool {
	for what := range s.skips {
		if strings.Contains(c.Name, what) {
			return true
		}
	}
	return false
}
