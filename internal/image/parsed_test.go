package image

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/distribution/reference"
)

// A reference means the same whenever it is read, and reading many does not fill the
// memory.
func TestParsedRefs(t *testing.T) {
	var p parsedRefs
	hex := strings.Repeat("0123456789abcdef", 4)
	for range 2 {
		for ref, want := range map[string]string{
			"busybox":         "docker.io/library/busybox:latest",
			"host:5000/a/b:c": "host:5000/a/b:c",
			"a@sha256:" + hex: "docker.io/library/a@sha256:" + hex,
			hex:               "sha256:" + hex,
			"sha256:" + hex:   "sha256:" + hex,
		} {
			parsed, err := p.parse(ref)
			if err != nil || parsed.String() != want {
				t.Errorf("%s is %v, %v", ref, parsed, err)
			}
			if named, ok := parsed.(reference.Named); ok {
				if again, err := parseName(ref); err != nil || !reflect.DeepEqual(again, named) {
					t.Errorf("%s is %v, and %v by parseName: %v", ref, named, again, err)
				}
			}
		}
		if _, err := p.parse("No:good:"); err == nil {
			t.Error("a bad reference was parsed")
		}
	}
	for i := range 10 * maxParsedRefs {
		if _, err := p.parse(fmt.Sprint("image", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.refs) > maxParsedRefs {
		t.Errorf("%d are kept", len(p.refs))
	}
}
