package fault

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantry-containers/gantry/internal/du"
)

// stored is what is in an image archive: the digests of its blobs.
type stored map[string]bool

// agree fails unless the store agrees with itself: each image can be saved, with
// every blob being what its digest says; what is on the disk is what the images
// and the containers name, and no more; and system df counts it.
func (f *fixture) agree(when string) {
	f.Helper()
	f.eventually(func() string {
		var images []struct{ ID string }
		if err := f.get("/images/json?all=1", &images); err != nil {
			return err.Error()
		}
		blobs, layers := stored{}, stored{}
		for _, image := range images {
			if err := f.saved(image.ID, blobs); err != nil {
				f.Fatalf("%s: cannot save image %s: %v", when, image.ID, err)
			}
			var config struct{ RootFS struct{ Layers []string } }
			if err := f.get("/images/"+image.ID+"/json", &config); err != nil {
				f.Fatalf("%s: %v", when, err)
			}
			for _, diffID := range config.RootFS.Layers {
				layers[strings.TrimPrefix(diffID, "sha256:")] = true
			}
		}
		if wrong := differ(blobs, f.below("blobs/sha256")); wrong != "" {
			return fmt.Sprintf("%s: blobs: %s", when, wrong) + f.text(blobs)
		}
		if wrong := differ(layers, f.below("overlayfs/layers")); wrong != "" {
			return fmt.Sprintf("%s: layers: %s", when, wrong)
		}
		if n := entries(filepath.Join(f.DataRoot(), "ingest")); n != 0 {
			return fmt.Sprintf("%s: %d files are half written", when, n)
		}
		return f.counted(when)
	})
}

// text shows what the blobs say that nobody names, if that is text.
func (f *fixture) text(named stored) (s string) {
	for name := range f.below("blobs/sha256") {
		b, err := os.ReadFile(filepath.Join(f.DataRoot(), "blobs/sha256", name))
		if err == nil && !named[name] && json.Valid(b) {
			s += fmt.Sprintf("\n%s: %s", name, b)
		}
	}
	return s
}

// below lists a directory of the data root.
func (f *fixture) below(dir string) stored {
	f.Helper()
	list, err := os.ReadDir(filepath.Join(f.DataRoot(), dir))
	if err != nil {
		f.Fatal(err)
	}
	there := stored{}
	for _, e := range list {
		there[e.Name()] = true
	}
	return there
}

func differ(want, got stored) string {
	var wrong []string
	for name := range want {
		if !got[name] {
			wrong = append(wrong, name+" is missing")
		}
	}
	for name := range got {
		if !want[name] {
			wrong = append(wrong, "nobody names "+name)
		}
	}
	return strings.Join(wrong, ", ")
}

// saved adds the digests of what an image consists of, and reads all of it.
func (f *fixture) saved(id string, blobs stored) error {
	c := f.api()
	c.Timeout = patience
	answer, err := c.Get("http://engine/images/" + id + "/get")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		b, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("%s: %s", answer.Status, b)
	}
	r := tar.NewReader(answer.Body)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(h.Name, "blobs/sha256/")
		if !ok || name == "" || h.Typeflag != tar.TypeReg {
			continue
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, r); err != nil {
			return err
		}
		if got := hex.EncodeToString(sum.Sum(nil)); got != name {
			return fmt.Errorf("blob %s has the digest %s", name, got)
		}
		blobs[name] = true
	}
}

// counted tells what is wrong with system df: it has to say what du says.
func (f *fixture) counted(when string) string {
	f.Helper()
	var df struct{ LayersSize int64 }
	if err := f.get("/system/df", &df); err != nil {
		return err.Error()
	}
	var want int64
	dirs := []string{"blobs", "ingest", "partial", "overlayfs"}
	for _, dir := range dirs {
		n, err := du.Tree(context.Background(), filepath.Join(f.DataRoot(), dir))
		if err != nil {
			f.Fatal(err)
		}
		want += n
	}
	snapshots, err := os.ReadDir(filepath.Join(f.DataRoot(), "overlayfs/snapshots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Fatal(err)
	}
	others := []string{"overlayfs/ahead"} // snapshots that are nobody's yet
	for _, s := range snapshots {
		others = append(others, filepath.Join("overlayfs/snapshots", s.Name()))
	}
	for _, dir := range others {
		n, err := du.Tree(context.Background(), filepath.Join(f.DataRoot(), dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.Fatal(err)
		}
		want -= n
	}
	if df.LayersSize != want {
		return fmt.Sprintf("%s: system df says %d, du %d", when, df.LayersSize, want)
	}
	return ""
}

// layout reads the one manifest of an unpacked image archive.
func (f *fixture) layout(dir string) (mediaType, digest string) {
	f.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	var index struct {
		Manifests []struct{ MediaType, Digest string }
	}
	if err == nil {
		err = json.Unmarshal(raw, &index)
	}
	if err != nil || len(index.Manifests) != 1 {
		f.Fatalf("index.json is %s, %v", raw, err)
	}
	return index.Manifests[0].MediaType, index.Manifests[0].Digest
}
