"""A WebSocket origin. Reports each finished conversation as a JSON line."""

import asyncio
import hashlib
import json
import os
import time

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

MEBIBYTE = 1 << 20


def report(**fields):
    print(json.dumps(fields), flush=True)


async def echo(socket, _result):
    async for message in socket:
        await socket.send(message)


async def push(socket, result):
    """The server speaks first, pings, sends a large message, and closes."""
    await socket.send("hello from the server")
    await asyncio.wait_for(await socket.ping(b"server ping"), 10)
    result["pong"] = True
    large = os.urandom(MEBIBYTE)
    await socket.send(large)
    result["large_intact"] = await asyncio.wait_for(socket.recv(), 10) == hashlib.sha256(large).hexdigest()
    await socket.close(4002, "server says bye")


async def both_ways(socket, result):
    """Both sides send at once, neither waiting for the other."""

    async def send():
        for number in range(500):
            await socket.send(f"server {number}")

    async def receive():
        return [await socket.recv() for _ in range(500)]

    _, received = await asyncio.wait_for(asyncio.gather(send(), receive()), 20)
    result["in_order"] = received == [f"client {number}" for number in range(500)]
    await socket.wait_closed()


CONVERSATIONS = {"/echo": echo, "/push": push, "/both-ways": both_ways}


async def handle(socket):
    path = socket.request.path
    result = {"path": path, "headers": {name.lower(): value for name, value in socket.request.headers.raw_items()}}
    try:
        await CONVERSATIONS[path](socket, result)
    except ConnectionClosed:
        pass
    except Exception as error:  # reported, and judged by the test
        result["error"] = repr(error)
    await socket.wait_closed()
    result["close"] = [socket.close_code, socket.close_reason]
    result["at"] = time.time()
    report(**result)


def choose(_connection, offered):
    return "chat.example" if "chat.example" in offered else None


def refuse(connection, request):
    if request.path == "/refused":
        return connection.respond(403, "not for you\n")
    return None


async def main():
    async with serve(
        handle, "127.0.0.1", 0, process_request=refuse, select_subprotocol=choose, max_size=4 * MEBIBYTE
    ) as server:
        report(port=server.sockets[0].getsockname()[1])
        await server.serve_forever()


asyncio.run(main())
