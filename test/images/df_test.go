package images

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/volume"
)

// usage is the answer to system df of API 1.51.
type usage struct {
	LayersSize int64
	Images     []image.Summary
	Containers []container.Summary
	Volumes    []volume.Volume
	BuildCache []any
}

// client talks to the engine, each time anew: it may have been restarted.
func (f *fixture) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", f.Socket)
	}}}
}

// get asks the API and decodes the answer.
func (f *fixture) get(path string, v any) {
	f.Helper()
	resp, err := f.client().Get("http://engine" + path)
	if err != nil {
		f.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil || resp.StatusCode != http.StatusOK {
		f.Fatalf("%s: %s, %v", path, resp.Status, err)
	}
}

// agree compares system df with du, kind by kind, until they agree: what was
// removed may still be taken apart.
func (f *fixture) agree(when string) usage {
	f.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		u, differ := f.compare()
		if differ == "" || time.Now().After(deadline) {
			if differ != "" {
				f.Errorf("%s: %s", when, differ)
			}
			return u
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (f *fixture) compare() (u usage, differ string) {
	f.Helper()
	f.get("/v1.51/system/df", &u)
	var containers, volumes int64
	for _, c := range u.Containers {
		containers += c.SizeRw
	}
	for _, v := range u.Volumes {
		volumes += v.UsageData.Size
	}
	for _, kind := range []struct {
		name      string
		got, want int64
	}{
		{"images", u.LayersSize, f.du("overlayfs", "vfs", "blobs", "ingest", "partial") - f.du("overlayfs/snapshots/*", "vfs/snapshots/*", "overlayfs/ahead")},
		{"containers", containers, f.du("overlayfs/snapshots/*", "vfs/snapshots/*", "containers/*")},
		{"volumes", volumes, f.du("volumes/*")},
	} {
		if kind.got != kind.want {
			differ += fmt.Sprintf("system df counts %d bytes for %s, du %d; ", kind.got, kind.name, kind.want)
		}
	}
	return u, differ
}

// What a person is told that can be freed must be there to be freed.
func TestDiskUsageIsWhatDuFinds(t *testing.T) {
	for _, driver := range []string{"overlayfs", "vfs"} {
		t.Run(driver, func(t *testing.T) {
			f := newFixture(t, "", "--storage-driver", driver)
			f.agree("with one image")
			f.ok("run", "-d", "--name", "one", "-v", "data:/data", "busybox", "sh", "-c",
				"dd if=/dev/zero of=/big bs=1k count=300; dd if=/dev/zero of=/data/in bs=1k count=100; truncate -s 20M /sparse; ln /big /big2; rm /bin/vi; echo done; sleep 1000")
			f.until("one", "done")
			f.ok("volume", "create", "empty")
			u := f.agree("with a container and volumes")
			if u.Images[0].Containers != 1 || u.Images[0].SharedSize != 0 {
				t.Errorf("the image: %+v", u.Images[0])
			}
			var list []image.Summary
			if f.get("/v1.51/images/json", &list); len(list) != 1 || list[0].Containers != 1 {
				t.Errorf("images: %+v", list)
			}
			f.ok("commit", "one", "made")
			u = f.agree("after a commit")
			for _, i := range u.Images {
				made := len(i.RepoTags) == 1 && i.RepoTags[0] == "made:latest"
				if made != (i.Containers == 0) || i.SharedSize == 0 || i.SharedSize >= i.Size {
					t.Errorf("images share busybox: %+v", i)
				}
			}
			f.ok("rm", "-f", "one")
			f.ok("rmi", "made")
			f.agree("after a removal")
			f.Kill(9)
			f.start()
			f.agree("after a restart")
			f.ok("volume", "prune", "-af")
			f.ok("image", "prune", "-af")
			if u = f.agree("with nothing"); len(u.Images)+len(u.Containers)+len(u.Volumes) != 0 {
				t.Errorf("left: %+v", u)
			}
		})
	}
}
