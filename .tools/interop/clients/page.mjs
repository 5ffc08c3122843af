// What runs in the browser's page: connect-web, Google's gRPC-Web client, EventSource
// and its polyfill, which is a script of its own. browser.mjs calls the functions by
// their names.
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { fromBinary, toBinary, create } from "@bufbuild/protobuf";
import { base64Decode } from "@bufbuild/protobuf/wire";
import grpcWeb from "grpc-web";
import * as service from "../gen/js/user/v1/user_service_pb.js";
import { UserStatus } from "../gen/js/user/v1/user_pb.js";
import { ErrorReason } from "../gen/js/user/v1/error_reason_pb.js";
import { ErrorInfoSchema } from "../gen/js/google/rpc/error_details_pb.js";
import { StatusSchema } from "../gen/js/google/rpc/status_pb.js";

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function check(ok, got) {
  if (!ok) throw new Error(typeof got === "string" ? got : JSON.stringify(got, (_, v) => (typeof v === "bigint" ? `${v}` : v)));
}

function within(ms, what, promise) {
  return Promise.race([promise, sleep(ms).then(() => { throw new Error(`${what}: nothing within ${ms} ms`); })]);
}

function newUser(client) {
  const name = `${client} ${crypto.randomUUID().slice(0, 13)}`;
  return { username: name, email: `${name.replaceAll(" ", ".")}@example.org` };
}

// --- connect-web ---

function connectWeb({ url, token }, binary = false, makeTransport = createConnectTransport) {
  return createClient(service.UserService, makeTransport({
    baseUrl: url,
    useBinaryFormat: binary,
    interceptors: [(next) => (request) => {
      if (token) request.header.set("authorization", `Bearer ${token}`);
      return next(request);
    }],
  }));
}

const connectTransports = (at) => ({
  "connect, JSON": connectWeb(at), "connect, binary": connectWeb(at, true),
  "gRPC-Web": connectWeb(at, true, createGrpcWebTransport),
});

async function wantConnectError(call, code, reason) {
  const error = await call().then((got) => { throw new Error(`no error, got ${got}`); }, (e) => e);
  check(error instanceof ConnectError && error.code === code, `got ${error}, want ${Code[code]}`);
  const info = error.findDetails(ErrorInfoSchema)[0];
  check(info?.reason === reason, `got reason ${info?.reason} with ${error}, want ${reason}`);
}

export async function connectKinds(at) {
  for (const [name, client] of Object.entries(connectTransports(at))) {
    const { user } = await client.createUser(newUser("connect-web"));
    const stopped = new AbortController();
    const rows = client.streamUserActivities({ userId: user.userId }, { signal: stopped.signal })[Symbol.asyncIterator]();
    check((await within(5000, `${name}: first row`, rows.next())).value.action === "user.created", `${name}: another row`);
    await client.recordUserActivity({ userId: user.userId, action: "app.noted" });
    check((await within(5000, `${name}: second row`, rows.next())).value.action === "app.noted", `${name}: another row`);
    stopped.abort();
    await wantConnectError(() => client.getUser({ userId: 1n }), Code.NotFound, "USER_NOT_FOUND");
  }
}

/** An item of a stream that failed is one item, and the stream goes on. */
export async function connectErrorItem(at) {
  for (const [name, client] of Object.entries(connectTransports(at))) {
    const { user } = await client.createUser(newUser("connect-web"));
    const other = (await client.createUser(newUser("connect-web"))).user;
    const stopped = new AbortController();
    const stream = client.watchUserStatus({ userIds: [user.userId, other.userId, 1n] }, { signal: stopped.signal })[Symbol.asyncIterator]();
    const next = async () => (await within(5000, `${name}: next item`, stream.next())).value;
    const first = [await next(), await next(), await next()];
    const missing = first.find((item) => item.userId === 1n);
    check(missing?.error?.code === 5 && missing.error.message !== "", `${name}: got ${JSON.stringify(first.map((i) => i.$typeName))}`);
    check(missing.error.details.length === 0, `${name}: details that JSON cannot decode`);
    check(missing.failure?.reason === ErrorReason.USER_NOT_FOUND, { name, failure: missing.failure });
    await client.deleteUser({ userId: user.userId });
    const deleted = await next();
    check(deleted.userId === user.userId && deleted.error !== undefined, `${name}: a deleted user is no error item`);
    await client.updateUserStatus({ userId: other.userId, status: UserStatus.SUSPENDED });
    check((await next()).status === UserStatus.SUSPENDED, `${name}: the stream did not go on`);
    stopped.abort();
  }
}

export async function connectNoToken(at) {
  for (const client of Object.values(connectTransports({ ...at, token: "" }))) {
    await wantConnectError(() => client.getUser({ userId: 1n }), Code.Unauthenticated, "CREDENTIALS_MISSING");
    await wantConnectError(async () => { for await (const _ of client.streamUserActivities({})); }, Code.Unauthenticated, "CREDENTIALS_MISSING");
  }
}

// --- Google's gRPC-Web client ---

function method(name) {
  const m = service.UserService.method[name];
  return new grpcWeb.MethodDescriptor(
    `/user.v1.UserService/${m.name}`, m.methodKind === "unary" ? grpcWeb.MethodType.UNARY : grpcWeb.MethodType.SERVER_STREAMING,
    Object, Object, (request) => toBinary(m.input, create(m.input, request)), (bytes) => fromBinary(m.output, bytes));
}

// The client's own default, application/grpc-web-text, unless the options say otherwise.
function googleWeb({ url, token }, options) {
  const client = new grpcWeb.GrpcWebClientBase(options);
  const metadata = token ? { authorization: `Bearer ${token}` } : {};
  const path = (m) => `${url}${m.getName()}`;
  return {
    call: (name, request) => within(15_000, name, new Promise((resolve, reject) => {
      const m = method(name);
      client.rpcCall(path(m), request, metadata, m, (error, response) => (error ? reject(error) : resolve(response)));
    })),
    stream: (name, request) => {
      const m = method(name);
      return client.serverStreaming(path(m), request, metadata, m);
    },
  };
}

function wantGoogleError(error, code, reason) {
  check(error?.code === code, `got ${error?.code} ${error?.message}, want ${code}`);
  const packed = error.metadata?.["grpc-status-details-bin"];
  check(packed !== undefined, `no details with ${error.message}`);
  const detail = fromBinary(StatusSchema, base64Decode(packed)).details.find((d) => d.typeUrl.endsWith("ErrorInfo"));
  check(fromBinary(ErrorInfoSchema, detail.value).reason === reason, "another reason");
}

export async function googleKinds(at) {
  for (const options of [undefined, { format: "binary" }]) {
    const client = googleWeb(at, options);
    const { user } = await client.call("createUser", newUser("grpc-web"));
    const got = await client.call("getUser", { userId: user.userId });
    check(got.user.username === user.username, got);
    const failure = await client.call("getUser", { userId: 1n }).then(() => undefined, (e) => e);
    wantGoogleError(failure, 5, "USER_NOT_FOUND");
    if (options) continue; // it streams with its default alone
    const rows = [];
    let ended;
    const stream = client.stream("streamUserActivities", { userId: user.userId });
    stream.on("data", (row) => rows.push(row.action));
    stream.on("error", (error) => { ended = error; });
    const await_ = async (n) => {
      for (let i = 0; i < 100 && rows.length < n; i++) await sleep(50);
      check(rows.length === n && ended === undefined, { rows, ended: ended?.message });
    };
    await await_(1);
    await client.call("recordUserActivity", { userId: user.userId, action: "app.noted" });
    await await_(2);
    check(rows.join() === "user.created,app.noted", rows);
    stream.cancel();
  }
}

export async function googleNoToken(at) {
  const client = googleWeb({ ...at, token: "" });
  wantGoogleError(await client.call("getUser", { userId: 1n }).then(() => undefined, (e) => e), 16, "CREDENTIALS_MISSING");
  const stream = client.stream("streamUserActivities", {});
  wantGoogleError(await within(10_000, "the error of the stream", new Promise((resolve) => stream.on("error", resolve))), 16, "CREDENTIALS_MISSING");
}

// --- EventSource ---

const sources = {
  native: (url) => new EventSource(url),
  polyfill: (url) => new EventSourcePolyfill(url),
};

/** A connection that is cut is taken up where it ended, without a gap or a repeat. */
export async function resume(at, kind) {
  const client = connectWeb(at);
  const { user } = await client.createUser(newUser(kind));
  const source = sources[kind](`${at.cutting}/api/v1/users/${user.userId}/activities`);
  const seen = [];
  const hear = (event) => seen.push(event.lastEventId.split(":")[1]);
  source.onmessage = hear;
  for (const name of ["user.created", "app.noted"]) source.addEventListener(name, hear);
  const await_ = async (n) => {
    for (let i = 0; i < 200 && seen.length < n; i++) await sleep(50);
    check(seen.length === n, `got positions ${seen}, want ${n} of them`);
  };
  await await_(1);
  const note = () => client.recordUserActivity({ userId: user.userId, action: "app.noted" });
  await note();
  await await_(2);
  await window.cutConnections();
  await note();
  await note();
  await await_(4);
  await window.cutConnections();
  await note();
  await await_(5);
  await sleep(300);
  check(new Set(seen).size === 5 && seen.length === 5, `got positions ${seen}`);
  source.close();
}

/** A position of another epoch ends with an error event that the page can read. */
export async function foreignEpoch(at, kind) {
  const client = connectWeb(at);
  const { user } = await client.createUser(newUser(kind));
  const source = sources[kind](`${at.url}/api/v1/users/${user.userId}/activities?lastEventId=elsewhere:1`);
  const event = await within(5000, "an error event", new Promise((resolve) => {
    source.addEventListener("error", (e) => { if (e.data !== undefined) resolve(e); });
  }));
  source.close();
  const told = JSON.parse(event.data);
  check(JSON.stringify(told).includes("POSITION_OUT_OF_RANGE"), told);
}

/** An idle event stream stays open for 70 s behind a proxy. */
export async function idle(at, kind) {
  const client = connectWeb(at);
  const { user } = await client.createUser(newUser(kind));
  const source = sources[kind](`${at.url}/api/v1/users/${user.userId}/activities`);
  let opened = 0, seen = 0;
  source.addEventListener("open", () => { opened++; });
  const hear = () => { seen++; };
  source.onmessage = hear;
  for (const name of ["user.created", "app.noted"]) source.addEventListener(name, hear);
  await sleep(70_000);
  await client.recordUserActivity({ userId: user.userId, action: "app.noted" });
  for (let i = 0; i < 100 && seen < 2; i++) await sleep(50);
  source.close();
  check(seen === 2 && opened === 1, { seen, opened });
}

// --- REST from a page ---

/** fetch with the headers that pages send, and what they may read of a response. */
export async function restFromPage({ url, token }) {
  const headers = {
    "content-type": "application/json", ...(token ? { authorization: `Bearer ${token}` } : {}),
    traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", tracestate: "a=1", baggage: "tenant=a",
  };
  const id = crypto.randomUUID();
  const user = newUser("rest");
  const created = await fetch(`${url}/api/v1/users`, {
    method: "POST", body: JSON.stringify(user), headers: { ...headers, "idempotency-key": id },
  });
  check(created.status === 200 || created.status === 201, `got ${created.status} ${await created.clone().text()}`);
  const position = created.headers.get("userd-position");
  check(position !== null, "userd-position cannot be read");
  const first = (await created.json()).user;
  const again = await fetch(`${url}/api/v1/users`, {
    method: "POST", body: JSON.stringify(user), headers: { ...headers, "idempotency-key": id },
  });
  check((await again.json()).user?.userId === first.userId, "Idempotency-Key is not the request id");
  const read = await fetch(`${url}/api/v1/users/${first.userId}`, { headers: { ...headers, "userd-min-position": position } });
  check(read.headers.get("etag") !== null, "etag cannot be read");
  const changed = await fetch(`${url}/api/v1/users/${first.userId}`, {
    method: "PATCH", body: JSON.stringify({ tags: ["a"] }), headers: { ...headers, "if-match": read.headers.get("etag") },
  });
  check(changed.status === 200, `PATCH: got ${changed.status}`);
  if (token) {
    const refused = await fetch(`${url}/api/v1/users/${first.userId}`);
    check(refused.status === 401 && refused.headers.get("www-authenticate") !== null, "www-authenticate cannot be read");
  }
}
