"""Server processes under test: starting one, waiting until it answers, its CPU time and memory, stopping it."""

import os
import pathlib
import re
import shlex
import socket
import subprocess
import tempfile
import time

from bench import HOST, PINION
from bench.command import Failure

START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 10
POLL_SECONDS = 0.02

# Default commands: one thread each on core 0. {port} is replaced.
MEMCACHED = "taskset -c 0 memcached -t 1 -p {port} -l 127.0.0.1 -u nobody -m 1024"
REDIS = "taskset -c 0 redis-server --port {port} --bind 127.0.0.1 --save '' --appendonly no"
PINION_MEMCACHED = f"taskset -c 0 {shlex.quote(str(PINION))} -t 1 -p {{port}} --resp-port 0 -m 1024"
PINION_RESP = f"taskset -c 0 {shlex.quote(str(PINION))} -t 1 -p 0 --resp-port {{port}} -m 4096"


def free_port():
    """A port that the kernel has chosen and that nobody listens on."""
    with socket.create_server((HOST, 0)) as free:
        return free.getsockname()[1]


def accepts(port):
    """A probe: the server accepts connections."""
    socket.create_connection((HOST, port), timeout=1).close()
    return True


class Server:
    """A process that listens on `port`. It is stopped when a `with` block over it ends.

    `command` is a command line in which {port} is replaced. `probe(port)` returns true once the server is ready; until
    then it returns false or raises OSError.
    """

    def __init__(self, command, probe=accepts):
        self.port = free_port()
        self.command = command.replace("{port}", str(self.port))
        self.log = tempfile.TemporaryFile("w+")
        # Settings of Pinion from the environment are not under test.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PINION_")}
        try:
            self.process = subprocess.Popen(shlex.split(self.command), stdout=self.log, stderr=self.log, env=environment)
        except OSError as error:
            self.log.close()
            raise Failure(f"{self.command}: {error}") from error
        try:
            self.wait_until(probe)
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until(self, probe):
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                if probe(self.port):
                    return
            except OSError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failure(f"no answer from: {self.command}\n{self.logged()}")
            time.sleep(POLL_SECONDS)

    def logged(self):
        """What the server has written to standard output and standard error."""
        self.log.seek(0)
        return self.log.read()

    def cpu_ns(self):
        return cpu_ns(self.process.pid)

    def status_bytes(self, name):
        """A size from /proc/PID/status: VmRSS, VmHWM."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024

    def stop(self):
        """Sends SIGTERM, and SIGKILL to a server that does not end."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def cpu_ns(pid):
    """CPU time of all threads of a process, kernel time included."""
    total = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            # The thread has ended since the directory was read.
            continue
    return total
