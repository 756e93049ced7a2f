package story

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// The modules for bridges, pairs and nftables were not loaded before there was
// an engine: the kernel gets them when they are asked for.
func TestPublish(t *testing.T) {
	id := start(t, []string{"-p", "8080:80"}, "busybox", "sh", "-c", "mkdir /w; echo served > /w/index.html; exec httpd -f -p 80 -h /w")
	address := inspect[string](t, id, ".NetworkSettings.Networks.bridge.IPAddress")
	gateway := inspect[string](t, id, ".NetworkSettings.Networks.bridge.Gateway")
	eventually(t, "the server answers", func() bool { return get("http://"+address+"/") == "served\n" })
	for _, url := range []string{"http://127.0.0.1:8080/", "http://[::1]:8080/", "http://" + gateway + ":8080/"} {
		if got := get(url); got != "served\n" {
			t.Errorf("%s answered %q", url, got)
		}
	}
	for _, target := range []string{address + " 80", gateway + " 8080"} {
		o := try(t, "run", "--rm", "busybox", "sh", "-c", `printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 `+target)
		if !strings.HasSuffix(o.stdout, "served\n") {
			t.Errorf("from another container %s answered %q %s", target, o.stdout, o.stderr)
		}
	}
	if got := gantry(t, "port", id); !strings.Contains(got, "80/tcp -> 0.0.0.0:8080") {
		t.Errorf("port printed %q", got)
	}
	gantry(t, "rm", "-f", id)
	if got := get("http://127.0.0.1:8080/"); got == "served\n" {
		t.Error("the port answers after the container has gone")
	}
	modules, err := os.ReadFile("/proc/modules")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"overlay", "bridge", "veth", "nf_tables"} {
		if !strings.Contains("\n"+string(modules), "\n"+name+" ") {
			t.Errorf("the module %s is not loaded; what did the engine use?", name)
		}
	}
}

// get returns the body, or the error.
func get(url string) string {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
