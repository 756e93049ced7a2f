package apparmor

import (
	"os/exec"
	"strings"
	"testing"
)

// A profile the parser refuses would leave every container unconfined.
func TestProfileCompiles(t *testing.T) {
	parser, err := findParser()
	if err != nil {
		t.Skip("apparmor_parser is not installed; test/vmengine loads the profile into a kernel")
	}
	cmd := exec.Command(parser, "--skip-kernel-load", "--skip-cache")
	cmd.Stdin = strings.NewReader(profile)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestProfileName(t *testing.T) {
	if !strings.Contains(profile, "\nprofile "+DefaultProfile+" ") || !strings.Contains(profile, "peer="+DefaultProfile+",") {
		t.Errorf("the profile is not named %s:\n%s", DefaultProfile, profile)
	}
}
