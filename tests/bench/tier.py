"""What the benchmark of the Redis tier runs: Redis, pods that share it, the same keys for all, redis-benchmark."""

import csv
import random
import string
import subprocess
import time

from harness import HOST, BenchError, Server, free_port, start_outrigger, tool

BODY_BYTES = 1024
# Of this many keys, asked one after the other, FORGETFUL finds a per cent or less in memory.
KEYS = 4096
ROOMY = "bytesMax: 256MiB"
FORGETFUL = "bytesMax: 32KiB, objectBytesMax: 32KiB"
HITS = 'outrigger_tier_lookups_total{tier="redis",result="hit"}'
STORED = 'outrigger_tier_writes_total{tier="redis",result="stored"}'
UP = 'outrigger_tier_up{tier="redis"}'

# The keys in turn; each thread begins elsewhere.
WALK = """
local threads = 0
function setup(thread)
  thread:set("at", threads * %(stride)d)
  threads = threads + 1
end
function init(args)
  texts = {}
  for key = 0, %(keys)d - 1 do
    texts[key] = "GET /key/" .. key .. " HTTP/1.1\\r\\nHost: %(host)s\\r\\n\\r\\n"
  end
end
function request()
  at = (at + 1) %% %(keys)d
  return texts[at]
end
""" % {"keys": KEYS, "stride": KEYS // 2 + 1, "host": HOST}

# What nobody has asked for before, not even an earlier wrk.
NEW_KEYS = """
local number = 0
function request()
  number = number + 1
  return "GET /new/%(run)s/" .. number .. " HTTP/1.1\\r\\nHost: %(host)s\\r\\n\\r\\n"
end
"""

# Every connection pauses before each request; the pause is no part of the latency.
PAUSES = """
function delay()
  return math.random(0, %d)
end
"""


def body():
    """Text of which no compression makes less, so that values are as large as bodies."""
    return "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=BODY_BYTES))


def wait_for(what, seconds, reached):
    deadline = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > deadline:
            raise BenchError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


class Redis:
    """A Redis without persistence, and what its own benchmark says of it."""

    def __init__(self, folder, core, client_core):
        self.port = free_port()
        self.client_core = client_core
        command = [tool("redis-server"), "--bind", "127.0.0.1", "--port", self.port, "--dir", folder]
        command += ["--save", "", "--appendonly", "no"]
        self.server = Server.start("redis", command, self.port, core, folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()

    def ask(self, *command, database=0):
        line = [tool("redis-cli"), "-h", "127.0.0.1", "-p", str(self.port), "-n", str(database), *map(str, command)]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode != 0:
            raise BenchError(f"redis-cli {' '.join(map(str, command))} failed: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def value_bytes(self):
        """The size of a stored response."""
        # The cursor comes first.
        names = self.ask("SCAN", 0, "MATCH", "or:bench:bench:e:*", "COUNT", 1000).split()[1:]
        return int(self.ask("STRLEN", names[0]))

    def benchmark(self, clients, value_bytes, seconds):
        """GETs of one value, without pipelining, from where Outrigger runs."""
        base = [tool("taskset"), "-c", str(self.client_core), tool("redis-benchmark"), "-p", str(self.port)]
        base += ["-c", str(clients), "-d", str(value_bytes), "-P", "1", "--csv", "--precision", "3"]

        def get(count):
            return self.rows([*base, "-t", "get", "-n", str(count)])["GET"]

        # A GET asks for what SET has left.
        self.rows([*base, "-t", "set", "-n", str(clients)])
        found = int(self.ask("STRLEN", "key:__rand_int__"))
        if found != value_bytes:
            raise BenchError(f"redis-benchmark asks for a value of {found} bytes, not {value_bytes}")
        guess = get(2000 * min(clients, 10))
        row = get(max(1000, int(float(guess["rps"]) * seconds)))
        self.ask("DEL", "key:__rand_int__")
        per_s = float(row["rps"])
        return {
            "per_s": per_s,
            "p50_us": 1000 * float(row["p50_latency_ms"]),
            "p99_us": 1000 * float(row["p99_latency_ms"]),
            "mean_us": 1e6 * clients / per_s,
        }

    @staticmethod
    def rows(command):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        # Warnings may come first.
        lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
        if done.returncode != 0 or len(lines) < 2:
            raise BenchError(f"redis-benchmark failed: {done.stdout}{done.stderr}")
        return {row["test"]: row for row in csv.DictReader(lines)}


def start_pod(options, origin, redis, folder, name, memory, database=0, fields=""):
    """A pod on the server core; `fields` are put into its `redis` section."""
    section = f'url: "redis://127.0.0.1:{redis.port}/{database}", namespace: bench, workload: bench, pod: {name}'
    section += ", readTimeoutMs: 100, writeTimeoutMs: 1000, connectTimeoutMs: 1000" + fields
    more = f"redis: {{{section}}}\n"
    pod = start_outrigger(options.binary, origin.port, memory, options.server_core, folder, name, more)
    try:
        wait_for(f"{name}: Redis is up", 10, lambda: pod.metrics().get(UP) == 1)
    except BaseException:
        pod.stop()
        raise
    return pod


def warm(pod, redis):
    """Every key through a pod with room for all: then they are in its memory and in Redis."""
    for key in range(KEYS):
        pod.cache_status(f"/key/{key}")
    wait_for("all keys are in Redis", 30, lambda: pod.metrics()[STORED] >= KEYS)
    held = int(redis.ask("DBSIZE"))
    if held < KEYS:
        raise BenchError(f"Redis holds {held} of {KEYS} keys")


def verify(pod, expected):
    """Of keys taken at random, `Cache-Status` says what kind of hit they are."""
    asked = random.Random(2).sample(range(KEYS), 200)
    statuses = [pod.cache_status(f"/key/{key}") for key in asked]
    from_redis = sum("; hit" in status and "detail=redis-hit" in status for status in statuses)
    hits = sum("; hit" in status for status in statuses)
    right = from_redis if expected == "redis" else hits - from_redis
    if hits != len(asked) or right < 0.95 * hits:
        raise BenchError(f"{pod.name}: of {len(asked)} keys {hits} are hits, {from_redis} of them from Redis")
    print(f"  {pod.name:<10} {hits} of {len(asked)} keys are hits, {from_redis} of them with detail=redis-hit")
