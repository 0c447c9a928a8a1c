"""What the benchmarks share: servers pinned to a core, their CPU time and memory, an origin that counts, wrk."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
# What all wrk scripts ask for, so that every server has the same keys.
HOST = "bench.example"
SBIN = ["/usr/local/sbin", "/usr/sbin", "/sbin"]


class BenchError(Exception):
    """A benchmark that cannot be run, or whose numbers would mean nothing."""


def tool(name):
    path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SBIN]))
    if path is None:
        raise BenchError(f"{name} is not installed: run `tests/setup test`")
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def build(profile):
    """Builds Outrigger; returns the binary's path, wherever cargo's target folder is."""
    command = ["cargo", "build", "--locked", "--bin", "outrigger", "--profile", profile]
    command += ["--message-format", "json-render-diagnostics"]
    print(f"building: {' '.join(command[:6])} {profile}", file=sys.stderr)
    output = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False)
    if output.returncode != 0:
        raise BenchError("cargo build failed")
    messages = (json.loads(line) for line in output.stdout.splitlines())
    return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "outrigger")


@dataclass
class Server:
    """A server and all its processes, on one core, on loopback, killed by `stop`."""

    name: str
    port: int
    process: subprocess.Popen
    log: Path
    admin: int | None = None

    @classmethod
    def start(cls, name, command, port, core, folder, admin=None):
        log = folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [tool("taskset"), "-c", str(core), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        server = cls(name, port, process, log, admin)
        try:
            server.wait_until_up()
        except BaseException:
            server.stop()
            raise
        return server

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until_up(self):
        deadline = time.monotonic() + 10
        while True:
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended at start:\n{self.log.read_text(errors='replace')[-4000:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise BenchError(f"{self.name} does not listen:\n{self.log.read_text()[-4000:]}") from None
                time.sleep(0.02)

    def stop(self):
        # Asked first, so that a master process can reap its workers.
        self.process.terminate()
        try:
            self.process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            pass
        try:
            # Whatever is left in the session that `start` opened.
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def pids(self):
        """The server's process and its children (workers)."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def cpu_seconds(self):
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory_bytes(self, field_name="VmRSS"):
        """Resident memory: now (`VmRSS`), or the most there ever was (`VmHWM`)."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field_name + ":"):
                return int(line.split()[1]) * 1024
        raise BenchError(f"{self.name} has ended:\n{self.log.read_text(errors='replace')[-4000:]}")

    def get(self, path, headers=None, port=None):
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=10)
        try:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def cache_status(self, path):
        """What `Cache-Status` says, for the host that all scripts ask for."""
        _, headers, _ = self.get(path, {"Host": HOST})
        return next((value for name, value in headers if name.lower() == "cache-status"), "")

    def metrics(self):
        """Every sample on the admin port, by its name and labels."""
        _, _, page = self.get("/metrics", port=self.admin)
        lines = (line.rsplit(" ", 1) for line in page.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}


NGINX_COMMON = """
daemon off;
worker_processes 1;
{user}
pid {folder}/{name}.pid;
error_log {folder}/{name}.error warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/{name}-1;
    proxy_temp_path {folder}/{name}-2;
    fastcgi_temp_path {folder}/{name}-3;
    uwsgi_temp_path {folder}/{name}-4;
    scgi_temp_path {folder}/{name}-5;
    default_type text/plain;
{http}
}}
"""


def start_nginx(name, http, port, core, folder):
    config = folder / f"{name}.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(NGINX_COMMON.format(user=user, folder=folder, name=name, http=http))
    command = [tool("nginx"), "-p", folder, "-c", config, "-e", folder / f"{name}.error"]
    return Server.start(name, command, port, core, folder)


ORIGIN_HTTP = """
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /status {{ stub_status; }}
        location = /pass {{ add_header Cache-Control "no-store"; return 200 "{body_1k}"; }}
        location / {{ add_header Cache-Control "max-age=3600"; return 200 "{body}"; }}
    }}
"""


class Origin:
    """An nginx that answers from its configuration: `/pass` 1 KiB that nobody may store, all else for an hour."""

    def __init__(self, folder, core, body_bytes=1024, body=None):
        port = free_port()
        http_block = ORIGIN_HTTP.format(port=port, body=body or "o" * body_bytes, body_1k="p" * 1024)
        self.server = start_nginx("origin", http_block, port, core, folder)
        self.port = port
        self.asked = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop()

    def counts(self):
        """(connections accepted, requests served) so far; asking is one of each, and is not counted."""
        _, _, body = self.server.get("/status")
        accepted, _handled, requests = map(int, body.split(b"\n")[2].split())
        self.asked += 1
        return accepted - self.asked, requests - self.asked

    def settled_counts(self):
        """The counts, once the requests that were under way when wrk left have been served."""
        before, counts = None, self.counts()
        while before != counts:
            time.sleep(0.2)
            before, counts = counts, self.counts()
        return counts


WRK_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "failed": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
"""


@dataclass
class Load:
    """wrk: kept connections, on the load's core. Loads that run at once need names of their own."""

    core: int | str
    folder: Path
    connections: int = 64
    script: str = ""
    threads: int = 1
    name: str = "wrk"

    def run(self, url, seconds, enough=None):
        """Loads for so many seconds, or until `enough()`, which is asked four times a second."""
        wrk = self.start(url, seconds)
        try:
            while enough and wrk.poll() is None:
                time.sleep(0.25)
                if enough():
                    wrk.send_signal(signal.SIGINT)
                    break
            return self.report(wrk, seconds + 30)
        finally:
            wrk.kill()
            wrk.wait()

    @contextmanager
    def behind(self, url):
        """Loads for as long as the block runs; fails if it has ended before."""
        wrk = self.start(url, 3600)
        try:
            yield
            if wrk.poll() is not None:
                raise BenchError(f"wrk ended too early: {wrk.stdout.read()}")
            wrk.send_signal(signal.SIGINT)
            self.report(wrk, 30)
        finally:
            wrk.kill()
            wrk.wait()

    def start(self, url, seconds):
        script = self.folder / f"{self.name}.lua"
        script.write_text(self.script + WRK_REPORT)
        command = [tool("taskset"), "-c", str(self.core), tool("wrk"), f"-t{self.threads}", f"-c{self.connections}"]
        command += [f"-d{seconds}s", "--timeout", "10s", "-s", str(script), url]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def report(self, wrk, limit):
        try:
            output, _ = wrk.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise BenchError(f"wrk did not end: {' '.join(wrk.args)}") from None
        reports = [line for line in output.splitlines() if line.startswith("{")]
        if wrk.returncode != 0 or not reports:
            raise BenchError(f"wrk failed: {output}")
        return json.loads(reports[-1])


def start_outrigger(binary, origin_port, memory, core, folder, name="outrigger", more=""):
    """Outrigger with one worker; `more` is put into the bootstrap file."""
    port, admin = free_port(), free_port()
    config = folder / f"{name}.yaml"
    config.write_text(
        f"listeners: [{{address: 127.0.0.1:{port}}}]\n"
        f"upstream: {{url: http://127.0.0.1:{origin_port}}}\n"
        f"admin: {{address: 127.0.0.1:{admin}}}\n"
        f"memory: {{{memory}}}\n"
        "workers: 1\n"
        'telemetry: {accessLog: "off"}\n'
        f"{more}"
    )
    return Server.start(name, [binary, "run", "--config", config], port, core, folder, admin)


def end_on_signals():
    """SIGTERM ends the benchmark as Ctrl-C does, so that the servers are stopped."""

    def stop(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


def main(run):
    end_on_signals()
    try:
        sys.exit(run())
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
