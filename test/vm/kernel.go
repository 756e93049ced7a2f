package vm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// kernel is an unpacked Debian kernel package.
type kernel struct {
	image string // the file to boot
	tree  string // where the package was unpacked
	dir   string // its lib/modules/VERSION
}

// findKernel unpacks Debian's cloud kernel into the user's cache, unless it is
// there already.
func (a Arch) findKernel(meta string) (*kernel, error) {
	tree, err := cached(a.cacheName("kernel"), func(cache string) (*apt, string, error) {
		apt, err := a.apt(cache)
		if err != nil {
			return nil, "", err
		}
		name, err := apt.dependency(meta, "linux-image-")
		return apt, name, err
	})
	if err != nil {
		return nil, err
	}
	return openKernel(tree)
}

// cached returns a directory of the user's cache, filled with the package that
// is named if it was not there.
func cached(dir string, name func(cache string) (*apt, string, error)) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "gantry-test-vm")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	// One test process fetches, the others wait for it.
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	tree := filepath.Join(cache, dir)
	if _, err := os.Stat(tree); err == nil {
		return tree, nil
	}
	apt, pkg, err := name(cache)
	if err != nil {
		return "", err
	}
	return tree, apt.fetch(cache, pkg, tree)
}

func openKernel(tree string) (*kernel, error) {
	images, _ := filepath.Glob(filepath.Join(tree, "boot", "vmlinuz-*"))
	if len(images) == 0 {
		return nil, errors.New("the kernel package holds no vmlinuz")
	}
	version := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	k := &kernel{image: images[0], tree: tree, dir: filepath.Join(tree, "lib", "modules", version)}
	if _, err := os.Stat(k.dir); err != nil { // merged /usr
		k.dir = filepath.Join(tree, "usr", "lib", "modules", version)
	}
	return k, nil
}

// dependency is what a meta package stands for.
func (a *apt) dependency(meta, prefix string) (string, error) {
	out, err := a.command("apt-cache", "depends", meta).Output()
	if err != nil {
		return "", fmt.Errorf("cannot ask apt-cache for %s: %w", meta, err)
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, prefix) {
			return name, nil
		}
	}
	return "", fmt.Errorf("apt-cache knows no package %s", meta)
}

// fetch downloads a package and unpacks it as tree.
func (a *apt) fetch(cache, pkg, tree string) error {
	tmp, err := os.MkdirTemp(cache, "fetch")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	get := a.command("apt-get", "download", "-q", pkg)
	get.Dir = tmp
	if b, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot download %s: %w: %s", pkg, err, strings.TrimSpace(string(b)))
	}
	debs, _ := filepath.Glob(filepath.Join(tmp, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("apt-get brought %d files for %s", len(debs), pkg)
	}
	unpacked := filepath.Join(tmp, "tree")
	if b, err := exec.Command("dpkg-deb", "-x", debs[0], unpacked).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot unpack %s: %w: %s", pkg, err, strings.TrimSpace(string(b)))
	}
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	return os.Rename(unpacked, tree)
}

// modules lists the files of the named modules after those they depend on. What
// is built into the kernel needs no file.
func (k *kernel) modules(names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	if _, err := os.Stat(filepath.Join(k.dir, "modules.dep")); err != nil {
		// The package leaves this to its installation.
		if err := k.depmod(); err != nil {
			return nil, err
		}
	}
	deps, err := readDeps(filepath.Join(k.dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	var files []string
	seen := map[string]bool{}
	for _, name := range names {
		for path, needs := range deps {
			if moduleName(path) != moduleName(name) {
				continue
			}
			// modules.dep lists what a module needs with the deepest last.
			order := []string{path}
			order = append(order, needs...)
			for i := len(order) - 1; i >= 0; i-- {
				if !seen[order[i]] {
					seen[order[i]] = true
					files = append(files, filepath.Join(k.dir, order[i]))
				}
			}
		}
	}
	return files, nil
}

// depmod writes the tables of modprobe(8), by the program of kmod or of busybox.
func (k *kernel) depmod() error {
	args := []string{"depmod", "-b", k.tree, filepath.Base(k.dir)}
	if _, err := exec.LookPath("depmod"); err != nil {
		args = append([]string{"busybox"}, args...)
	}
	if b, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		os.Remove(filepath.Join(k.dir, "modules.dep"))
		return fmt.Errorf("cannot run depmod: %w: %s", err, strings.TrimSpace(string(b)))
	}
	return nil
}

// autoload maps the files modprobe(8) needs to load the named modules, by their
// path in the machine, to those of the host.
func (k *kernel) autoload(names []string) (map[string]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	mods, err := k.modules(names)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	in := filepath.Join("/lib/modules", filepath.Base(k.dir))
	for _, m := range mods {
		files[in+strings.TrimPrefix(m, k.dir)] = m
	}
	for _, table := range []string{"modules.dep", "modules.alias", "modules.symbols", "modules.builtin"} {
		files[filepath.Join(in, table)] = filepath.Join(k.dir, table)
	}
	return files, nil
}

func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".")
	return strings.ReplaceAll(name, "-", "_")
}

// readDeps reads modules.dep(5).
func readDeps(path string) (map[string][]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	deps := map[string][]string{}
	sc := bufio.NewScanner(f)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if mod, needs, ok := strings.Cut(sc.Text(), ":"); ok {
			deps[mod] = strings.Fields(needs)
		}
	}
	return deps, sc.Err()
}
