package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"reflect"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
)

// TestSameRequests types the same command line into the stock Docker client and
// into gantry and compares what an engine hears: who moves from one to the other
// must get the same container.
func TestSameRequests(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the stock docker client is not installed")
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	files := strings.NewReplacer(
		"ENVFILE", write("env", "# comment\nA=1\n  B=two words \nHOME\nNOSUCHVAR\n"),
		"LABELFILE", write("labels", "x=1\ny\n"),
		"SECCOMP", write("seccomp.json", "{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\"\n}\n"),
		"TAR", write("a.tar", "not really"),
		"DIR", dir,
	)
	for _, line := range sameRequests() {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			args := strings.Split(files.Replace(line), " ")
			for i := range args {
				if strings.Contains(args[i], "*_") {
					args[i] = strings.ReplaceAll(args[i], "_", " ")
				}
			}
			theirs := run(t, docker, f.Host, args...)
			want := f.take()
			ours := run(t, "gantry", f.Host, args...)
			got := f.take()
			if want, got := message(theirs.Err), message(ours.Err); theirs.Code != 0 && want != got {
				t.Errorf("message\n%q, docker's is\n%q", got, want)
			}
			if theirs.Code != ours.Code {
				t.Errorf("exit code %d, docker's is %d\nours: %s\ntheirs: %s", ours.Code, theirs.Code, ours.Err, theirs.Err)
			}
			if diff := cmp.Diff(normalCalls(want), normalCalls(got)); diff != "" {
				t.Errorf("requests differ (-docker +gantry):\n%s", diff)
			}
		})
	}
}

// message is the first line without the program's name.
func message(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	line = strings.TrimPrefix(strings.TrimPrefix(line, "docker: "), "gantry: ")
	return strings.ToLower(strings.ReplaceAll(line, "docker", "gantry"))
}

// normalCalls keeps what an engine acts on. The stock client waits for detached
// containers, looks before it executes, and sends some fields that are empty.
func normalCalls(calls []call) []string {
	exec := false
	for _, c := range calls {
		exec = exec || strings.HasPrefix(c.Path, "/exec/")
	}
	attached := false
	for _, c := range calls {
		attached = attached || strings.HasSuffix(c.Path, "/attach")
	}
	var out []string
	for _, c := range calls {
		switch {
		case c.Path == "/info":
			continue // asked by inspect, about swarms
		case strings.HasSuffix(c.Path, "/wait") && !attached:
			continue
		case exec && c.Method == "GET" && strings.HasPrefix(c.Path, "/containers/"):
			continue
		case c.Query.Has("path") && c.Method == "HEAD":
			continue
		}
		c.Query.Del("linux")
		for name, values := range c.Query {
			if len(values) == 1 && values[0] == "" {
				c.Query.Del(name) // to an engine the same as none
			}
		}
		q := c.Query.Encode()
		out = append(out, fmt.Sprintf("%s %s?%s %s", c.Method, c.Path, q, flat(normalBody(c))))
	}
	sort.Strings(out)
	return out
}

func normalBody(c call) any {
	m, ok := c.Body.(map[string]any)
	if !ok {
		return c.Body
	}
	if c.Path == "/containers/create" {
		m = asRead(m)
	}
	sortStrings(m, "Env")   // the stock client sends them in a random order
	delete(m, "MacAddress") // repeated for engines before API 1.44
	if h, ok := m["HostConfig"].(map[string]any); ok {
		sortStrings(h, "Binds")
		delete(h, "KernelMemory")
	}
	delete(m, "KernelMemory")
	if m["AttachStdout"] != nil && m["HostConfig"] == nil {
		delete(m, "Detach") // of exec, which start repeats
	}
	return m
}

// asRead is a create as an engine reads it: a zero that is sent and one that is
// left out are the same, unless the field can tell them apart.
func asRead(sent map[string]any) (m map[string]any) {
	var request container.CreateRequest
	raw, err := json.Marshal(sent)
	if err == nil {
		err = json.Unmarshal(raw, &request)
	}
	if err == nil {
		raw, err = json.Marshal(&request)
	}
	if err != nil || json.Unmarshal(raw, &m) != nil {
		return sent
	}
	return m
}

func sortStrings(m map[string]any, key string) {
	list, _ := m[key].([]any)
	sort.Slice(list, func(i, j int) bool { return fmt.Sprint(list[i]) < fmt.Sprint(list[j]) })
}

// flat prints a body without what is empty: null, "", [], {} and absent mean
// the same to an engine. Zero and false are kept.
func flat(v any) string {
	var b strings.Builder
	flatten(&b, "", reflect.ValueOf(v))
	return b.String()
}

func flatten(b *strings.Builder, at string, v reflect.Value) {
	for v.IsValid() && v.Kind() == reflect.Interface {
		v = v.Elem()
	}
	switch {
	case !v.IsValid():
	case v.Kind() == reflect.Map:
		keys := v.MapKeys()
		sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
		for _, k := range keys {
			// A map to nothing is a set: its keys are its content.
			e := v.MapIndex(k).Elem()
			if e.IsValid() && e.Kind() == reflect.Map && e.Len() == 0 {
				fmt.Fprintf(b, "\n  %s.%s", at, k)
				continue
			}
			flatten(b, at+"."+k.String(), e)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			flatten(b, fmt.Sprintf("%s[%d]", at, i), v.Index(i))
		}
		// Empty, and not absent, switches the masking off.
		if v.Len() == 0 && (strings.HasSuffix(at, "MaskedPaths") || strings.HasSuffix(at, "ReadonlyPaths")) {
			fmt.Fprintf(b, "\n  %s=[]", at)
		}
	case v.Kind() == reflect.String && v.Len() == 0:
	default:
		fmt.Fprintf(b, "\n  %s=%v", at, v.Interface())
	}
}

// sameRequests are command lines; a blank separates arguments, and in device
// rules an underscore stands for one.
func sameRequests() []string {
	image := []string{}
	for _, flags := range runFlagLines() {
		image = append(image, strings.TrimSpace("create "+flags)+" busybox echo hi")
	}
	return append(image,
		"run busybox", "run -d busybox true", "run --rm busybox sh -c exit", "run -i busybox cat", "run -d -i busybox cat",
		"run -a stdout busybox", "run -a stdin -a stderr busybox", "run -d --rm --name n busybox", "run --detach-keys ctrl-x busybox",
		"container run --sig-proxy=false busybox",
		"start c", "start a b", "start -a c", "start -ai c",
		"stop c", "stop -t 3 -s INT c d", "restart c", "restart --timeout 0 c", "kill c", "kill -s HUP c", "pause c", "unpause c",
		"wait c", "rm c", "rm -fv c", "rm -l c", "rename a b", "container rm /c",
		"ps", "ps -a", "ps -n 3", "ps -l", "ps -s", "ps -q --no-trunc", "ps -f status=running -f label=a=b", "ps --format {{.Size}}", "ps --format json",
		"container ls -a", "container list",
		"inspect c", "inspect -s c", "inspect --type image c", "container inspect c", "image inspect c", "network inspect c", "volume inspect c",
		"logs c", "logs -f -t --details --tail 5 c", "logs --since 2020-01-02T03:04:05Z --until 1600000000.5 c",
		"exec c true", "exec -i -e A=1 -u root:0 -w /tmp --privileged c sh -c ls", "exec -d c true", "exec --env-file ENVFILE c env",
		"top c", "top c -o pid,comm", "diff c", "port c", "export c", "container export -o DIR/out.tar c",
		"update -m 64m --cpus 1.5 --restart always:0 c", "update --pids-limit 10 --cpuset-cpus 0 --memory-swap -1 -c 5 c d",
		"images", "images -a --digests busybox", "image ls -f dangling=true", "rmi a", "rmi -f --no-prune a b", "image rm --platform linux/arm64/v8 a",
		"tag a b", "tag a:1 localhost:5000/b/c:2", "history a", "save a b -o DIR/save.tar", "load -i TAR", "load -q -i TAR", "load --platform linux/amd64 -i TAR",
		"import TAR", "import -m msg -c CMD=x -c ENV=y TAR repo/x:tag",
		"pull busybox", "pull -q --platform linux/arm64 localhost:5000/a/b:tag", "pull -a busybox",
		"pull busybox@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"volume create", "volume create v -d local -o type=tmpfs -o device=tmpfs --label a=b", "volume ls -f dangling=true", "volume rm a b", "volume rm -f a",
		"volume prune -f", "volume prune -af --filter label=x", "container prune -f --filter until=24h", "image prune -f", "image prune -a -f",
		"network prune -f", "network prune -f --filter until=24h", "system prune -f", "system prune -a -f --filter label!=x",
		"network ls", "network ls -f driver=bridge", "version", "info", "system info",
		"push a", "push -q localhost:5000/a/b:tag", "push -a a", "push -a a:1", "push A", "push a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "image push --platform linux/arm64/v8 a:1", "push --disable-content-trust a",
		"commit c", "commit c repo", "commit -a me -m msg -c CMD=x -c ENV=y -p=false c localhost:5000/a/b:tag", "container commit --pause c Repo", "commit c a@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "commit",
		"search term", "search --limit 5 -f is-official=true -f stars=3 --no-trunc localhost:5000/term", "search", "search http://a/b",
		"login -u a -p b localhost:5000", "login --username a --password b", "login -u a --password-stdin localhost:5000", "login -u a http://localhost:5000/v2/", "login -u a -p b docker.io", "login -p x --password-stdin a", "login --password-stdin a", "login -u= -p x a", "login -u a -p= a", "login a b", "login -u a localhost:5000",
		"logout", "logout localhost:5000", "logout https://localhost:5000/v1/", "logout a b",
		"system df", "system df -v", "system prune -f", "system prune -af --volumes", "system prune -f --filter label=a", "system prune -f --volumes --filter until=1h", "images --tree", "images --tree -q", "images --tree --format x",
		"save --platform linux/arm64 -o DIR/save.tar a", "history --platform linux/arm64 a", "image inspect --platform linux/arm64 a", "import --platform linux/arm64 TAR a",
	)
}
