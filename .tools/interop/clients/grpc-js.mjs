// Cases for gRPC on Node, by @grpc/grpc-js with @grpc/proto-loader.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";
import { fromBinary } from "@bufbuild/protobuf";
import { authority, newUser, run, sleep, token, url, within } from "./check.mjs";
import { StatusSchema } from "../gen/js/google/rpc/status_pb.js";
import { ErrorInfoSchema } from "../gen/js/google/rpc/error_details_pb.js";

const definitions = loader.loadFileDescriptorSetFromBuffer(readFileSync(new URL("../gen/user.binpb", import.meta.url)), {
  longs: String, enums: String, defaults: true,
});
const { UserService } = grpc.loadPackageDefinition(definitions).user.v1;

const keepalive = { "grpc.keepalive_time_ms": 10_000, "grpc.keepalive_timeout_ms": 5_000, "grpc.keepalive_permit_without_calls": 1 };

function connect(options = {}, withToken = token) {
  const [scheme, address] = url.split("://");
  const credentials = scheme === "https" ? grpc.credentials.createSsl(authority) : grpc.credentials.createInsecure();
  const client = new UserService(address, credentials, options);
  const metadata = new grpc.Metadata();
  if (withToken) metadata.set("authorization", `Bearer ${withToken}`);
  const call = (method, request) => within(30_000, method, new Promise((resolve, reject) => {
    client[method](request, metadata, (error, response) => (error ? reject(error) : resolve(response)));
  }));
  return { client, metadata, call };
}

function infoOf(error) {
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  assert.ok(packed, `no details with ${error.code} ${error.details}`);
  const found = fromBinary(StatusSchema, packed).details.find((d) => d.typeUrl.endsWith("google.rpc.ErrorInfo"));
  assert.ok(found, "no ErrorInfo");
  return fromBinary(ErrorInfoSchema, found.value);
}

async function wantError(promise, code, reason) {
  const error = await promise.then((response) => assert.fail(`no error, got ${JSON.stringify(response)}`), (e) => e);
  assert.equal(error.code, code, `got ${error.code} ${error.details}`);
  assert.equal(infoOf(error).reason, reason);
}

const ended = (stream) => new Promise((resolve, reject) => {
  const received = [];
  stream.on("data", (item) => received.push(item));
  stream.on("error", reject);
  stream.on("end", () => resolve(received));
});

await run({
  async kinds() {
    const { client, metadata, call } = connect();
    const { user } = await call("createUser", newUser("grpc-js"));
    const got = await call("getUser", { user_id: user.user_id });
    assert.equal(got.user.username, user.username);
    const rows = await ended(client.streamUserActivities({ user_id: user.user_id, replay_only: true }, metadata));
    assert.deepEqual(rows.map((row) => row.action), ["user.created"]);
    const batch = await within(30_000, "batch", new Promise((resolve, reject) => {
      const items = client.batchUpdateUsers(metadata, (error, response) => (error ? reject(error) : resolve(response)));
      items.write({ user_id: user.user_id, user: { tags: ["a"] } });
      items.write({ user_id: "1", user: { tags: ["a"] } });
      items.end();
    }));
    assert.equal(batch.updated_count, 1);
    assert.equal(batch.failures.length, 1);
    const sync = client.syncUserStatus(metadata);
    sync.write({ user_id: user.user_id, status: "USER_STATUS_INACTIVE", client_seq: "1" });
    sync.write({ user_id: user.user_id, client_seq: "2" });
    sync.end();
    const updates = await within(30_000, "sync", ended(sync));
    assert.deepEqual(updates.map((u) => [u.client_seq, u.status]), [["1", "USER_STATUS_INACTIVE"], ["2", "USER_STATUS_INACTIVE"]]);
    await wantError(call("getUser", { user_id: "1" }), grpc.status.NOT_FOUND, "USER_NOT_FOUND");
  },

  // Pings every 10 s, without a call and with one, for 40 s.
  async keepalive() {
    const { client, metadata, call } = connect(keepalive);
    const { user } = await call("createUser", newUser("grpc-js"));
    const stream = client.streamUserActivities({ user_id: user.user_id }, metadata);
    const rows = [];
    let failure;
    stream.on("data", (row) => rows.push(row.action));
    stream.on("error", (error) => { failure ??= error; });
    await sleep(42_000);
    assert.equal(failure, undefined);
    await call("recordUserActivity", { user_id: user.user_id, action: "app.noted" });
    await sleep(500);
    assert.deepEqual(rows, ["user.created", "app.noted"]);
    stream.cancel();
  },

  async "no-token"() {
    const { client, metadata, call } = connect({}, "");
    const missing = [grpc.status.UNAUTHENTICATED, "CREDENTIALS_MISSING"];
    await wantError(call("getUser", { user_id: "1" }), ...missing);
    await wantError(within(30_000, "stream", ended(client.streamUserActivities({}, metadata))), ...missing);
    const sync = client.syncUserStatus(metadata);
    await wantError(within(30_000, "sync", ended(sync)), ...missing);
  },

  async "unknown-method"() {
    const { client, metadata } = connect();
    for (const path of ["/user.v1.UserService/Nothing", "/user.v2.UserService/GetUser"]) {
      const error = await within(30_000, path, new Promise((resolve) => {
        client.makeUnaryRequest(path, () => Buffer.alloc(0), (b) => b, {}, metadata, (e) => resolve(e));
      }));
      assert.equal(error?.code, grpc.status.UNIMPLEMENTED, `${path}: got ${error?.code} ${error?.details}`);
    }
  },
});
