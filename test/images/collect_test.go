package images

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry-containers/gantry/internal/image"
)

// collect asks for a collection.
func (f *fixture) collect(query string) *image.ReclaimReport {
	f.Helper()
	resp, err := f.client().Post("http://engine/v1.51/system/collect?"+query, "", nil)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	report := &image.ReclaimReport{}
	if err := json.NewDecoder(resp.Body).Decode(report); err != nil || resp.StatusCode != http.StatusOK {
		f.Fatalf("collect %s: %s, %v", query, resp.Status, err)
	}
	return report
}

// On a full disk the images nobody needs go by themselves, those that were used
// least recently first; a dry run tells before.
func TestCollection(t *testing.T) {
	f := newFixture(t, "", "--image-gc-idle", "1ns")
	if off := f.collect(""); off.Enabled || len(off.Images) != 0 {
		t.Errorf("collected without being asked to: %+v", off)
	}
	for _, name := range []string{"first", "second", "third"} {
		f.ok("run", "--name", "make", "busybox", "dd", "if=/dev/urandom", "of=/"+name, "bs=1k", "count=1000")
		f.ok("commit", "make", name)
		f.ok("rm", "make")
	}
	f.ok("run", "--name", "keeps", "second", "true")
	f.ok("run", "--rm", "first", "true")
	full := f.agree("with three images").LayersSize
	mark := full - 200<<10 // what else comes and goes is less than that
	dry := f.collect(fmt.Sprintf("dry-run=1&high=%d&low=%d", mark, mark))
	if !dry.DryRun || len(dry.Images) != 1 || strings.Join(dry.Images[0].Names, "") != "third:latest" || dry.Used > full || dry.Of != "images" {
		t.Errorf("a dry run tells %+v", dry)
	}
	f.agree("after a dry run")
	f.Kill(15)
	f.Args = append(f.Args, "--image-gc-high", fmt.Sprint(mark), "--image-gc-low", fmt.Sprint(mark))
	f.start()
	f.gone("third")
	now := f.agree("after the collection").LayersSize
	for deadline := time.Now().Add(20 * time.Second); full-now < dry.Reclaimed && time.Now().Before(deadline); { // its files go last
		now = f.agree("after the collection").LayersSize
	}
	// The container that was removed before leaves a directory or two.
	if freed := full - now; freed < dry.Reclaimed || freed > dry.Reclaimed+64<<10 {
		t.Errorf("%d bytes were freed where %d had been told", freed, dry.Reclaimed)
	}
	f.ok("image", "inspect", "first", "second", "busybox")
	if all := f.collect("high=1&low=1"); all.Short == 0 {
		t.Errorf("everything: %+v", all)
	}
	f.gone("first")
	f.ok("image", "inspect", "second", "busybox") // of a container, and what it was made from
	f.ok("rm", "keeps")
}

// gone waits until an image is no longer there.
func (f *fixture) gone(name string) {
	f.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		out, err := f.try("images", "-q", name)
		if err == nil && out == "" {
			return
		}
		if time.Now().After(deadline) {
			f.Fatalf("%s is still there: %v", name, err)
		}
	}
}

// Watermarks that make no sense are refused, by the daemon and by the API.
func TestBadWatermarks(t *testing.T) {
	f := newFixture(t, "")
	for query, want := range map[string]string{
		"high=much": "is no level of disk use", "low=50%25": "needs a high one", "high=50%25&low=1GB": "both be percentages",
	} {
		resp, err := f.client().Post("http://engine/v1.51/system/collect?"+query, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		b.ReadFrom(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(b.String(), want) {
			t.Errorf("%s: %s %s", query, resp.Status, &b)
		}
	}
	if out, err := f.Command(filepath.Join(f.Bin, "gantryd"), "--image-gc-high", "50%", "--image-gc-low", "60%").CombinedOutput(); err == nil || !strings.Contains(string(out), "above the high one") {
		t.Errorf("gantryd said %q, %v", out, err)
	}
}
