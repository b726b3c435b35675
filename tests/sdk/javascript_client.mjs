// npm's `runpod-sdk`: every call of its `Endpoint`. BUSY has workers, QUIET has none. `test_javascript_client.py` runs it.

import assert from "node:assert/strict";
import test from "node:test";

import runpodSdk from "runpod-sdk";

const { BUSY, QUIET, KEY, ENDPOINT } = process.env;
const busy = runpodSdk(KEY, { baseUrl: BUSY }).endpoint(ENDPOINT);
const quiet = runpodSdk(KEY, { baseUrl: QUIET }).endpoint(ENDPOINT);
const refused = (status) => (error) => error.response?.status === status;

test("a job is run and asked after", async () => {
  const { id, status } = await busy.run({ input: { say: { a: [1, null, "ö"] } } });
  assert.equal(status, "IN_QUEUE");
  const done = await busy.statusSync(id, 30000);
  assert.deepEqual(done.output, { a: [1, null, "ö"] });
  assert.deepEqual([done.started, done.completed, done.succeeded], [true, true, true]);
  assert.ok(Number.isInteger(done.delayTime) && Number.isInteger(done.executionTime));
  assert.deepEqual(await busy.status(id), done);
});

test("a job that waits has started, for this SDK, and is not completed", async () => {
  const { id } = await quiet.run({ input: { say: 1 } });
  const { status, started, completed, input } = await quiet.status(id);
  assert.deepEqual([status, started, completed, input], ["IN_QUEUE", true, false, { say: 1 }]);
});

test("a quick job is done when runSync answers", async () => {
  const done = await busy.runSync({ input: { say: "x" } });
  assert.deepEqual([done.output, done.succeeded], ["x", true]);
  assert.match(done.id, /^sync-/);
});

test("a base URL may end with a slash", async () => {
  const slash = runpodSdk(KEY, { baseUrl: `${BUSY}/` }).endpoint(ENDPOINT);
  const { id } = await slash.run({ input: { say: "x" } });
  assert.equal((await slash.statusSync(id, 30000)).output, "x");
});

test("a job may outlast the first wait", async () => {
  const done = await busy.runSync({ input: { sleep: 2.2, say: "late" } }, 1500);
  assert.deepEqual([done.status, done.output], ["COMPLETED", "late"]);
});

test("a failed job is completed and has not succeeded", async () => {
  const done = await busy.runSync({ input: { fail: ["e1", "e2"] } });
  assert.deepEqual([done.status, done.completed, done.succeeded, done.error], ["FAILED", true, false, '["e1","e2"]']);
});

test("a stream comes whole and in order", async () => {
  const { id } = await busy.run({ input: { parts: 30 } });
  const parts = [];
  for await (const part of busy.stream(id)) {
    parts.push(part.output.part);
  }
  assert.deepEqual(parts, [...Array(30).keys()]);
});

test("jobs are cancelled, purged and counted", async () => {
  await quiet.purgeQueue();
  const jobs = await Promise.all([1, 2, 3].map((say) => quiet.run({ input: { say } })));
  assert.deepEqual(await quiet.cancel(jobs[0].id), { id: jobs[0].id, status: "CANCELLED" });
  assert.equal((await quiet.health()).jobs.inQueue, 2);
  assert.deepEqual(await quiet.purgeQueue(), { removed: 2, status: "completed" });
  assert.equal((await quiet.status(jobs[2].id)).status, "CANCELLED");
  const { jobs: counts, workers } = await busy.health();
  assert.ok(counts.completed > 0 && workers.idle + workers.running === 2);
});

test("what else a request may have is heard, and its secrets are not told", async () => {
  const s3Config = { accessId: "who", accessSecret: "s3cret", bucketName: "b", endpointUrl: "https://s3.example" };
  const request = { input: { say: 1 }, s3Config, webhook: "https://example.com/w", policy: { executionTimeout: 3000, ttl: 60000, lowPriority: true } };
  const { id } = await quiet.run(request);
  assert.ok(!JSON.stringify(await quiet.status(id)).includes("s3cret"));
  await quiet.cancel(id);
});

test("a wrong key, an unknown endpoint and an unknown job are errors", async () => {
  await assert.rejects(runpodSdk("wrong", { baseUrl: BUSY }).endpoint(ENDPOINT).health(), refused(401));
  await assert.rejects(runpodSdk(KEY, { baseUrl: BUSY }).endpoint("nobody").health(), refused(404));
  await assert.rejects(busy.status("no-job"), refused(404));
});
