package story

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
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

// Another machine sees what is published to all addresses and nothing else, and
// containers reach it by the address of their host.
func TestOutside(t *testing.T) {
	outside := another(t)
	const web = "mkdir /w; echo served > /w/index.html; httpd -p 81 -h /w; exec httpd -f -p 80 -h /w"
	id := start(t, []string{"-p", "8081:80", "-p", "127.0.0.1:8082:80"}, "busybox", "sh", "-c", web)
	address := inspect[string](t, id, ".NetworkSettings.Networks.bridge.IPAddress")
	eventually(t, "the server answers", func() bool {
		return get("http://"+address+"/") == "served\n" && get("http://"+address+":81/") == "served\n"
	})
	request := func(target string) string {
		return outside(`printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 3 ` + target)
	}
	if got := request("192.0.2.1 8081"); !strings.HasSuffix(got, "served\n") {
		t.Errorf("the published port answered %q", got)
	}
	for _, target := range []string{"192.0.2.1 8082", address + " 81"} {
		if got := request(target); strings.Contains(got, "served") {
			t.Errorf("%s, which is not published to others, answered %q", target, got)
		}
	}
	served := make(chan string, 1)
	go func() { served <- outside("echo hi | nc -l -p 99 -w 10") }()
	eventually(t, "the other machine answers", func() bool {
		return try(t, "run", "--rm", "busybox", "nc", "-w", "2", "192.0.2.2", "99").stdout == "hi\n"
	})
	<-served
}

// another makes a machine next to this one, a network namespace with the address
// 192.0.2.2 that knows the way to containers, and returns what runs a script there.
func another(t *testing.T) func(script string) string {
	t.Helper()
	machine := exec.Command("busybox", "unshare", "-n", "busybox", "sleep", "1000")
	if err := machine.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { machine.Process.Kill(); machine.Wait() })
	pid := strconv.Itoa(machine.Process.Pid)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the namespace is there", func() bool {
		its, err := os.Readlink("/proc/" + pid + "/ns/net")
		return err == nil && its != own
	})
	in := "busybox nsenter -t " + pid + " -n busybox "
	for _, command := range []string{
		"busybox ip link add out0 type veth", // the other end is called veth0
		"busybox ip link set veth0 netns " + pid,
		"busybox ip addr add 192.0.2.1/24 dev out0",
		"busybox ip link set out0 up",
		in + "ip addr add 192.0.2.2/24 dev veth0",
		in + "ip link set veth0 up",
		in + "ip route add 172.16.0.0/12 via 192.0.2.1",
	} {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	return func(script string) string {
		out, _ := exec.Command("busybox", "nsenter", "-t", pid, "-n", "sh", "-c", script).CombinedOutput()
		return string(out)
	}
}
