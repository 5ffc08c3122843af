// Cases for @connectrpc/connect-node: Connect, gRPC and gRPC-Web on Node.
import assert from "node:assert/strict";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { UserService } from "../gen/js/user/v1/user_service_pb.js";
import { UserStatus as Status } from "../gen/js/user/v1/user_pb.js";
import { ErrorInfoSchema } from "../gen/js/google/rpc/error_details_pb.js";
import { authority, newUser, run, sleep, token, url, within } from "./check.mjs";

const withToken = (next) => (request) => {
  if (token) request.header.set("authorization", `Bearer ${token}`);
  return next(request);
};
const options = (httpVersion, more = {}) => ({
  baseUrl: url, httpVersion, interceptors: [withToken], nodeOptions: { ca: authority }, ...more,
});
const transports = {
  "connect, JSON, HTTP/1.1": [createConnectTransport, "1.1"],
  "connect, JSON, HTTP/2": [createConnectTransport, "2"],
  "connect, binary, HTTP/1.1": [createConnectTransport, "1.1", { useBinaryFormat: true }],
  "connect, GET": [createConnectTransport, "1.1", { useHttpGet: true }],
  "gRPC": [createGrpcTransport, "2"],
  "gRPC, JSON": [createGrpcTransport, "2", { useBinaryFormat: false }],
  "gRPC-Web, HTTP/1.1": [createGrpcWebTransport, "1.1"],
  "gRPC-Web, HTTP/2": [createGrpcWebTransport, "2"],
};

// A proxy that speaks HTTP/1.1 to the server passes bidi streams on for gRPC alone.
const oneWay = process.env.USERD_HTTP1_UPSTREAM !== undefined;

async function each(part) {
  // A proxy may speak one version of HTTP only.
  const versions = (process.env.USERD_HTTP ?? "1.1,2").split(",");
  for (const [name, [create, version, more]] of Object.entries(transports)) {
    if (!versions.includes(version)) continue;
    const client = createClient(UserService, create(options(version, more)));
    try {
      await within(60_000, name, part(client, version, name));
    } catch (error) {
      throw new Error(`${name}: ${error instanceof ConnectError ? `${error}` : (error.stack ?? error)}`);
    }
  }
}

async function wantError(promise, code, reason) {
  const error = await promise.then((response) => assert.fail(`no error, got ${response}`), (e) => e);
  assert.ok(error instanceof ConnectError, error.stack);
  assert.equal(error.code, code, `got ${error}`);
  assert.equal(error.findDetails(ErrorInfoSchema)[0]?.reason, reason, `got ${error}`);
}

async function collect(stream) {
  const received = [];
  for await (const item of stream) received.push(item);
  return received;
}

async function* messages(...items) {
  yield* items;
}

await run({
  async kinds() {
    await each(async (client, version, name) => {
      const { user } = await client.createUser(newUser("connect-node"));
      const got = await client.getUser({ userId: user.userId });
      assert.equal(got.user.username, user.username);
      const rows = await collect(client.streamUserActivities({ userId: user.userId, replayOnly: true }));
      assert.deepEqual(rows.map((row) => row.action), ["user.created"]);
      const batch = await client.batchUpdateUsers(messages(
        { userId: user.userId, user: { tags: ["a"] } }, { userId: 1n, user: { tags: ["a"] } }));
      assert.equal(batch.updatedCount, 1);
      assert.equal(batch.failures.length, 1);
      await wantError(client.getUser({ userId: 1n }), Code.NotFound, "USER_NOT_FOUND");
      if (version === "2" && !(oneWay && !/^gRPC(,|$)/.test(name))) {
        const updates = await collect(client.syncUserStatus(messages(
          { userId: user.userId, status: Status.INACTIVE, clientSeq: 1n }, { userId: user.userId, clientSeq: 2n })));
        assert.deepEqual(updates.map((u) => [u.clientSeq, u.status]), [[1n, Status.INACTIVE], [2n, Status.INACTIVE]]);
      }
    });
  },

  async "no-token"() {
    const anonymous = Object.values(transports).map(([create, version, more]) =>
      [version, createClient(UserService, create({ ...options(version, more), interceptors: [] }))]);
    const versions = (process.env.USERD_HTTP ?? "1.1,2").split(",");
    for (const [version, client] of anonymous) {
      if (!versions.includes(version)) continue;
      await wantError(client.getUser({ userId: 1n }), Code.Unauthenticated, "CREDENTIALS_MISSING");
      await wantError(collect(client.streamUserActivities({})), Code.Unauthenticated, "CREDENTIALS_MISSING");
    }
  },

  // A stream delivers each message at once, also through a proxy that buffers.
  async live() {
    await each(async (client) => {
      const { user } = await client.createUser(newUser("connect-node"));
      const stopped = new AbortController();
      const stream = client.streamUserActivities({ userId: user.userId }, { signal: stopped.signal })[Symbol.asyncIterator]();
      const first = await within(5_000, "the first row", stream.next());
      assert.equal(first.value.action, "user.created");
      await client.recordUserActivity({ userId: user.userId, action: "app.noted" });
      const second = await within(5_000, "the second row", stream.next());
      assert.equal(second.value.action, "app.noted");
      stopped.abort();
    });
  },

  // Streams that wait for 70 s behind a proxy, kept alive by progress messages.
  async idle() {
    const versions = (process.env.USERD_HTTP ?? "1.1,2").split(",");
    await Promise.all(Object.entries(transports).filter(([, [, version]]) => versions.includes(version)).map(async ([name, [create, version, more]]) => {
      const client = createClient(UserService, create(options(version, more)));
      const { user } = await client.createUser(newUser("connect-node"));
      const stopped = new AbortController();
      const statuses = [], rows = [];
      const reading = Promise.all([
        (async () => {
          for await (const u of client.watchUserStatus({ userIds: [user.userId], progress: true }, { signal: stopped.signal })) statuses.push(u.status);
        })(),
        (async () => {
          for await (const row of client.streamUserActivities({ userId: user.userId, progress: true }, { signal: stopped.signal })) rows.push(row.action);
        })(),
      ]).catch((error) => {
        if (!stopped.signal.aborted) throw new Error(`${name}: ${error}`);
      });
      await Promise.race([sleep(70_000), reading]);
      await client.updateUserStatus({ userId: user.userId, status: Status.SUSPENDED });
      await Promise.race([sleep(2_000), reading]);
      stopped.abort();
      await reading;
      assert.ok(statuses.includes(Status.SUSPENDED), `${name}: got statuses ${statuses}`);
      assert.ok(rows.includes("user.status_changed"), `${name}: got rows ${rows}`);
    }));
  },
});
