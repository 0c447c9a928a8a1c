"""A WebSocket client: `websocket_client.py ws://HOST:PORT` holds every conversation and prints what it saw."""

import asyncio
import hashlib
import json
import os
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

MEBIBYTE = 1 << 20
OPTIONS = {"max_size": 4 * MEBIBYTE, "open_timeout": 10, "close_timeout": 10, "proxy": None}


async def echo(base):
    async with connect(base + "/echo", subprotocols=["chat.example"], **OPTIONS) as socket:
        result = {"subprotocol": socket.subprotocol, "compressed": bool(socket.protocol.extensions)}
        await socket.send("grüß dich")
        result["text"] = await socket.recv()
        started = time.monotonic()
        await asyncio.wait_for(await socket.ping(b"client ping"), 10)
        result["pong_ms"] = 1000 * (time.monotonic() - started)
        large = os.urandom(MEBIBYTE)
        await socket.send(large)
        result["large_intact"] = await asyncio.wait_for(socket.recv(), 20) == large
        await asyncio.sleep(1.5)
        await socket.send("after a pause")
        result["after_a_pause"] = await socket.recv()
        await socket.close(4001, "client says bye")
        result["close"] = [socket.close_code, socket.close_reason]
    return result


async def push(base):
    async with connect(base + "/push", **OPTIONS) as socket:
        result = {"first": await socket.recv()}
        large = await asyncio.wait_for(socket.recv(), 20)
        await socket.send(hashlib.sha256(large).hexdigest())
        try:
            await asyncio.wait_for(socket.recv(), 10)
        except ConnectionClosed:
            result["close"] = [socket.close_code, socket.close_reason]
    return result


async def both_ways(base):
    async with connect(base + "/both-ways", compression=None, **OPTIONS) as socket:

        async def send():
            for number in range(500):
                await socket.send(f"client {number}")

        async def receive():
            return [await socket.recv() for _ in range(500)]

        _, received = await asyncio.wait_for(asyncio.gather(send(), receive()), 20)
        return {"in_order": received == [f"server {number}" for number in range(500)]}


async def refused(base):
    try:
        async with connect(base + "/refused", **OPTIONS):
            return {"status": 101}
    except InvalidStatus as error:
        return {"status": error.response.status_code, "body": error.response.body.decode()}


async def main():
    base = sys.argv[1]
    print(
        json.dumps(
            {
                "echo": await echo(base),
                "push": await push(base),
                "both_ways": await both_ways(base),
                "refused": await refused(base),
            }
        )
    )


asyncio.run(main())
