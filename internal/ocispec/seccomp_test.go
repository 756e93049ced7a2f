package ocispec

import (
	"bytes"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Containers share a profile only when it is the same for both.
func TestProfilesAreSharedByThoseThatAgree(t *testing.T) {
	encoded := func(source string, caps ...string) []byte {
		s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
		p, err := profiles.resolve(source, s)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := EncodeSeccomp(p)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	plain := encoded("", "CAP_CHOWN")
	if again := encoded("", "CAP_CHOWN"); &again[0] != &plain[0] {
		t.Error("an equal profile was encoded again")
	}
	if bytes.Equal(plain, encoded("", "CAP_CHOWN", "CAP_SYS_ADMIN")) {
		t.Error("a capability makes no difference to the built-in profile")
	}
	own := encoded(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}`, "CAP_CHOWN")
	if !bytes.Contains(own, []byte("mkdir")) || bytes.Equal(own, plain) {
		t.Errorf("a profile of one's own became %s", own)
	}
	for i := range 2 * maxProfiles {
		encoded("", "CAP_CHOWN", string(rune('a'+i)))
	}
	if len(profiles.chosen) > maxProfiles || len(profiles.encoded) > maxProfiles {
		t.Errorf("%d profiles are kept", len(profiles.chosen))
	}
}
