"""Cases for gRPC C-core, by Debian's python3-grpcio.

Usage: grpcio.py CASE... USERD_URL names the server, USERD_TOKEN the bearer token (empty:
none), USERD_CA the file with the authority of its certificate. Each case is reported in
a line of JSON with its error.
"""

import json
import os
import sys
import threading
import time
import traceback
import uuid

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "user.v1.UserService"
KEEPALIVE = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def load_pool():
    files = descriptor_pb2.FileDescriptorSet()
    with open(os.path.join(os.path.dirname(__file__), "..", "gen", "user.binpb"), "rb") as f:
        files.ParseFromString(f.read())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return pool


POOL = load_pool()
FACTORY = message_factory.MessageFactory(POOL)


def message(name):
    return FACTORY.GetPrototype(POOL.FindMessageTypeByName(name))


def open_channel(options=()):
    scheme, _, address = os.environ["USERD_URL"].partition("://")
    if scheme == "http":
        return grpc.insecure_channel(address, options=list(options))
    with open(os.environ["USERD_CA"], "rb") as f:
        credentials = grpc.ssl_channel_credentials(root_certificates=f.read())
    return grpc.secure_channel(address, credentials, options=list(options))


class Client:
    """One method for each RPC of the service, with the token where there is one."""

    def __init__(self, channel, token=os.environ.get("USERD_TOKEN", "")):
        metadata = [("authorization", "Bearer " + token)] if token else []
        for method in POOL.FindServiceByName(SERVICE).methods:
            proto = descriptor_pb2.MethodDescriptorProto()
            method.CopyToProto(proto)
            kind = "%s_%s" % (
                "stream" if proto.client_streaming else "unary",
                "stream" if proto.server_streaming else "unary",
            )
            call = getattr(channel, kind)(
                "/%s/%s" % (SERVICE, method.name),
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=message(method.output_type.full_name).FromString,
            )
            setattr(self, method.name, Bound(call, metadata))
        self.channel = channel


class Bound:
    def __init__(self, call, metadata):
        self.call, self.metadata = call, metadata

    def __call__(self, request, **options):
        return self.call(request, metadata=self.metadata, **options)

    def future(self, request, **options):
        return self.call.future(request, metadata=self.metadata, **options)


def request(name, **fields):
    return message("user.v1." + name)(**fields)


def create(client):
    name = "grpcio " + uuid.uuid4().hex[:12]
    response = client.CreateUser(
        request("CreateUserRequest", username=name, email=name.replace(" ", ".") + "@example.org"), timeout=30
    )
    return response.user


def check(ok, got):
    if not ok:
        raise AssertionError(got)


def error_of(call):
    try:
        response = call()
        if not hasattr(response, "DESCRIPTOR"):
            response = list(response)
    except grpc.RpcError as error:
        return error
    raise AssertionError("no error, got %s" % (response,))


def status_of(error):
    """The google.rpc.Status in the trailers."""
    trailers = dict(error.trailing_metadata() or ())
    check("grpc-status-details-bin" in trailers, "no details with %s %s" % (error.code(), error.details()))
    return message("google.rpc.Status").FromString(trailers["grpc-status-details-bin"])


def detail(status, name):
    for packed in status.details:
        if packed.type_url.endswith("/" + name):
            return message(name).FromString(packed.value)
    raise AssertionError("no %s in %s" % (name, status))


def want_error(call, code, reason):
    error = error_of(call)
    check(error.code() == code, "got %s: %s, want %s" % (error.code(), error.details(), code))
    if reason:
        info = detail(status_of(error), "google.rpc.ErrorInfo")
        check(info.reason == reason and info.domain == "user.v1", "got %s, want %s" % (info, reason))
    return error


# --- cases ---


def case_kinds():
    """A call of each kind: unary, server stream, client stream, bidi."""
    with open_channel() as channel:
        client = Client(channel)
        user = create(client)
        got = client.GetUser(request("GetUserRequest", user_id=user.user_id), timeout=30)
        check(got.user.username == user.username, got)
        rows = list(client.StreamUserActivities(
            request("StreamUserActivitiesRequest", user_id=user.user_id, replay_only=True), timeout=30))
        check([row.action for row in rows] == ["user.created"], rows)
        batch = client.BatchUpdateUsers(iter([
            request("UpdateUserRequest", user_id=user.user_id, user=message("user.v1.User")(tags=["a"])),
            request("UpdateUserRequest", user_id=1, user=message("user.v1.User")(tags=["a"])),
        ]), timeout=30)
        check(batch.updated_count == 1 and len(batch.failures) == 1, batch)
        updates = list(client.SyncUserStatus(iter([
            request("UserStatusUpdate", user_id=user.user_id, status=2, client_seq=1),
            request("UserStatusUpdate", user_id=user.user_id, client_seq=2),
        ]), timeout=30))
        check([(u.client_seq, u.status) for u in updates] == [(1, 2), (2, 2)], updates)


def case_missing_users():
    """10,000 GetUser of a missing user, 8 at a time on one channel."""
    with open_channel() as channel:
        client = Client(channel)
        create(client)
        codes, lock, room = {}, threading.Lock(), threading.Semaphore(8)
        done = threading.Semaphore(0)

        def ended(call):
            key = "%s: %s" % (call.code(), call.details())
            with lock:
                codes[key] = codes.get(key, 0) + 1
            room.release()
            done.release()

        for _ in range(10_000):
            room.acquire()
            client.GetUser.future(request("GetUserRequest", user_id=1), timeout=60).add_done_callback(ended)
        for _ in range(10_000):
            done.acquire()
        check(len(codes) == 1 and "NOT_FOUND" in next(iter(codes)), codes)


def case_idle_streams():
    """600 streams on one channel that wait, and then receive a row each."""
    with open_channel() as channel:
        client = Client(channel)
        user = create(client)
        wanted = request("StreamUserActivitiesRequest", user_id=user.user_id)
        streams = [client.StreamUserActivities(wanted, timeout=120) for _ in range(600)]

        def rows():
            ends = {}
            for stream in streams:
                try:
                    next(stream)
                except grpc.RpcError as error:
                    key = "%s: %s" % (error.code(), error.details())
                    ends[key] = ends.get(key, 0) + 1
            check(not ends, ends)

        rows()
        time.sleep(3)
        client.RecordUserActivity(request("RecordUserActivityRequest", user_id=user.user_id, action="app.noted"), timeout=30)
        rows()
        for stream in streams:
            stream.cancel()


def case_keepalive():
    """Pings every 10 s, with and without a call, for 40 s: one connection throughout."""
    with open_channel(KEEPALIVE) as channel:
        client = Client(channel)
        user = create(client)
        states = []
        channel.subscribe(states.append)
        time.sleep(20)  # without a call
        client.GetUser(request("GetUserRequest", user_id=user.user_id), timeout=30)
        stream = client.StreamUserActivities(request("StreamUserActivitiesRequest", user_id=user.user_id), timeout=120)
        next(stream)
        time.sleep(25)  # with a call
        client.RecordUserActivity(request("RecordUserActivityRequest", user_id=user.user_id, action="app.noted"), timeout=30)
        check(next(stream).action == "app.noted", "another row")
        stream.cancel()
        lost = [s for s in states if s in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.IDLE)]
        check(not lost[1:] and grpc.ChannelConnectivity.TRANSIENT_FAILURE not in lost, states)


def case_no_token():
    """A call of each kind without credentials."""
    with open_channel() as channel:
        client = Client(channel, token="")
        missing = grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING"
        want_error(lambda: client.GetUser(request("GetUserRequest", user_id=1), timeout=30), *missing)
        want_error(lambda: client.StreamUserActivities(request("StreamUserActivitiesRequest"), timeout=30), *missing)
        want_error(lambda: client.BatchUpdateUsers(iter([]), timeout=30), *missing)
        want_error(lambda: client.SyncUserStatus(iter([]), timeout=30), *missing)


def case_rate_limited():
    """Of calls beyond the rate each is refused with the reason, on one connection."""
    with open_channel() as channel:
        client = Client(channel)
        for _ in range(200):
            try:
                client.GetUser(request("GetUserRequest", user_id=1), timeout=30)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    continue
                check(error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, "%s: %s" % (error.code(), error.details()))
                check(detail(status_of(error), "google.rpc.ErrorInfo").reason == "RATE_LIMITED", error)
                check(detail(status_of(error), "google.rpc.RetryInfo").retry_delay.nanos, error)
                return
        raise AssertionError("200 calls, and none was refused")


def case_wrong_host():
    """Another authority than that of the machine."""
    with open_channel([("grpc.default_authority", "userd")]) as channel:
        client = Client(channel)
        error = want_error(lambda: client.GetUser(request("GetUserRequest", user_id=1), timeout=30),
                           grpc.StatusCode.PERMISSION_DENIED, "HOST_NOT_ALLOWED")
        check("--allow-host" in error.details(), error.details())


def case_unknown_method():
    """Methods and services that there are not."""
    token = os.environ.get("USERD_TOKEN", "")
    metadata = [("authorization", "Bearer " + token)] if token else []
    with open_channel() as channel:
        for path in ("/user.v1.UserService/Nothing", "/user.v2.UserService/GetUser", "/nothing"):
            call = channel.unary_unary(path, request_serializer=None, response_deserializer=None)
            error = error_of(lambda: list([call(b"", metadata=metadata, timeout=30)]))
            check(error.code() == grpc.StatusCode.UNIMPLEMENTED, "%s: %s %s" % (path, error.code(), error.details()))
            check("404" not in (error.details() or ""), "%s: %s" % (path, error.details()))


def case_many_violations():
    """12 bad tags and 12 bad metadata entries come with their details."""
    with open_channel() as channel:
        client = Client(channel)
        name = "grpcio " + uuid.uuid4().hex[:12]
        bad = request(
            "CreateUserRequest", username=name, email=name.replace(" ", ".") + "@example.org",
            tags=["%d" % i + "x" * 200 for i in range(12)],
            metadata={"key %d" % i + "k" * 200: "v" * 2000 for i in range(12)},
        )
        error = want_error(lambda: client.CreateUser(bad, timeout=30), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
        violations = detail(status_of(error), "google.rpc.BadRequest").field_violations
        check(len(violations) >= 3 and "tags" in violations[0].field, violations)
        size = sum(len(k) + len(v) + 32 for k, v in error.trailing_metadata())
        check(size <= 8192, "trailers of %d bytes" % size)
        for bad_ids in (list(range(-10_000, 0)), [0] * 10_000):
            error = error_of(lambda: client.WatchUserStatus(request("WatchUserStatusRequest", user_ids=bad_ids), timeout=30))
            check(error.code() == grpc.StatusCode.INVALID_ARGUMENT, "%s: %s" % (error.code(), error.details()))
            status_of(error)


def case_too_large():
    """A message over the limit, of which most is still to be sent when it is refused."""
    with open_channel() as channel:
        client = Client(channel)
        bad = request("CreateUserRequest", username="x" * (12 << 20), email="large@example.org")
        want_error(lambda: client.CreateUser(bad, timeout=30), grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")


def case_health():
    """Check, and Watch of a name that is not known, which stays open."""
    with open_channel() as channel:
        raw = dict(request_serializer=None, response_deserializer=None)
        check(channel.unary_unary("/grpc.health.v1.Health/Check", **raw)(b"", timeout=30) == b"\x08\x01", "not serving")
        error = error_of(lambda: list([channel.unary_unary("/grpc.health.v1.Health/Check", **raw)(b"\n\x04nope", timeout=30)]))
        check(error.code() == grpc.StatusCode.NOT_FOUND, error.code())
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch", **raw)(b"\n\x04nope", timeout=60)
        check(next(watch) == b"\x08\x03", "not SERVICE_UNKNOWN")
        time.sleep(2)
        check(watch.is_active(), "the watch ended")
        watch.cancel()


def case_idle_behind_proxy():
    """Streams that wait for 70 s behind a proxy with its usual timeouts, by progress."""
    with open_channel(KEEPALIVE) as channel:
        client = Client(channel)
        user = create(client)
        stop = threading.Event()

        def messages():
            yield request("UserStatusUpdate", user_id=user.user_id, client_seq=1, progress=True)
            stop.wait(120)

        streams = {
            "StreamUserActivities": client.StreamUserActivities(
                request("StreamUserActivitiesRequest", user_id=user.user_id, from_head=True, progress=True), timeout=150),
            "WatchUserStatus": client.WatchUserStatus(
                request("WatchUserStatusRequest", user_ids=[user.user_id], progress=True), timeout=150),
            "SyncUserStatus": client.SyncUserStatus(messages(), timeout=150),
        }
        seen = {name: [] for name in streams}

        def read(name):
            try:
                for item in streams[name]:
                    seen[name].append(item)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.CANCELLED:
                    seen[name].append(error)

        readers = [threading.Thread(target=read, args=(name,)) for name in streams]
        for reader in readers:
            reader.start()
        time.sleep(70)
        client.UpdateUserStatus(request("UpdateUserStatusRequest", user_id=user.user_id, status=3), timeout=30)
        time.sleep(2)
        stop.set()
        for stream in streams.values():
            stream.cancel()
        for reader in readers:
            reader.join()
        for name, items in seen.items():
            errors = [item for item in items if isinstance(item, grpc.RpcError)]
            check(not errors, "%s ended: %s" % (name, [(e.code(), e.details()) for e in errors]))
            last = [i for i in items if getattr(i, "status", 0) == 3 or getattr(i, "action", "") == "user.status_changed"]
            check(last, "%s did not deliver the change: %s" % (name, items))


def main():
    for name in sys.argv[1:]:
        began, failure = time.monotonic(), None
        try:
            globals()["case_" + name.replace("-", "_")]()
        except AssertionError as error:
            failure = str(error)
        except Exception:  # whatever it is, it is reported, and the next case has its turn
            failure = traceback.format_exc()
        print(json.dumps({"case": name, "seconds": time.monotonic() - began, "error": failure}), flush=True)
    os._exit(0)  # threads of calls that were given up do not hold the program


if __name__ == "__main__":
    main()
