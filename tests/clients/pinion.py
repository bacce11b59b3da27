"""A real Pinion process for the tests, and how they wait for it."""

import os
import pathlib
import queue
import re
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 30
POLL_SECONDS = 0.01


def binary():
    """The binary under test: $PINION_BIN, or the repository's release build."""
    path = pathlib.Path(os.environ.get("PINION_BIN") or ROOT / "target/release/pinion")
    assert path.is_file(), f"{path} does not exist: run scripts/test, or cargo build --release, or set PINION_BIN"
    return path


def until(condition, seconds=10):
    """Polls a condition until it holds and returns what it returned; fails when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition.__doc__ or condition}"
        time.sleep(POLL_SECONDS)
    return result


class Node:
    """One server on ports that the kernel chose, or on `port`; RESP is on `resp_port`."""

    def __init__(self, shards=1, memory_mib=64, port="auto", arguments=()):
        self.shards, self.memory_mib = shards, memory_mib
        command = [binary(), "-p", str(port), "--resp-port", "auto", "-l", HOST]
        command += ["-t", str(shards), "-m", str(memory_mib), *arguments]
        # PINION_BIN and the like are ours; what the server would read from its environment is not under test.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PINION_")}
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.log, self._arrived = [], queue.Queue()
        # The log is read all the time: a full pipe would stop the server.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.port = int(self._wait_for_line(r"listening protocol=\"memcached\" address=[^ ]*:(\d+)")[1])
            self.resp_port = int(self._wait_for_line(r"listening protocol=\"resp\" address=[^ ]*:(\d+)")[1])
            self._wait_for_line(r" ready ")
        except BaseException:
            self.kill()
            raise

    def _read(self):
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line)
                self._arrived.put(line)
        self._arrived.put(None)

    def _wait_for_line(self, pattern):
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                line = self._arrived.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"the server did not log {pattern!r}; it logged:\n{''.join(self.log)}"
            if found := re.search(pattern, line):
                return found

    @property
    def address(self):
        return HOST, self.port

    @property
    def name(self):
        return f"{HOST}:{self.port}"

    def connect(self):
        """A plain connection."""
        return socket.create_connection(self.address, timeout=10)

    def stop(self):
        """Stops it as an operator does; it must end in peace. A second call does nothing."""
        if self.process.returncode is not None:
            return
        assert self.process.poll() is None, f"the server had ended: {self.process.returncode}\n{''.join(self.log)}"
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGTERM did not stop the server; it logged:\n{''.join(self.log)}") from None
        self._reader.join(STOP_SECONDS_MAX)
        assert status == 0, f"SIGTERM ended the server with status {status}; it logged:\n{''.join(self.log)}"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self._reader.join(STOP_SECONDS_MAX)
