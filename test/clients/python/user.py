"""What a user of docker-py does, with an engine at DOCKER_HOST that has the image
busybox, and a registry at REGISTRY. Prints a line for each step: PASS, FAIL or
SKIP, its name and, after a colon, the reason."""

import io
import os
import socket
import struct
import sys
import tarfile
import threading
import time
import traceback
import urllib.request

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import LogConfig, Mount, Ulimit

client = docker.from_env(timeout=60)
registry = os.environ.get("REGISTRY", "")
steps = []


class Skip(Exception):
    """Raised by a step that cannot be done here."""


def step(f):
    steps.append(f)
    return f


def same(got, want):
    assert got == want, f"got {got!r}, want {want!r}"


def fails(kind, f, *args, status=None, text="", **kwargs):
    """f raises kind, with the status and the text in its explanation."""
    try:
        got = f(*args, **kwargs)
    except kind as e:
        if status is not None:
            same(e.status_code, status)
        said = str(getattr(e, "explanation", None) or e)
        assert text in said, f"says {said!r}, not {text!r}"
        return e
    raise AssertionError(f"returned {got!r}, want {kind.__name__}")


def archive(files):
    b = io.BytesIO()
    with tarfile.open(fileobj=b, mode="w") as t:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o640
            t.addfile(info, io.BytesIO(content))
    return b.getvalue()


def unpack(chunks):
    t = tarfile.open(fileobj=io.BytesIO(b"".join(chunks)))
    return {m.name: (t.extractfile(m).read() if m.isfile() else None) for m in t.getmembers()}


class sleeper:
    """A container that sleeps until its name is not needed any longer."""

    def __init__(self, command="sleep 1000", **kwargs):
        self.command, self.kwargs = command, kwargs

    def __enter__(self):
        self.container = client.containers.run("busybox", self.command, detach=True, **self.kwargs)
        return self.container

    def __exit__(self, *_):
        self.container.remove(force=True, v=True)


def wait_log(c, text):
    for line in c.logs(stream=True, follow=True):
        if text in line:
            return
    raise AssertionError(f"{text!r} is not in the log")


@step
def run_returns_the_output():
    same(client.containers.run("busybox", ["echo", "hello world"], remove=True), b"hello world\n")
    same(client.containers.run("busybox", "echo a b", remove=True), b"a b\n")


@step
def run_with_stderr():
    out = client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], remove=True, stderr=True)
    same(sorted(out.split()), [b"err", b"out"])
    same(client.containers.run("busybox", ["sh", "-c", "echo out; echo err >&2"], remove=True, stdout=False, stderr=True), b"err\n")


@step
def run_streams_the_log():
    out = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3; do echo $i; done"], stream=True, auto_remove=False)
    same(b"".join(out), b"1\n2\n3\n")
    c = client.containers.list(all=True, limit=1)[0]
    same(c.attrs["Config"]["Cmd"][0], "sh")
    c.remove()


@step
def run_fails_with_container_error():
    e = fails(ContainerError, client.containers.run, "busybox", ["sh", "-c", "echo bad >&2; exit 3"], remove=True)
    same((e.exit_status, e.stderr, e.image), (3, b"bad\n", "busybox"))
    same(client.containers.list(all=True, filters={"ancestor": "busybox"}), [])


@step
def run_of_a_command_that_is_missing():
    fails(APIError, client.containers.run, "busybox", ["/no/such"], remove=True, status=400, text="no such file or directory")


@step
def run_of_an_image_that_is_missing():
    # docker-py pulls it then; there is nothing to be had at this address.
    fails(APIError, client.containers.run, "127.0.0.1:1/none:1", text="connection refused")


@step
def create_with_many_options():
    c = client.containers.create(
        "busybox", ["sh", "-c", "sleep 1000"], name="many", hostname="h1", domainname="example.org", user="web", working_dir="/tmp",
        environment={"A": "1", "B": "x y"}, labels={"l": "1"}, mem_limit="64m", mem_reservation="32m", memswap_limit="128m",
        cpu_shares=512, cpu_period=100000, cpu_quota=50000, cpuset_cpus="0", pids_limit=50, shm_size="16m",
        cap_add=["NET_ADMIN"], cap_drop=["MKNOD"], dns=["127.0.0.9"], dns_search=["example.org"], dns_opt=["ndots:2"],
        extra_hosts={"other": "10.0.0.7"}, tmpfs={"/scratch": "size=1m,mode=1770"}, read_only=True, init=True,
        ulimits=[Ulimit(name="nofile", soft=100, hard=200)], sysctls={"net.ipv4.ip_unprivileged_port_start": "80"},
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2}, stop_signal="SIGINT", ipc_mode="private",
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m", "labels": "l"}),
        security_opt=["no-new-privileges"], oom_score_adj=100, group_add=["50"],
        devices=["/dev/null:/dev/none:rw"], device_cgroup_rules=["c 42:* rmw"], ports={"80/tcp": None, "53/udp": ("127.0.0.1", 0)},
        healthcheck={"test": ["CMD", "true"], "interval": 60 * 10**9, "retries": 2}, stdin_open=True, volumes=["/data"],
        mounts=[Mount("/m", "clientsmount", labels={"v": "1"}), Mount("/t", None, type="tmpfs", tmpfs_size=4096)],
    )
    try:
        same(c.status, "created")
        a, h = c.attrs["Config"], c.attrs["HostConfig"]
        same(c.name, "many")
        same((a["Hostname"], a["Domainname"], a["User"], a["WorkingDir"]), ("h1", "example.org", "web", "/tmp"))
        assert {"A=1", "B=x y"} <= set(a["Env"]), a["Env"]
        same((a["Labels"], c.labels), ({"l": "1"}, {"l": "1"}))
        same((a["OpenStdin"], a["Tty"], a["StopSignal"], a["Volumes"]), (True, False, "SIGINT", {"/data": {}}))
        same(a["Healthcheck"], {"Test": ["CMD", "true"], "Interval": 60 * 10**9, "Retries": 2})
        same(sorted(a["ExposedPorts"]), ["53/udp", "80/tcp"])
        same((h["Memory"], h["MemoryReservation"], h["MemorySwap"], h["ShmSize"]), (64 << 20, 32 << 20, 128 << 20, 16 << 20))
        same((h["CpuShares"], h["CpuPeriod"], h["CpuQuota"], h["CpusetCpus"], h["PidsLimit"]), (512, 100000, 50000, "0", 50))
        same((h["CapDrop"], h["CapAdd"]), (["MKNOD"], ["NET_ADMIN"]))
        same((h["Dns"], h["DnsSearch"], h["DnsOptions"], h["ExtraHosts"]), (["127.0.0.9"], ["example.org"], ["ndots:2"], ["other:10.0.0.7"]))
        same((h["Tmpfs"], h["ReadonlyRootfs"], h["Init"]), ({"/scratch": "size=1m,mode=1770"}, True, True))
        same(h["Ulimits"], [{"Name": "nofile", "Soft": 100, "Hard": 200}])
        same(h["RestartPolicy"], {"Name": "on-failure", "MaximumRetryCount": 2})
        same(h["LogConfig"], {"Type": "json-file", "Config": {"max-size": "1m", "labels": "l"}})
        same((h["SecurityOpt"], h["OomScoreAdj"], h["GroupAdd"]), (["no-new-privileges"], 100, ["50"]))
        same(h["Devices"], [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/none", "CgroupPermissions": "rw"}])
        same(h["PortBindings"]["53/udp"], [{"HostIp": "127.0.0.1", "HostPort": "0"}])
        c.start()
        c.reload()
        same(c.status, "running")
        run = lambda cmd: c.exec_run(["sh", "-c", cmd]).output.decode().strip()
        same(run("id -u; id -g; id -G; pwd; hostname; echo $A $B; ulimit -n; cat /proc/sys/net/ipv4/ip_unprivileged_port_start"),
             "33\n34\n34 50\n/tmp\nh1\n1 x y\n100\n80")
        same(run("cat /proc/1/oom_score_adj; touch /x 2>&1; touch /scratch/x 2>&1; grep -c other /etc/hosts"), "100\ntouch: /x: Read-only file system\ntouch: /scratch/x: Permission denied\n1")
        same(sorted(run("cat /etc/resolv.conf | grep -v '^#'").split("\n")), ["nameserver 127.0.0.9", "options ndots:2", "search example.org"])
        same(c.attrs["State"]["Health"]["Status"], "starting")
        same(sorted(m["Destination"] for m in c.attrs["Mounts"]), ["/data", "/m", "/t"])
        same(client.volumes.get("clientsmount").attrs["Labels"], {"v": "1"})
        ports = c.ports
        assert int(ports["80/tcp"][0]["HostPort"]) > 0 and ports["53/udp"][0]["HostIp"] == "127.0.0.1", ports
    finally:
        c.remove(force=True, v=True)
        client.volumes.get("clientsmount").remove()


@step
def ports_answer():
    with sleeper(["sh", "-c", "mkdir /www; echo served >/www/index.html; exec httpd -f -h /www"], ports={"80/tcp": ("127.0.0.1", None)}) as c:
        c.reload()
        port = c.ports["80/tcp"][0]["HostPort"]
        for _ in range(100):
            try:
                same(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read(), b"served\n")
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise AssertionError("the port does not answer")
        settings = c.attrs["NetworkSettings"]
        assert settings["IPAddress"] == settings["Networks"]["bridge"]["IPAddress"] != "", settings


@step
def a_port_in_use():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen()
    port = s.getsockname()[1]
    c = client.containers.create("busybox", "true", ports={"80/tcp": ("127.0.0.1", port)})
    try:
        fails(APIError, c.start, text="already")
    finally:
        c.remove()
        s.close()


@step
def volumes_and_binds():
    v = client.volumes.create("clientsvol", labels={"a": "b"})
    try:
        same((v.name, v.attrs["Driver"], v.attrs["Labels"], v.attrs["Scope"]), ("clientsvol", "local", {"a": "b"}, "local"))
        out = client.containers.run("busybox", ["sh", "-c", "echo kept >/v/f; cat /b/hostname"], remove=True,
                                    volumes={"clientsvol": {"bind": "/v", "mode": "rw"}, "/etc": {"bind": "/b", "mode": "ro"}})
        same(out.decode().strip(), open("/etc/hostname").read().strip())
        same(client.containers.run("busybox", "cat /v/f", remove=True, volumes=["clientsvol:/v:ro"]), b"kept\n")
        e = fails(ContainerError, client.containers.run, "busybox", "touch /v/g", remove=True, volumes=["clientsvol:/v:ro"])
        assert b"Read-only" in e.stderr, e.stderr
        with sleeper(volumes=["clientsvol:/v"]):
            fails(APIError, v.remove, status=409, text="volume is in use")
        same([x.name for x in client.volumes.list(filters={"label": "a=b"})], ["clientsvol"])
        same([x.name for x in client.volumes.list(filters={"name": "clientsvo"})], ["clientsvol"])
    finally:
        v.remove()
    fails(NotFound, client.volumes.get, "clientsvol", status=404, text="clientsvol")
    assert "VolumesDeleted" in client.volumes.prune(), "no report"


@step
def exec_run_in_its_forms():
    with sleeper() as c:
        same(tuple(c.exec_run("echo hi")), (0, b"hi\n"))
        same(c.exec_run(["sh", "-c", "exit 9"]).exit_code, 9)
        same(c.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True).output, (b"out\n", b"err\n"))
        same(c.exec_run(["sh", "-c", "echo $V; pwd; id -un"], environment={"V": "w"}, workdir="/tmp", user="web").output, b"w\n/tmp\nweb\n")
        code, stream = c.exec_run(["sh", "-c", "echo 1; echo 2; echo 3"], stream=True)
        same((code, b"".join(stream)), (None, b"1\n2\n3\n"))
        _, stream = c.exec_run(["sh", "-c", "echo o; echo e >&2"], stream=True, demux=True)
        parts = list(stream)
        same((b"".join(o or b"" for o, _ in parts), b"".join(e or b"" for _, e in parts)), (b"o\n", b"e\n"))
        same(c.exec_run(["sh", "-c", "[ -t 0 ] && [ -t 1 ] && echo tty"], tty=True, stdin=True).output, b"tty\r\n")
        assert not c.exec_run("true", detach=True).output
        same(c.exec_run("/no/such").exit_code, 127)
        assert b"no such file or directory" in c.exec_run("/no/such").output, c.exec_run("/no/such")
        same(c.exec_run("/etc").exit_code, 126)


@step
def exec_with_a_socket():
    with sleeper() as c:
        _, sock = c.exec_run("cat", stdin=True, socket=True)
        raw = sock._sock
        raw.sendall(b"over the socket\n")
        raw.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := sock.read(8192):
            got += chunk
        same(got[0], 1)
        same(struct.unpack(">I", got[4:8])[0], len(got) - 8)
        same(got[8:], b"over the socket\n")
        _, sock = c.exec_run("sh", stdin=True, tty=True, socket=True)
        sock._sock.sendall(b"echo in a $((40+2)); exit\n")
        got = b""
        while chunk := sock.read(8192):
            got += chunk
        assert b"in a 42\r\n" in got, got


@step
def exec_by_the_low_level_client():
    with sleeper() as c:
        api = client.api
        e = api.exec_create(c.id, ["sh", "-c", "read x; stty size; exit 4"], stdin=True, tty=True)["Id"]
        same({k: api.exec_inspect(e)[k] for k in ("ID", "Running", "ExitCode", "OpenStdin", "ContainerID")},
             {"ID": e, "Running": False, "ExitCode": None, "OpenStdin": True, "ContainerID": c.id})
        same(api.exec_inspect(e)["ProcessConfig"], {"tty": True, "entrypoint": "sh", "arguments": ["-c", "read x; stty size; exit 4"], "privileged": False})
        sock = api.exec_start(e, tty=True, socket=True)
        api.exec_resize(e, height=33, width=77)
        assert api.exec_inspect(e)["Running"] and api.exec_inspect(e)["Pid"] > 0
        sock._sock.sendall(b"\n")
        got = b""
        while chunk := sock.read(8192):
            got += chunk
        assert b"33 77" in got, got
        i = api.exec_inspect(e)
        same((i["Running"], i["ExitCode"]), (False, 4))
        same(fails(APIError, api.exec_inspect, "f" * 64).status_code, 404)
    fails(NotFound, client.api.exec_create, "nosuch", "true", status=404, text="No such container: nosuch")


@step
def exec_in_a_container_that_does_not_run():
    c = client.containers.create("busybox", "true")
    try:
        fails(APIError, c.exec_run, "true", status=409, text="is not running")
    finally:
        c.remove()


@step
def archives_in_and_out():
    with sleeper() as c:
        same(c.put_archive("/tmp", archive({"a": b"one", "d/b": b"two"})), True)
        bits, stat = c.get_archive("/tmp/d")
        same(unpack(bits)["d/b"], b"two")
        same(stat["name"], "d")
        assert stat["mode"] & 0x80000000, stat
        bits, stat = c.get_archive("/tmp/a")
        same((stat["name"], stat["size"], stat["mode"], stat["linkTarget"]), ("a", 3, 0o640, ""))
        assert stat["mtime"].startswith("1970-01-01T"), stat
        same(unpack(bits), {"a": b"one"})
        same(c.exec_run("cat /tmp/d/b").output, b"two")
        bits, stat = c.get_archive("/bin/sh", encode_stream=True)
        assert len(b"".join(bits)) > 500000 and stat["size"] > 500000, stat
        fails(NotFound, c.get_archive, "/no/such", status=404, text="Could not find the file /no/such in container")
        fails(NotFound, c.put_archive, "/no/such", archive({"a": b""}), status=404, text="Could not find the file /no/such in container")
        fails(APIError, c.put_archive, "/etc/passwd", archive({"a": b""}), status=400, text="extraction point is not a directory")


@step
def logs_in_their_forms():
    c = client.containers.run("busybox", ["sh", "-c", "for i in 1 2 3 4; do echo o$i; done; echo e1 >&2"], detach=True)
    try:
        same(c.wait()["StatusCode"], 0)
        same(c.logs(stderr=False), b"o1\no2\no3\no4\n")
        same(c.logs(stdout=False), b"e1\n")
        same(c.logs(tail=2).count(b"\n"), 2)
        same(b"".join(c.logs(stream=True, follow=True, stderr=False)), b"o1\no2\no3\no4\n")
        stamped = c.logs(timestamps=True, stderr=False).decode().split("\n")[0]
        when, text = stamped.split(" ")
        same((text, when[-1], when[10], len(when)), ("o1", "Z", "T", 30))
        same(c.logs(since=int(time.time()) + 60), b"")
        same(c.logs(until=int(time.time()) - 3600), b"")
        same(c.attach(stdout=True, stderr=True, logs=True).count(b"\n"), 5)
    finally:
        c.remove()


@step
def a_life():
    c = client.containers.run("busybox", ["sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"], detach=True, name="life")
    try:
        wait_log(c, b"ready")
        c.reload()
        state = c.attrs["State"]
        same((state["Status"], state["Running"], state["Paused"], state["ExitCode"], state["OOMKilled"], state["Dead"], state["Error"]),
             ("running", True, False, 0, False, False, ""))
        assert state["Pid"] > 0 and state["FinishedAt"] == "0001-01-01T00:00:00Z", state
        c.pause()
        c.reload()
        same(c.status, "paused")
        fails(APIError, c.pause, status=409, text="already paused")
        c.unpause()
        fails(APIError, c.unpause, text="is not paused")
        c.rename("lives")
        c.reload()
        same(c.name, "lives")
        top = c.top()
        same(top["Titles"][-1], "CMD")
        assert any("sleep" in " ".join(p) or "trap" in " ".join(p) for p in top["Processes"]), top
        same(c.top(ps_args="-o pid,comm")["Titles"], ["PID", "COMMAND"])
        c.exec_run("touch /new")
        assert {"Path": "/new", "Kind": 1} in c.diff(), c.diff()
        c.update(mem_limit="100m", memswap_limit="200m", cpu_shares=256)
        c.reload()
        same((c.attrs["HostConfig"]["Memory"], c.attrs["HostConfig"]["CpuShares"]), (100 << 20, 256))
        stats = c.stats(stream=False)
        assert stats["memory_stats"]["usage"] > 0 and stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0, stats
        assert stats["name"] == "/lives" and stats["id"] == c.id and "eth0" in stats["networks"], stats
        many = c.stats(decode=True)
        next(many)
        second = next(many)
        assert second["precpu_stats"]["system_cpu_usage"] <= second["cpu_stats"]["system_cpu_usage"] and second["preread"] < second["read"], second
        c.stop(timeout=20)
        c.reload()
        same((c.status, c.attrs["State"]["ExitCode"]), ("exited", 7))
        same(c.wait(), {"StatusCode": 7})
        c.start()
        c.restart(timeout=0)
        c.reload()
        same(c.status, "running")
        c.kill()
        same(c.wait()["StatusCode"], 137)
        fails(APIError, c.kill, status=409, text="is not running")
        fails(APIError, c.kill, "SIGNOPE", text="")
    finally:
        c.remove(force=True)
    fails(NotFound, client.containers.get, c.id, status=404, text=f"No such container: {c.id}")


@step
def wait_for_conditions():
    c = client.containers.create("busybox", "true")
    got = {}
    waits = [threading.Thread(target=lambda k=k: got.__setitem__(k, c.wait(condition=k, timeout=30))) for k in ("next-exit", "removed")]
    for w in waits:
        w.start()
    same(c.wait(condition="not-running")["StatusCode"], 0)
    while c.status != "exited":
        c.start()
        c.wait()
        c.reload()
    c.remove()
    for w in waits:
        w.join(30)
    assert "removed" in got, got


@step
def list_with_filters():
    with sleeper(name="listed", labels={"color": "red", "n": ""}, ports={"8080/tcp": None}, network_mode="bridge") as c:
        only = lambda **f: [x.name for x in client.containers.list(all=True, filters=f)]
        c.reload()
        port = c.ports["8080/tcp"][0]["HostPort"]
        for f in ({"name": "liste"}, {"name": "^/?listed$"}, {"id": c.short_id}, {"label": "color"}, {"label": ["color=red", "n"]}, {"status": "running"},
                  {"ancestor": "busybox"}, {"expose": "8080/tcp"}, {"publish": port + "/tcp"}, {"network": "bridge"}, {"is-task": "false"}, {"health": "none"}):
            same(only(**f), ["listed"])
        for f in ({"label": "color=blue"}, {"name": "nope"}, {"status": "exited"}, {"exited": 3}, {"publish": "8080/tcp"}, {"before": c.id}, {"since": c.id}, {"volume": "none"}):
            same(only(**f), [])
        fails(APIError, client.containers.list, filters={"odd": "1"}, status=400, text="invalid filter")
        fails(APIError, client.containers.list, filters={"status": "odd"}, status=400, text="odd")
        raw = client.api.containers(filters={"name": "listed"}, size=True)[0]
        same((raw["Names"], raw["Image"], raw["Command"], raw["State"], raw["Labels"], raw["HostConfig"]["NetworkMode"]),
             (["/listed"], "busybox", "sleep 1000", "running", {"color": "red", "n": ""}, "bridge"))
        assert raw["SizeRootFs"] > 500000 and raw["Status"].startswith("Up ") and raw["ImageID"].startswith("sha256:"), raw
        same(raw["Ports"][0]["PrivatePort"], 8080)


@step
def attach_with_a_socket():
    c = client.containers.create("busybox", "cat", stdin_open=True)
    try:
        sock = c.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        c.start()
        sock._sock.sendall(b"typed\n")
        sock._sock.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := sock.read(8192):
            got += chunk
        same(got[8:], b"typed\n")
    finally:
        c.remove(force=True)


@step
def a_terminal():
    c = client.containers.create("busybox", "sh", stdin_open=True, tty=True)
    try:
        sock = c.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        c.start()
        c.resize(height=40, width=100)
        sock._sock.sendall(b"stty size; exit 5\n")
        got = b""
        while chunk := sock.read(8192):
            got += chunk
        assert b"40 100\r\n" in got, got
        same(c.wait()["StatusCode"], 5)
        assert b"40 100\r\n" in c.logs(), c.logs()
    finally:
        c.remove(force=True)


@step
def images():
    i = client.images.get("busybox")
    assert i.tags == ["busybox:latest"] and i.id.startswith("sha256:"), i.tags
    same((i.attrs["Os"], i.attrs["Architecture"], i.attrs["Config"]["Cmd"], i.attrs["RootFS"]["Type"]), ("linux", "amd64", ["sh"], "layers"))
    same(i.tag("clients/other", tag="v1"), True)
    i.reload()
    same(sorted(i.tags), ["busybox:latest", "clients/other:v1"])
    same([x.id for x in client.images.list(name="clients/other")], [i.id])
    same([x.id for x in client.images.list(filters={"reference": "clients/*"})], [i.id])
    assert i.history()[0]["Id"] == i.id and set(i.history()[0]) >= {"Comment", "Created", "CreatedBy", "Size", "Tags"}, i.history()
    saved = b"".join(i.save(named="clients/other:v1"))
    assert {"manifest.json"} <= set(tarfile.open(fileobj=io.BytesIO(saved)).getnames())
    client.images.remove("clients/other:v1")
    fails(ImageNotFound, client.images.get, "clients/other:v1", status=404, text="No such image: clients/other:v1")
    same([sorted(x.tags) for x in client.images.load(saved)], [["busybox:latest", "clients/other:v1"]])
    client.images.remove("clients/other:v1", force=True, noprune=True)
    fails(ImageNotFound, client.images.remove, "none:1", status=404, text="No such image: none:1")
    assert set(client.images.prune(filters={"dangling": True})) == {"ImagesDeleted", "SpaceReclaimed"}


@step
def import_and_commit():
    api = client.api
    got = api.import_image_from_data(archive({"f": b"1"}), repository="clients/imported", tag="v1")
    assert '"status":"sha256:' in got.replace(" ", ""), got
    i = client.images.get("clients/imported:v1")
    c = client.containers.create("busybox", "true")
    c.put_archive("/", archive({"committed": b"yes"}))
    made = c.commit("clients/committed", "v2", message="said", author="me", changes='CMD ["cat","/committed"]', conf={"Labels": {"x": "y"}})
    c.remove()
    same((made.attrs["Comment"], made.attrs["Author"], made.tags), ("said", "me", ["clients/committed:v2"]))
    same(made.attrs["Config"]["Cmd"], ["cat", "/committed"])
    same(client.containers.run("clients/committed:v2", remove=True), b"yes")
    client.images.remove(made.id)
    client.images.remove(i.id)


@step
def export():
    c = client.containers.create("busybox", "true")
    try:
        c.put_archive("/", archive({"exported": b"yes"}))
        same(unpack(c.export())["exported"], b"yes")
    finally:
        c.remove()


@step
def push_and_pull():
    if not registry:
        raise Skip("there is no registry")
    name = f"{registry}/clients/py"
    i = client.images.get("busybox")
    i.tag(name, "v1")
    lines = list(client.images.push(name, "v1", stream=True, decode=True, auth_config={"username": "u", "password": "p"}))
    assert not any("error" in x for x in lines), lines
    same(lines[0]["status"], f"The push refers to repository [{name}]")
    aux = [x["aux"] for x in lines if "aux" in x]
    same(aux[0]["Tag"], "v1")
    digest = aux[0]["Digest"]
    data = client.images.get_registry_data(f"{name}:v1")
    same((data.id, data.has_platform("linux/amd64")), (digest, True))
    client.images.remove(f"{name}:v1")
    pulled = client.images.pull(name, tag="v1")
    same((pulled.id, pulled.attrs["RepoDigests"]), (i.id, [f"{name}@{digest}"]))
    last = list(client.api.pull(name, tag="v1", stream=True, decode=True))
    same(last[-1]["status"], f"Status: Image is up to date for {name}:v1")
    same(client.images.pull(f"{name}@{digest}").id, i.id)
    same([x.id for x in client.images.pull(name, all_tags=True)], [i.id])
    client.images.remove(f"{name}:v1")
    fails(NotFound, client.images.pull, name, tag="none", status=404, text="manifest")
    lines = list(client.api.push(f"{registry}/none", tag="v1", stream=True, decode=True))
    assert any("error" in x and "errorDetail" in x for x in lines), lines


@step
def events():
    got = []
    stream = client.events(decode=True, filters={"label": "watch=me"})

    def read():
        for e in stream:
            got.append(e)
            if e["Action"] == "destroy":
                return

    t = threading.Thread(target=read)
    t.start()
    began = time.time()
    c = client.containers.run("busybox", "true", detach=True, labels={"watch": "me"}, name="watched")
    c.wait()
    c.remove()
    t.join(30)
    stream.close()
    names = [e["Action"] for e in got]
    same(names, ["create", "start", "die", "destroy"])
    e = got[0]
    same((e["Type"], e["id"], e["status"], e["from"], e["Actor"]["ID"], e["scope"]), ("container", c.id, "create", "busybox", c.id, "local"))
    same({k: e["Actor"]["Attributes"][k] for k in ("image", "name", "watch")}, {"image": "busybox", "name": "watched", "watch": "me"})
    assert e["timeNano"] // 10**9 == e["time"] >= int(began) - 1, e
    die = [e for e in got if e["Action"] == "die"][0]
    same(die["Actor"]["Attributes"]["exitCode"], "0")
    past = list(client.events(decode=True, since=int(began) - 1, until=int(time.time()) + 1, filters={"container": c.id, "event": ["start", "die"]}))
    same([x["Action"] for x in past], ["start", "die"])


@step
def system():
    same(client.ping(), True)
    v = client.version()
    assert {"Version", "ApiVersion", "MinAPIVersion", "Os", "Arch", "KernelVersion", "GoVersion", "Components"} <= set(v), v
    i = client.info()
    assert i["Images"] >= 1 and i["NCPU"] == os.cpu_count() and i["OSType"] == "linux", i
    df = client.df()
    assert {"LayersSize", "Images", "Containers", "Volumes"} <= set(df), df
    same(client.networks.list(names=["bridge"])[0].attrs["Driver"], "bridge")
    same(client.networks.get("host").attrs["Driver"], "host")


@step
def old_versions():
    for version in ("1.24", "1.30", "1.40", "1.44", "auto"):
        old = docker.from_env(version=version)
        same(old.containers.run("busybox", "echo old", remove=True), b"old\n")
        assert old.info()["Driver"] and old.images.list()[0].id
        old.close()
    fails(APIError, docker.from_env(version="1.99").ping, status=400, text="client version 1.99 is too new")


@step
def bad_requests():
    fails(APIError, client.containers.create, "busybox", name="not a name", status=400, text="Invalid container name (not a name)")
    fails(APIError, client.containers.create, "busybox", mem_limit=1000, status=400, text="Minimum memory limit allowed is 6MB")
    fails(ImageNotFound, client.containers.create, "none:1", status=404, text="No such image: none:1")
    fails(APIError, client.containers.create, "busybox", volumes=["/x:relative"], status=400, text="mount path")
    with sleeper(name="taken") as c:
        fails(APIError, client.containers.create, "busybox", name="taken", status=409, text=f'The container name "/taken" is already in use by container "{c.id}"')
        fails(APIError, c.remove, status=409, text="container is running")


@step
def prune():
    c = client.containers.create("busybox", "true", labels={"pruned": "1"})
    got = client.containers.prune(filters={"label": "pruned=1"})
    same((got["ContainersDeleted"], type(got["SpaceReclaimed"])), ([c.id], int))


@step
def a_pseudo_terminal_of_dockerpty():
    try:
        import dockerpty
    except ImportError:
        raise Skip("python3-dockerpty is not installed")
    c = client.containers.create("busybox", ["sh", "-c", "read x; echo got $x"], stdin_open=True, tty=False)
    ours, theirs = os.pipe()
    try:
        stdin, stdout = os.fdopen(ours, "rb", 0), open("/dev/null", "wb", 0)
        os.write(theirs, b"by pty\n")
        dockerpty.start(client.api, c.attrs, stdin=stdin, stdout=stdout, stderr=stdout)
        c.wait()
        same(c.logs(), b"got by pty\n")
    finally:
        os.close(theirs)
        c.remove(force=True)


def main():
    failed = False
    for f in steps:
        if len(sys.argv) > 1 and f.__name__ not in sys.argv[1:]:
            continue
        began = time.time()
        for c in client.containers.list(all=True):  # of a step that failed
            c.remove(force=True, v=True)
        try:
            f()
            print(f"PASS {f.__name__}: {time.time() - began:.1f} s", flush=True)
        except Skip as e:
            print(f"SKIP {f.__name__}: {e}", flush=True)
        except BaseException as e:
            failed = True
            at = traceback.extract_tb(e.__traceback__)
            where = [x for x in at if x.filename == __file__ and x.name not in ("same", "fails")][-1]
            print(f"FAIL {f.__name__}: line {where.lineno}: {type(e).__name__}: {e}".replace("\n", " | "), flush=True)
    client.close()
    return failed


sys.exit(main())
