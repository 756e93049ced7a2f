// What a user of testcontainers does, without its reaper, whose image is not to
// be had. Prints a line as user.mjs does.

import assert from "node:assert/strict";
import { text } from "node:stream/consumers";
import { GenericContainer, Wait } from "testcontainers";

let failed = false;
async function step(name, run) {
  try {
    await run();
    console.log(`PASS ${name}`);
  } catch (e) {
    failed = true;
    console.log(`FAIL ${name}: ${e.stack ?? e}`.replaceAll("\n", " | "));
  }
}

await step("testcontainers", async () => {
  const c = await new GenericContainer("busybox:latest")
    .withCommand(["sh", "-c", "mkdir /www; cp /tmp/page /www/index.html; echo $GREETING; exec httpd -f -h /www -p 8080"])
    .withEnvironment({ GREETING: "ready to serve" })
    .withLabels({ by: "testcontainers" })
    .withTmpFs({ "/scratch": "rw" })
    .withCopyContentToContainer([{ content: "served\n", target: "/tmp/page" }])
    .withExposedPorts(8080)
    .withWaitStrategy(Wait.forAll([Wait.forListeningPorts(), Wait.forLogMessage("ready to serve"), Wait.forHttp("/", 8080)]))
    .withStartupTimeout(30000)
    .start();
  try {
    const page = await fetch(`http://${c.getHost()}:${c.getMappedPort(8080)}/`);
    assert.equal(await page.text(), "served\n");
    const e = await c.exec(["sh", "-c", "echo in; echo err >&2; exit 4"]);
    assert.deepEqual([e.exitCode, e.stdout, e.stderr], [4, "in\n", "err\n"]);
    await c.copyContentToContainer([{ content: "copied", target: "/tmp/c" }]);
    assert.equal((await c.exec(["cat", "/tmp/c"])).output, "copied");
    const out = await c.logs();
    out.destroy();
    await c.restart();
    const tar = await text(await c.copyArchiveFromContainer("/tmp/c"));
    assert.match(tar, /copied/);
    assert.equal(c.getLabels().by, "testcontainers");
  } finally {
    await c.stop({ remove: true });
  }
});
process.exit(failed ? 1 : 0);
