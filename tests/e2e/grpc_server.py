"""A gRPC origin with byte-valued methods, so that nothing needs a schema."""

import json
import threading
import time
from concurrent import futures

import grpc


def report(**fields):
    print(json.dumps(fields), flush=True)


def unary(request, context):
    seen = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", "sent first"),))
    context.set_trailing_metadata(
        (
            ("x-trailing", "sent last"),
            ("x-echo-bin", seen.get("x-request-bin", b"")),
            ("x-authority", seen.get("x-who", "")),
        )
    )
    return request


def server_stream(request, _context):
    for number in range(int(request)):
        yield b"%d:" % number + b"x" * 1000


def client_stream(requests, _context):
    return b"%d" % sum(len(request) for request in requests)


def bidirectional(requests, context):
    yield from requests
    context.set_trailing_metadata((("x-conversation", "complete"),))


def fail(_request, context):
    context.set_trailing_metadata((("x-reason", "tested"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "100 % wrong: grüße")


def fail_midway(_request, context):
    yield b"one"
    yield b"two"
    context.abort(grpc.StatusCode.DATA_LOSS, "gave up after two")


def sleep(_request, context):
    ended = threading.Event()
    remaining = context.time_remaining()
    context.add_callback(ended.set)
    started = time.monotonic()
    ended.wait(20)
    report(method="sleep", remaining=remaining, ended_after=time.monotonic() - started)
    return b""


def endless(_request, context):
    # Reported from the callback: a generator whose call is over is simply not asked again.
    sent = 0
    context.add_callback(lambda: report(method="endless", sent=sent))
    while sent < 2000:
        yield b"tick"
        sent += 1
        time.sleep(0.01)


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "Bidirectional": grpc.stream_stream_rpc_method_handler(bidirectional),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailMidway": grpc.unary_stream_rpc_method_handler(fail_midway),
    "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
}

server = grpc.server(
    futures.ThreadPoolExecutor(max_workers=32), options=[("grpc.max_receive_message_length", 16 << 20)]
)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("outrigger.test.Bytes", HANDLERS),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
report(port=port)
server.wait_for_termination()
