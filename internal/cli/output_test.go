package cli

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var ansi = regexp.MustCompile("\x1b\\[[0-9;]*m")

// TestSameOutput shows both clients the same engine and compares what they
// print: scripts read these tables.
func TestSameOutput(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("the stock docker client is not installed")
	}
	f := newFake(t)
	for route, body := range cannedAnswers() {
		f.answer(route, answer{body: body})
	}
	for _, args := range sameOutputs() {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			theirs := run(t, docker, f.Host, args...)
			ours := run(t, "gantry", f.Host, args...)
			// The stock client paints some of it although nobody looks on.
			theirs.Out = strings.ReplaceAll(ansi.ReplaceAllString(theirs.Out, ""), "'docker ", "'gantry ")
			if diff := cmp.Diff(inOrder(theirs.Out), inOrder(ours.Out)); diff != "" {
				t.Errorf("output differs (-docker +gantry):\n%s", diff)
			}
			if theirs.Code != ours.Code {
				t.Errorf("exit code %d, docker's is %d\n%s\n%s", ours.Code, theirs.Code, ours.Err, theirs.Err)
			}
		})
	}
}

// inOrder makes JSON comparable: the order of fields and those that are null
// do not matter to who reads it.
func inOrder(out string) string {
	if !strings.HasPrefix(out, "{") && !strings.HasPrefix(out, "[") {
		return out
	}
	var b strings.Builder
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var v any
		if dec.Decode(&v) != nil {
			return out
		}
		b.WriteString(flat(v) + "\n")
	}
	return b.String()
}

func sameOutputs() [][]string {
	lines := [][]string{
		{"ps"}, {"ps", "--no-trunc"}, {"ps", "-q"}, {"ps", "-q", "--no-trunc"}, {"ps", "-s"}, {"ps", "--format", "json"}, {"ps", "--format", "raw"},
		{"images"}, {"images", "--no-trunc"}, {"images", "-q"}, {"images", "--digests"}, {"images", "--format", "json"},
		{"history", "i"}, {"history", "--no-trunc", "i"}, {"history", "-H=false", "i"}, {"history", "-q", "i"}, {"history", "--format", "json", "i"},
		{"volume", "ls"}, {"volume", "ls", "-q"}, {"volume", "ls", "--format", "json"}, {"network", "ls"}, {"network", "ls", "-q"}, {"network", "ls", "--no-trunc"}, {"network", "ls", "--format", "json"},
		{"top", "c"}, {"diff", "c"}, {"port", "c"}, {"port", "c", "80"}, {"port", "c", "53/udp"}, {"port", "c", "1"}, {"port", "c", "x"},
		{"inspect", "c"}, {"inspect", "c", "c"}, {"inspect", "-f", "json", "c", "c"}, {"inspect", "nosuch"}, {"inspect", "-f", "{{.Id}}", "nosuch"}, {"inspect", "c", "nosuch"}, {"inspect", "--type", "volume", "v"},
		{"image", "inspect", "i"}, {"network", "inspect", "n"}, {"volume", "inspect", "v"}, {"wait", "c", "c"},
		{"stats", "--no-stream", "c"}, {"stats", "--no-stream", "--no-trunc", "c"}, {"stats", "--no-stream", "--format", "json", "c"}, {"stats", "--no-stream", "--format", "{{.Container}} {{.CPUPerc}}", "c"}, {"stats", "--no-stream"},
		{"version", "-f", "{{.Server.Version}} {{.Server.APIVersion}} {{.Server.Os}}/{{.Server.Arch}}"}, {"version", "-f", "{{json .Server}}"},
		{"info", "-f", "{{.ID}} {{.Driver}} {{.NCPU}} {{json .SecurityOptions}} {{.Swarm.LocalNodeState}}"},
		{"container", "prune", "-f"}, {"image", "prune", "-af"}, {"volume", "prune", "-f"}, {"rmi", "x"}, {"update", "-m", "5m", "c"},
		{"events", "--until", "2"}, {"events", "--until", "2", "--format", "json"}, {"events", "--until", "2", "--format", "{{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}}"},
		{"pull", "busybox"}, {"pull", "-q", "busybox"}, {"ps", "--nosuch"}, {"ps", "--format", "{{.Nosuch}}"}, {"ps", "--format", "{{"}, {"run"}, {"rm"}, {"rename", "a"}, {"ps", "x"}, {"port", "a", "b", "c"}, {"images", "a", "b"},
		{"push", "busybox"}, {"push", "-q", "busybox:1"}, {"push", "-a", "busybox"}, {"push", "broken"}, {"commit", "c"}, {"commit", "nosuch"},
		{"search", "x"}, {"search", "--no-trunc", "x"}, {"search", "--format", "json", "x"}, {"search", "--format", "{{.Name}} {{.StarCount}} {{.IsOfficial}}", "x"}, {"search", "--format", "table {{.Name}}\t{{.IsOfficial}}", "x"},
		{"system", "df"}, {"system", "df", "--format", "json"}, {"system", "df", "--format", "raw"}, {"system", "df", "--format", "{{.Type}} {{.Size}} {{.Reclaimable}}"}, {"system", "df", "--format", "table {{.Type}}\t{{.Active}}"},
		{"system", "df", "-v"}, {"system", "df", "-v", "--format", "json"}, {"system", "df", "-v", "--format", "raw"}, {"system", "df", "-v", "--format", "{{range .Images}}{{.Repository}} {{.UniqueSize}};{{end}} {{range .BuildCache}}{{.ID}}{{end}}"},
		{"images", "--tree"}, {"images", "--tree", "-a"}, {"system", "prune", "-f"}, {"system", "prune", "-af", "--volumes"},
		{"login", "-u", "a", "-p", "b", "localhost:5000"}, {"logout"}, {"logout", "localhost:5000"}, {"logout", "http://localhost:5000/v1/"},
		{"logs", "c"}, {"stop", "nosuch"}, {"rm", "-f", "nosuch"}, {"start", "nosuch"}, {"kill", "c", "nosuch", "c"}, {"restart", "nosuch", "c"},
	}
	for _, text := range []string{
		"table {{.ID}}\t{{.Names}}", `table {{.ID}}\t{{.Names}}\t{{.Label "com.example.some-key"}}`, "{{.Names}}: {{.Command}}", "{{json .Names}} {{upper .Image}} {{lower .State}} {{title .Status}}",
		"{{pad .ID 2 3}}|{{truncate .Image 5}}|{{join (split .Names \",\") \"+\"}}", "{{json .}}", "table {{.Names}}\t{{upper .State}}\t{{.Size}}", "{{.Mounts}} {{.Networks}} {{.LocalVolumes}} {{.Labels}}",
		"{{.CreatedAt}} {{.RunningFor}}", "{{println .Names}}", `table {{.Names}}\t{{.Ports}}`, "{{range $i, $e := split .Names \",\"}}{{$e}};{{end}}", "{{if eq .State \"running\"}}up{{end}}", "{{len .Names}} {{index (split .Image \":\") 0}}",
	} {
		lines = append(lines, []string{"ps", "-a", "--no-trunc", "--format", text}, []string{"ps", "-a", "--format", text})
	}
	for _, text := range []string{
		"{{.Id}}", "{{.ID}} {{.Name}}", "{{.State.Status}} {{.State.Pid}} {{.State.Running}} {{.State.ExitCode}}", "{{json .Config}}", "{{.Config.Env}} {{index .Config.Labels \"a\"}}|{{index .Config.Labels \"nosuch\"}}|",
		"{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.Gateway}} {{.MacAddress}}|{{.IPv6Gateway}}{{end}}", "{{.NetworkSettings.IPAddress}}", "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}",
		"{{range $p, $b := .NetworkSettings.Ports}}{{$p}} -> {{range $b}}{{.HostIP}}:{{.HostPort}} {{end}}{{end}}", "{{range .Mounts}}{{.Type}} {{.Destination}} {{.RW}}{{end}}", "{{.HostConfig.Memory}} {{.HostConfig.NetworkMode}} {{.HostConfig.Binds}}",
		"{{json .State}}", "{{.Nosuch}}", "{{.HostConfig.PortBindings}}", "{{if .State.Running}}yes{{end}}", "{{len .Config.Env}}", "{{.Created}}", "{{json .NetworkSettings.Ports}}", "{{.HostConfig.RestartPolicy.Name}}", "{{.Config.Healthcheck}}",
		"{{.State.Health}}", "{{.Config.Cmd}} {{.Config.Entrypoint}} {{.Path}} {{.Args}}", "{{eq .HostConfig.Memory 0}}", "{{.UnknownToClients.Value}}", "{{.Config.Volumes}}", "{{.HostConfig.Dns}}", "{{.HostConfig.DNS}}", "{{.LogPath}}",
	} {
		lines = append(lines, []string{"inspect", "-f", text, "c"})
	}
	for _, text := range []string{"{{.Id}} {{.RepoTags}}", "{{.Config.Cmd}} {{.Config.Env}}", "{{.Size}} {{.Os}}/{{.Architecture}}", "{{json .RootFS.Layers}}", "{{index .RepoDigests 0}}", "{{.Config.WorkingDir}}", "{{.Config.ExposedPorts}}"} {
		lines = append(lines, []string{"image", "inspect", "-f", text, "i"})
	}
	for _, text := range []string{"{{.Name}} {{.ID}}", "{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}}{{end}}", "{{range .Containers}}{{.Name}} {{.IPv4Address}}{{end}}", "{{.Options}} {{.EnableIPv6}} {{.Driver}}"} {
		lines = append(lines, []string{"network", "inspect", "-f", text, "n"})
	}
	return lines
}

func cannedAnswers() map[string]string {
	now := time.Now().Unix()
	id := func(c string) string { return strings.Repeat(c, 64) }
	containers := fmt.Sprintf(`[
	 {"Id":"%s","Names":["/web","/other/alias"],"Image":"nginx:1.25","ImageID":"sha256:%s","Command":"/docker-entrypoint.sh nginx -g 'daemon off;'","Created":%d,
	  "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"PrivatePort":443,"Type":"tcp"},{"PrivatePort":444,"Type":"tcp"},{"IP":"127.0.0.1","PrivatePort":53,"PublicPort":53,"Type":"udp"},{"IP":"127.0.0.1","PrivatePort":54,"PublicPort":54,"Type":"udp"}],
	  "SizeRw":1095,"SizeRootFs":187654321,"Labels":{"com.example.some-key":"v <&>","a":"b"},"State":"running","Status":"Up 5 minutes (healthy)","HostConfig":{"NetworkMode":"default"},
	  "NetworkSettings":{"Networks":{"bridge":{"IPAddress":"172.17.0.2","MacAddress":"02:42:ac:11:00:02"}}},"Mounts":[{"Type":"volume","Name":"averyveryverylongvolumename","Source":"","Destination":"/x","Driver":"local","Mode":"z","RW":true,"Propagation":""},{"Type":"bind","Source":"/host","Destination":"/y","Mode":"","RW":true,"Propagation":"rprivate"}]},
	 {"Id":"%s","Names":["/zwei"],"Image":"sha256:%s","ImageID":"sha256:%s","Command":"sh","Created":%d,"Ports":[],"Labels":{},"State":"exited","Status":"Exited (0) 2 weeks ago","HostConfig":{"NetworkMode":"none"},"NetworkSettings":{"Networks":{}},"Mounts":[]},
	 {"Id":"%s","Names":["/drei"],"Image":"registry.example:5000/team/app:v1@sha256:%s","ImageID":"sha256:%s","Command":"a\"b","Created":%d,"Ports":null,"Labels":null,"State":"created","Status":"Created","HostConfig":{},"NetworkSettings":null,"Mounts":null}]`,
		id("a"), id("1"), now-300, id("b"), id("2"), id("2"), now-14*86400-5, id("c"), id("3"), id("3"), now-61)
	images := fmt.Sprintf(`[
	 {"Id":"sha256:%s","ParentId":"","RepoTags":["busybox:latest"],"RepoDigests":["busybox@sha256:%s"],"Created":%d,"Size":4261502,"SharedSize":-1,"Labels":null,"Containers":-1,"Manifests":[
	   {"ID":"sha256:aa11111111111111","Available":true,"Kind":"image","Size":{"Content":100000,"Total":300000},"ImageData":{"Platform":{"os":"linux","architecture":"amd64"},"Size":{"Unpacked":200000},"Containers":["x"]}},
	   {"ID":"sha256:bb11111111111111","Available":false,"Kind":"image","Size":{"Content":0,"Total":0},"ImageData":{"Platform":{"os":"linux","architecture":"arm","variant":"v7"},"Size":{"Unpacked":0},"Containers":[]}},
	   {"ID":"sha256:cc11111111111111","Available":true,"Kind":"attestation","Size":{"Content":555,"Total":555},"AttestationData":{"For":"sha256:aa"}}]},
	 {"Id":"sha256:%s","ParentId":"","RepoTags":[],"RepoDigests":[],"Created":1,"Size":0,"SharedSize":5,"Labels":{"a":"b"},"Containers":2},
	 {"Id":"sha256:%s","ParentId":"","RepoTags":null,"RepoDigests":["localhost:5000/x/y@sha256:%s"],"Created":%d,"Size":123456789,"SharedSize":-1,"Labels":null,"Containers":0}]`,
		id("1"), id("9"), now-3600, id("2"), id("3"), id("8"), now-86400*400)
	container := containerJSON(id("a"))
	stats := `{"name":"/web","id":"` + id("a") + `","read":"2024-01-01T00:00:02Z","preread":"2024-01-01T00:00:01Z","pids_stats":{"current":7},"networks":{"eth0":{"rx_bytes":12345,"tx_bytes":678}},
	 "memory_stats":{"usage":50000000,"limit":2000000000,"stats":{"inactive_file":10000000}},"blkio_stats":{"io_service_bytes_recursive":[{"major":8,"minor":0,"op":"read","value":4096},{"major":8,"minor":0,"op":"Write","value":8192}]},
	 "cpu_stats":{"cpu_usage":{"total_usage":300000000},"system_cpu_usage":20000000000,"online_cpus":2},"precpu_stats":{"cpu_usage":{"total_usage":100000000},"system_cpu_usage":18000000000,"online_cpus":2}}`
	return map[string]string{
		"GET /containers/json":                        containers,
		"GET /images/json":                            images,
		"GET /containers/c/json":                      container,
		"GET /containers/v/json":                      container,
		"GET /containers/c/stats":                     stats,
		"GET /containers/" + id("a")[:12] + "/stats":  stats,
		"GET /containers/" + id("b")[:12] + "/stats":  strings.ReplaceAll(stats, id("a"), id("b")),
		"GET /containers/" + id("c")[:12] + "/stats":  strings.ReplaceAll(stats, id("a"), id("c")),
		"GET /images/i/json":                          imageJSON(id("1"), id("9")),
		"GET /images/i/history":                       fmt.Sprintf(`[{"Id":"sha256:%s","Created":%d,"CreatedBy":"/bin/sh -c #(nop)\tCMD [\"sh\"] and something longer than that","Tags":["busybox:latest"],"Size":0,"Comment":"c"},{"Id":"<missing>","Created":1,"CreatedBy":"x","Tags":null,"Size":4261502,"Comment":""}]`, id("1"), now-7200),
		"GET /volumes":                                `{"Volumes":[{"Name":"v10","Driver":"local","Mountpoint":"/m/v10","Scope":"local","Labels":{"a":"b"},"Options":null},{"Name":"v2","Driver":"local","Mountpoint":"/m/v2","Scope":"local","Labels":null,"Options":null,"UsageData":{"Size":1000,"RefCount":2}}],"Warnings":null}`,
		"GET /volumes/v":                              `{"Name":"v","Driver":"local","Mountpoint":"/m/v","Scope":"local","Labels":{"a":"b"},"Options":null,"CreatedAt":"2024-01-02T03:04:05Z"}`,
		"GET /networks":                               `[{"Name":"host","Id":"` + id("d") + `","Driver":"host","Scope":"local","Created":"2024-01-02T03:04:05.000000006Z","EnableIPv4":true,"IPAM":{"Config":[]}},{"Name":"bridge","Id":"` + id("e") + `","Driver":"bridge","Scope":"local","Created":"2024-01-02T03:04:05Z","EnableIPv4":true,"Labels":{"x":"y"},"IPAM":{"Config":[{"Subnet":"172.17.0.0/16"}]}}]`,
		"GET /networks/n":                             `{"Name":"n","Id":"` + id("e") + `","Driver":"bridge","Scope":"local","Created":"2024-01-02T03:04:05Z","EnableIPv4":true,"Options":{"a":"b"},"Containers":{"` + id("a") + `":{"Name":"web","EndpointID":"x","MacAddress":"02:42:ac:11:00:02","IPv4Address":"172.17.0.2/16","IPv6Address":""}},"IPAM":{"Driver":"default","Config":[{"Subnet":"172.17.0.0/16"}]}}`,
		"GET /containers/c/top":                       `{"Titles":["UID","PID","CMD"],"Processes":[["root","1","sleep 1000"],["root","22","sh"]]}`,
		"GET /containers/c/changes":                   `[{"Path":"/etc","Kind":0},{"Path":"/etc/new","Kind":1},{"Path":"/gone","Kind":2}]`,
		"POST /containers/c/wait":                     `{"StatusCode":137}`,
		"POST /containers/c/update":                   `{"Warnings":["one","two"]}`,
		"POST /containers/prune":                      `{"ContainersDeleted":["` + id("a") + `"],"SpaceReclaimed":12345}`,
		"POST /images/prune":                          `{"ImagesDeleted":[{"Untagged":"x:1"},{"Deleted":"sha256:` + id("a") + `"}],"SpaceReclaimed":1234567}`,
		"POST /images/docker.io/library/busybox/push": `{"status":"The push refers to repository [docker.io/library/busybox]"}` + "\n" + `{"status":"Preparing","progressDetail":{},"id":"abc"}` + "\n" + `{"status":"Pushing","progressDetail":{"current":5,"total":10},"progress":"[=> ] 5B/10B","id":"abc"}` + "\n" + `{"status":"Pushed","progressDetail":{},"id":"abc"}` + "\n" + `{"status":"latest: digest: sha256:1 size: 527"}` + "\n" + `{"progressDetail":{},"aux":{"Tag":"latest","Digest":"sha256:1","Size":527}}` + "\n" + `{"aux":{"manifestPushedInsteadOfIndex":true,"originalIndex":{"digest":"sha256:2"},"selectedManifest":{"digest":"sha256:3"}}}` + "\n",
		"POST /images/docker.io/library/broken/push":  `{"status":"The push refers to repository [docker.io/library/broken]"}` + "\n" + `{"errorDetail":{"message":"denied: no"},"error":"denied: no"}` + "\n",
		"POST /commit":                                `{"Id":"sha256:` + id("a") + `"}`,
		"POST /auth":                                  `{"Status":"Login Succeeded","IdentityToken":""}`,
		"GET /images/search":                          `[{"name":"x","description":"` + strings.Repeat("long ", 12) + `\nend","is_official":true,"star_count":17,"is_automated":false},{"name":"a/x","description":"","is_official":false,"star_count":0}]`,
		"POST /networks/prune":                        `{"NetworksDeleted":["n1","n2"]}`,
		"POST /build/prune":                           `{"CachesDeleted":["c1"],"SpaceReclaimed":99}`,
		"GET /system/df":                              dfJSON(id, containers, now),
		"POST /volumes/prune":                         `{"VolumesDeleted":null,"SpaceReclaimed":7}`,
		"DELETE /images/x":                            `[{"Untagged":"x:latest"},{"Deleted":"sha256:` + id("a") + `"}]`,
		"GET /version":                                `{"Platform":{"Name":"Test"},"Version":"1.2.3","ApiVersion":"1.50","MinAPIVersion":"1.24","Os":"linux","Arch":"amd64","GitCommit":"abc","GoVersion":"go1","KernelVersion":"6","BuildTime":"2024-01-02T03:04:05Z","Components":[{"Name":"Engine","Version":"1.2.3","Details":{"ApiVersion":"1.50","Os":"linux"}}]}`,
		"GET /info":                                   `{"ID":"x","Driver":"overlay2","NCPU":2,"SecurityOptions":["name=seccomp,profile=builtin"],"Swarm":{"LocalNodeState":"inactive"},"OSType":"linux"}`,
		"GET /events":                                 `{"status":"start","id":"` + id("a") + `","from":"busybox","Type":"container","Action":"start","Actor":{"ID":"` + id("a") + `","Attributes":{"name":"web","image":"busybox"}},"scope":"local","time":1,"timeNano":1000000002}` + "\n" + `{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{}},"time":1}` + "\n",
		"POST /images/create":                         `{"status":"Pulling from library/busybox","id":"latest"}` + "\n" + `{"status":"Pulling fs layer","progressDetail":{},"id":"abc"}` + "\n" + `{"status":"Downloading","progressDetail":{"current":5,"total":10},"progress":"[=> ] 5B/10B","id":"abc"}` + "\n" + `{"status":"Pull complete","progressDetail":{},"id":"abc"}` + "\n" + `{"status":"Digest: sha256:1"}` + "\n" + `{"status":"Status: Downloaded newer image for busybox:latest"}` + "\n",
	}
}

// dfJSON has a build cache, which our engine has not, and an image of three
// platforms, of which one is not here.
func dfJSON(id func(string) string, containers string, now int64) string {
	return fmt.Sprintf(`{"LayersSize":130000000,"Containers":%s,
	 "Images":[{"Id":"sha256:%s","RepoTags":["busybox:latest","b:1"],"RepoDigests":["busybox@sha256:%s"],"Created":%d,"Size":4261502,"SharedSize":261502,"Containers":1},
	  {"Id":"sha256:%s","RepoTags":null,"RepoDigests":[],"Created":%d,"Size":123456789,"SharedSize":0,"Containers":0}],
	 "Volumes":[{"Name":"v10","Driver":"local","UsageData":{"Size":4096,"RefCount":1}},{"Name":"v2","Driver":"local","UsageData":{"Size":12345,"RefCount":0}},{"Name":"v3","Driver":"x","UsageData":{"Size":-1,"RefCount":0}}],
	 "BuildCache":[{"ID":"%s","Parents":["%s","%s"],"Type":"regular","Description":"d","InUse":true,"Shared":false,"Size":1000,"CreatedAt":"2024-01-02T03:04:05Z","LastUsedAt":"2024-02-02T03:04:05Z","UsageCount":3},
	  {"ID":"%s","Type":"source.local","Description":"e","InUse":false,"Shared":true,"Size":500,"CreatedAt":"2024-01-02T03:04:05Z","LastUsedAt":null,"UsageCount":1},{"ID":"zz","Type":"regular","Size":7000,"CreatedAt":"2024-01-02T03:04:05Z","LastUsedAt":"2024-01-03T03:04:05Z"}]}`,
		containers, id("1"), id("9"), now-3600, id("2"), now-86400, id("4"), id("5"), id("6"), id("7"))
}

func containerJSON(id string) string {
	return `{"Id":"` + id + `","Created":"2024-01-02T03:04:05.678Z","Path":"sh","Args":["-c","true"],"Name":"/web","RestartCount":0,"Driver":"overlay2","Platform":"linux","LogPath":"/l",
	 "State":{"Status":"running","Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":4242,"ExitCode":0,"Error":"","StartedAt":"2024-01-02T03:04:06Z","FinishedAt":"0001-01-01T00:00:00Z"},
	 "Image":"sha256:1","HostConfig":{"Binds":["/a:/b"],"Memory":0,"NetworkMode":"default","Dns":["1.1.1.1"],"RestartPolicy":{"Name":"no","MaximumRetryCount":0},"PortBindings":{"80/tcp":[{"HostIp":"","HostPort":"8080"}]}},
	 "Mounts":[{"Type":"bind","Source":"/a","Destination":"/b","Mode":"","RW":true,"Propagation":"rprivate"}],
	 "Config":{"Hostname":"h","Env":["A=1","B=2"],"Cmd":["sh"],"Entrypoint":null,"Image":"busybox","Labels":{"a":"b"},"Volumes":null,"ExposedPorts":{"80/tcp":{}}},
	 "UnknownToClients":{"Value":17},
	 "NetworkSettings":{"IPAddress":"172.17.0.2","Gateway":"172.17.0.1","Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"53/udp":[{"HostIp":"127.0.0.1","HostPort":"53"}],"443/tcp":null},
	 "Networks":{"bridge":{"IPAddress":"172.17.0.2","Gateway":"172.17.0.1","MacAddress":"02:42:ac:11:00:02","IPv6Gateway":"","IPPrefixLen":16}}}}`
}

func imageJSON(id, digest string) string {
	b, _ := json.Marshal(map[string]any{
		"Id": "sha256:" + id, "RepoTags": []string{"busybox:latest"}, "RepoDigests": []string{"busybox@sha256:" + digest}, "Size": 4261502, "Os": "linux", "Architecture": "amd64",
		"RootFS": map[string]any{"Type": "layers", "Layers": []string{"sha256:x"}},
		"Config": map[string]any{"Cmd": []string{"sh"}, "Env": []string{"PATH=/bin"}, "WorkingDir": "/", "ExposedPorts": map[string]any{"80/tcp": map[string]any{}}},
	})
	return string(b)
}
