"""A gRPC client: `grpc_client.py HOST:PORT` makes every kind of call and prints what it saw."""

import json
import os
import queue
import sys
import time

import grpc

LIMIT = 20


def path(method):
    return "/outrigger.test.Bytes/" + method


def text(metadata):
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in metadata or ()}


def failure(error):
    return {"code": error.code().name, "details": error.details(), "trailing": text(error.trailing_metadata())}


def unary(channel):
    call = channel.unary_unary(path("Unary"))
    body = os.urandom(3 << 20)
    answer, outcome = call.with_call(
        body, timeout=LIMIT, metadata=(("x-request-bin", b"\x00\xff\x80"), ("x-who", "client"))
    )
    many = [call.future(b"%d" % number, timeout=LIMIT) for number in range(100)]
    return {
        "intact": answer == body,
        "code": outcome.code().name,
        "initial": text(outcome.initial_metadata()),
        "trailing": text(outcome.trailing_metadata()),
        "empty": call(b"", timeout=LIMIT) == b"",
        "hundred_at_once": [future.result() for future in many] == [b"%d" % number for number in range(100)],
    }


def server_stream(channel):
    messages = list(channel.unary_stream(path("ServerStream"))(b"1000", timeout=LIMIT))
    return {"count": len(messages), "in_order": [int(m.split(b":")[0]) for m in messages] == list(range(1000))}


def client_stream(channel):
    return int(channel.stream_unary(path("ClientStream"))((b"x" * 10_000 for _ in range(300)), timeout=LIMIT))


def bidirectional(channel):
    """Each message is sent only once the answer to the one before is here: anything that buffers hangs."""
    to_send = queue.Queue()
    call = channel.stream_stream(path("Bidirectional"))(iter(to_send.get, None), timeout=LIMIT)
    received = []
    for number in range(50):
        to_send.put(b"ping %d" % number)
        received.append(next(call))
    to_send.put(None)
    rest = list(call)
    return {
        "in_order": received == [b"ping %d" % number for number in range(50)],
        "rest": len(rest),
        "code": call.code().name,
        "trailing": text(call.trailing_metadata()),
    }


def fail(channel):
    try:
        channel.unary_unary(path("Fail"))(b"", timeout=LIMIT)
    except grpc.RpcError as error:
        return failure(error)


def fail_midway(channel):
    messages = []
    try:
        for message in channel.unary_stream(path("FailMidway"))(b"", timeout=LIMIT):
            messages.append(message.decode())
    except grpc.RpcError as error:
        return {"messages": messages, **failure(error)}


def unknown(channel):
    try:
        channel.unary_unary(path("NoSuchMethod"))(b"", timeout=LIMIT)
    except grpc.RpcError as error:
        return failure(error)["code"]


def deadline(channel):
    started = time.monotonic()
    try:
        channel.unary_unary(path("Sleep"))(b"", timeout=0.5)
    except grpc.RpcError as error:
        return {"code": error.code().name, "after": time.monotonic() - started}


def cancel(channel):
    call = channel.unary_stream(path("Endless"))(b"", timeout=LIMIT)
    for _ in range(5):
        next(call)
    call.cancel()
    return call.code().name


with grpc.insecure_channel(sys.argv[1], options=[("grpc.max_receive_message_length", 16 << 20)]) as channel:
    grpc.channel_ready_future(channel).result(timeout=10)
    report = {}
    for call in (
        unary,
        server_stream,
        client_stream,
        bidirectional,
        fail,
        fail_midway,
        unknown,
        deadline,
        cancel,
        unary,
    ):
        try:
            report[call.__name__] = call(channel)
        except grpc.RpcError as error:
            report[call.__name__] = {"unexpected": failure(error)}
    print(json.dumps(report))
