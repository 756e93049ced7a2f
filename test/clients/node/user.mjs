// What a user of dockerode does, with an engine at DOCKER_HOST that has the image
// busybox, and a registry at REGISTRY. Prints a line for each step: PASS, FAIL or
// SKIP, its name and, after a colon, the reason.

import assert from "node:assert/strict";
import { once } from "node:events";
import { PassThrough, Readable, Writable } from "node:stream";
import { text, buffer } from "node:stream/consumers";
import { createRequire } from "node:module";
import Docker from "dockerode";

const require = createRequire(import.meta.url);
const tar = require("tar-stream");
const docker = new Docker();
const steps = {};

class Sink extends Writable {
  said = "";
  _write(chunk, _, done) {
    this.said += chunk;
    done();
  }
}

async function running(options, use) {
  const c = await docker.createContainer({ Image: "busybox", Cmd: ["sleep", "1000"], ...options });
  try {
    await c.start();
    await use(c);
  } finally {
    await c.remove({ force: true, v: true });
  }
}

async function demuxed(stream) {
  const out = new Sink(), err = new Sink();
  docker.modem.demuxStream(stream, out, err);
  if (!stream.readableEnded) await once(stream, "end");
  return [out.said, err.said];
}

const progress = (stream) => new Promise((ok, fail) => docker.modem.followProgress(stream, (err, out) => (err ? fail(err) : ok(out))));

function archive(files) {
  const pack = tar.pack();
  for (const [name, content] of Object.entries(files)) pack.entry({ name, mode: 0o640 }, content);
  pack.finalize();
  return buffer(pack);
}

async function unpack(stream) {
  const files = {}, extract = tar.extract();
  extract.on("entry", async (header, body, next) => {
    files[header.name] = await text(body);
    next();
  });
  stream.pipe(extract);
  await once(extract, "finish");
  return files;
}

const rejects = (promise, status, said) => assert.rejects(promise, (e) => (assert.equal(e.statusCode, status), assert.match(String(e.json?.message ?? e.message), said), true));

steps.run = async () => {
  const out = new Sink(), err = new Sink();
  const [data, c] = await docker.run("busybox", ["sh", "-c", "echo out; echo err >&2; exit 3"], [out, err], { Tty: false });
  assert.equal(data.StatusCode, 3);
  assert.deepEqual([out.said, err.said], ["out\n", "err\n"]);
  await c.remove();
  const tty = new Sink();
  const [ended] = await docker.run("busybox", ["echo", "on a terminal"], tty, { HostConfig: { AutoRemove: true } });
  assert.equal(ended.StatusCode, 0);
  assert.equal(tty.said, "on a terminal\r\n");
};

steps.attach = async () => {
  const c = await docker.createContainer({ Image: "busybox", Cmd: ["cat"], OpenStdin: true, StdinOnce: true, AttachStdin: true, AttachStdout: true });
  const stream = await c.attach({ stream: true, stdin: true, stdout: true, stderr: true, hijack: true });
  await c.start();
  const got = demuxed(stream);
  stream.end("typed\n");
  assert.deepEqual(await got, ["typed\n", ""]);
  assert.equal((await c.wait()).StatusCode, 0);
  await c.remove();
};

steps.exec = () => running({}, async (c) => {
  const e = await c.exec({ Cmd: ["sh", "-c", "echo $V; echo err >&2; cat; exit 9"], Env: ["V=w"], AttachStdin: true, AttachStdout: true, AttachStderr: true });
  const stream = await e.start({ hijack: true, stdin: true });
  const got = demuxed(stream);
  stream.end("in\n");
  assert.deepEqual(await got, ["w\nin\n", "err\n"]);
  const info = await e.inspect();
  assert.deepEqual([info.Running, info.ExitCode, info.ProcessConfig.entrypoint], [false, 9, "sh"]);
  const plain = await c.exec({ Cmd: ["echo", "plain"], AttachStdout: true });
  assert.deepEqual(await demuxed(await plain.start({})), ["plain\n", ""]);
  const tty = await c.exec({ Cmd: ["sh", "-c", "read x; stty size"], AttachStdin: true, AttachStdout: true, Tty: true });
  const t = await tty.start({ hijack: true, stdin: true, Tty: true });
  await tty.resize({ h: 41, w: 101 });
  t.write("\n");
  assert.match(await text(t), /41 101\r\n$/);
  await rejects(docker.getExec("none").inspect(), 404, /No such exec instance: none/);
});

steps.logs = () => running({ Cmd: ["sh", "-c", "for i in 1 2 3; do echo o$i; done; sleep 1000"] }, async (c) => {
  const follow = await c.logs({ follow: true, stdout: true, stderr: true });
  const out = new Sink();
  docker.modem.demuxStream(follow, out, out);
  while (!out.said.endsWith("o3\n")) await once(follow, "data");
  assert.equal(out.said, "o1\no2\no3\n");
  follow.destroy();
  const tail = await c.logs({ stdout: true, tail: 1, timestamps: true });
  assert.match(tail.subarray(8).toString(), /^\d{4}-\d\d-\d\dT[\d:.]+Z o3\n$/);
});

steps.archives = () => running({}, async (c) => {
  await c.putArchive(await archive({ a: "one", "d/b": "two" }), { path: "/tmp" });
  await c.putArchive(Readable.from([await archive({ streamed: "three" })]), { path: "/tmp" });
  const got = await unpack(await c.getArchive({ path: "/tmp/." }));
  assert.equal(got["./a"] + got["./d/b"] + got["./streamed"], "onetwothree");
  const info = await c.infoArchive({ path: "/tmp/a" });
  const stat = JSON.parse(Buffer.from(info.headers?.["x-docker-container-path-stat"] ?? "e30=", "base64"));
  if (info.headers) assert.deepEqual([stat.name, stat.size], ["a", 3]);
  await rejects(c.getArchive({ path: "/none" }), 404, /Could not find the file \/none in container/);
  assert.equal((await unpack(await c.export()))["tmp/a"], "one");
});

steps.inspect = () => running({ name: "looked-at", Labels: { l: "1" }, ExposedPorts: { "80/tcp": {} }, HostConfig: { PortBindings: { "80/tcp": [{ HostIp: "127.0.0.1" }] }, Memory: 64 << 20, Binds: ["/etc:/e:ro"] } }, async (c) => {
  const i = await c.inspect({ size: true });
  assert.deepEqual([i.Name, i.State.Status, i.HostConfig.Memory, i.Mounts[0].Destination, i.Mounts[0].RW], ["/looked-at", "running", 64 << 20, "/e", false]);
  assert.ok(i.SizeRootFs > 500000 && Number(i.NetworkSettings.Ports["80/tcp"][0].HostPort) > 0);
  const [listed] = await docker.listContainers({ filters: { label: ["l=1"], status: ["running"] } });
  assert.deepEqual([listed.Id, listed.Names, listed.State, listed.Ports[0].PrivatePort], [c.id, ["/looked-at"], "running", 80]);
  const top = await c.top({ ps_args: "-o pid,args" });
  assert.deepEqual([top.Titles, top.Processes[0][1]], [["PID", "COMMAND"], "sleep 1000"]);
  await c.update({ Memory: 100 << 20, MemorySwap: 200 << 20 });
  await c.rename({ name: "looked" });
  await c.pause();
  assert.equal((await c.inspect()).State.Status, "paused");
  await c.unpause();
  const stats = await c.stats({ stream: false });
  assert.ok(stats.memory_stats.usage > 0 && stats.cpu_stats.cpu_usage.total_usage > 0 && stats.networks.eth0);
  const many = await c.stats({ stream: true });
  assert.equal(JSON.parse((await once(many, "data"))[0]).name, "/looked");
  many.destroy();
  await c.kill({ signal: "SIGKILL" });
  assert.equal((await c.wait({ condition: "not-running" })).StatusCode, 137);
  await c.restart({ t: 0 });
  await rejects(docker.createContainer({ Image: "busybox", name: "looked" }), 409, /name "\/looked" is already in use/);
  await rejects(c.remove(), 409, /container is running/);
  await rejects(docker.getContainer("none").inspect(), 404, /No such container: none/);
});

steps.events = async () => {
  const stream = await docker.getEvents({ filters: { label: ["watch=me"] } });
  const c = await docker.createContainer({ Image: "busybox", Cmd: ["true"], Labels: { watch: "me" } });
  await c.start();
  await c.wait();
  await c.remove();
  let said = "";
  for await (const chunk of stream) {
    said += chunk;
    if (said.includes('"destroy"')) break;
  }
  const got = said.trim().split("\n").map((line) => JSON.parse(line));
  assert.deepEqual(got.map((e) => e.Action), ["create", "start", "die", "destroy"]);
  assert.ok(got.every((e) => e.Type === "container" && e.Actor.ID === c.id && e.Actor.Attributes.image === "busybox"));
};

steps.images = async () => {
  const image = docker.getImage("busybox");
  const i = await image.inspect();
  await image.tag({ repo: "clients/node", tag: "v1" });
  const [listed] = await docker.listImages({ filters: { reference: ["clients/node"] } });
  assert.equal(listed.Id, i.Id);
  assert.equal((await image.history())[0].Id, i.Id);
  const saved = await buffer(await docker.getImage("clients/node:v1").get());
  assert.deepEqual(await docker.getImage("clients/node:v1").remove(), [{ Untagged: "clients/node:v1" }]);
  const loaded = await progress(await docker.loadImage(Readable.from([saved])));
  assert.ok(loaded.some((m) => m.stream === "Loaded image: clients/node:v1\n"), JSON.stringify(loaded));
  const imported = await progress(await docker.importImage(Readable.from([await archive({ f: "1" })]), { repo: "clients/imported", tag: "v1" }));
  assert.match(imported.at(-1).status, /^sha256:/);
  await docker.getImage("clients/imported:v1").remove();
  await docker.getImage("clients/node:v1").remove();
  await rejects(docker.getImage("none:1").inspect(), 404, /No such image: none:1/);
};

steps.commit = () => running({}, async (c) => {
  await c.putArchive(await archive({ committed: "yes" }), { path: "/" });
  const { Id } = await c.commit({ repo: "clients/committed", tag: "v1", comment: "said", changes: 'CMD ["cat","/committed"]' });
  const out = new Sink();
  const [, made] = await docker.run("clients/committed:v1", [], out, { Cmd: undefined });
  assert.equal(out.said, "yes");
  await made.remove();
  await docker.getImage(Id).remove({ force: true });
});

steps.registry = async () => {
  const name = `${process.env.REGISTRY}/clients/node`;
  await docker.getImage("busybox").tag({ repo: name, tag: "v1" });
  const pushed = await progress(await docker.getImage(`${name}:v1`).push({ authconfig: { username: "u", password: "p", serveraddress: process.env.REGISTRY } }));
  const { Digest } = pushed.find((m) => m.aux).aux;
  assert.deepEqual(pushed[0], { status: `The push refers to repository [${name}]` });
  await docker.getImage(`${name}:v1`).remove();
  const pulled = await progress(await docker.pull(`${name}:v1`));
  const said = pulled.map((m) => m.status);
  assert.ok(said.includes(`Digest: ${Digest}`), JSON.stringify(said));
  assert.equal((await docker.getImage(`${name}@${Digest}`).inspect()).RepoDigests[0], `${name}@${Digest}`);
  assert.equal((await docker.getImage(`${name}:v1`).distribution()).Descriptor.digest, Digest);
  await rejects(docker.pull(`${name}:none`), 404, /manifest/);
  await docker.getImage(`${name}:v1`).remove();
};

steps.volumes = async () => {
  const v = await docker.createVolume({ Name: "nodevol", Labels: { a: "b" } });
  assert.equal((await docker.listVolumes({ filters: { label: ["a=b"] } })).Volumes[0].Name, "nodevol");
  const out = new Sink();
  await docker.run("busybox", ["sh", "-c", "echo kept >/v/f; cat /v/f"], out, { HostConfig: { Binds: ["nodevol:/v"], AutoRemove: true } });
  assert.equal(out.said, "kept\r\n");
  await v.remove();
  await rejects(v.inspect(), 404, /nodevol/);
};

steps.system = async () => {
  assert.equal((await docker.ping()).toString(), "OK");
  assert.ok((await docker.version()).ApiVersion && (await docker.info()).Images >= 1 && (await docker.df()).Images.length >= 1);
  assert.deepEqual(await docker.pruneContainers({ filters: { label: ["none"] } }), { ContainersDeleted: null, SpaceReclaimed: 0 });
  assert.equal((await docker.listNetworks({ filters: { name: ["bridge"] } }))[0].Driver, "bridge");
  const old = new Docker({ version: "v1.40" });
  assert.ok(Array.isArray(await old.listContainers({ all: true })));
};

steps.abort = () => running({}, async (c) => {
  const abort = new AbortController();
  const waiting = c.wait({ abortSignal: abort.signal });
  abort.abort();
  await assert.rejects(waiting);
});

let failed = false;
for (const [name, step] of Object.entries(steps)) {
  if (process.argv.length > 2 && !process.argv.includes(name)) continue;
  const began = Date.now();
  try {
    await step();
    console.log(`PASS ${name}: ${Date.now() - began} ms`);
  } catch (e) {
    failed = true;
    console.log(`FAIL ${name}: ${e.stack ?? e}`.replaceAll("\n", " | "));
  }
}
process.exit(failed ? 1 : 0);
