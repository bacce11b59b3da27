"""Attacks on a running server: what hostile or careless clients do, what another client sees meanwhile, and what the
server holds.

Each attack is a function of a `Target` and a scale; it returns when it has done its worst. A probe in a process of its
own asks for one small key all the time.
"""

import contextlib
import multiprocessing
import os
import pathlib
import resource
import select
import socket
import time

from bench import HOST
from bench.wire import encoded

# A probe that gets no answer for this long ends.
PROBE_SECONDS_MAX = 60
# How often the probe asks.
PROBE_PERIOD_SECONDS = 0.001
# Bytes that a client writes or reads at once.
CHUNK_BYTES = 256 << 10


class Target:
    """The server under attack: its ports and process."""

    def __init__(self, resp_port, memcached_port, pid):
        self.resp_port, self.memcached_port, self.pid = resp_port, memcached_port, pid

    def connect(self, port=None):
        connection = socket.create_connection((HOST, port or self.resp_port), timeout=PROBE_SECONDS_MAX)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def resident_bytes(self):
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) << 10

    def ask(self, *words):
        """The first line of the reply to a command on a connection of its own."""
        with contextlib.closing(self.connect()) as connection:
            connection.sendall(encoded(*words))
            return first_line(connection)


def first_line(connection):
    received = b""
    while b"\r\n" not in received:
        some = connection.recv(4096)
        if not some:
            raise ConnectionError("closed instead of an answer")
        received += some
    return received.split(b"\r\n", 1)[0]


def probe(port, until, results):
    """Asks for a small key until `until` is set; puts the waits, in seconds, into `results`."""
    with contextlib.suppress(PermissionError):
        # The attackers run on the same core: what the probe waits for must be the server.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    waits = []
    with contextlib.closing(socket.create_connection((HOST, port), timeout=PROBE_SECONDS_MAX)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not until.is_set():
            began = time.monotonic()
            try:
                connection.sendall(encoded("GET", "probe"))
                first_line(connection)
            except OSError:
                waits.append(float("inf"))
                break
            waits.append(time.monotonic() - began)
            time.sleep(PROBE_PERIOD_SECONDS)
    results.put(waits)


@contextlib.contextmanager
def probed(target, outcome):
    """Runs a probe during a block, and notes what it saw in `outcome`."""
    until, results = multiprocessing.Event(), multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=probe, args=(target.resp_port, until, results), daemon=True)
    process.start()
    try:
        yield
    finally:
        until.set()
        waits = sorted(results.get())
        process.join()
        outcome["probes"] = len(waits)
        if not waits:
            return
        outcome["p50_ms"] = round(waits[len(waits) // 2] * 1000, 2)
        outcome["longest_ms"] = round(waits[-1] * 1000, 1)


class Flood:
    """Connections that each send one message again and again, and read what comes back."""

    def __init__(self, target, count, message, reply_bytes, port=None):
        self.message, self.reply_bytes = message, reply_bytes
        self.poll = select.epoll()
        self.clients = {}
        for _ in range(count):
            connection = target.connect(port)
            connection.setblocking(False)
            self.clients[connection.fileno()] = [connection, 0, 0]
            self.poll.register(connection.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def run(self, seconds):
        """Returns the replies of each connection."""
        view = memoryview(self.message)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for number, events in self.poll.poll(0.05):
                client = self.clients[number]
                connection, sent, received = client
                if events & select.EPOLLIN:
                    with contextlib.suppress(BlockingIOError):
                        received += len(connection.recv(CHUNK_BYTES))
                # One message is under way at a time: the next follows its reply.
                may_send = sent < len(view) * (received // self.reply_bytes + 1)
                if may_send and events & select.EPOLLOUT:
                    at = sent % len(view)
                    with contextlib.suppress(BlockingIOError):
                        sent += connection.send(view[at : at + CHUNK_BYTES])
                waits_for_reply = sent >= len(view) * (received // self.reply_bytes + 1)
                self.poll.modify(number, select.EPOLLIN | (0 if waits_for_reply else select.EPOLLOUT))
                client[1:] = sent, received
        return [received / self.reply_bytes for _, _, received in self.clients.values()]

    def close(self):
        for connection, _, _ in self.clients.values():
            connection.close()
        self.poll.close()


def flood(target, outcome, count, message, reply_bytes, seconds, port=None):
    attackers = Flood(target, count, message, reply_bytes, port)
    with probed(target, outcome):
        replies = attackers.run(seconds)
    attackers.close()
    outcome["replies"] = round(sum(replies))
    outcome["per_second"] = round(sum(replies) / seconds)
    outcome["fewest"], outcome["most"] = round(min(replies), 1), round(max(replies), 1)


def write_large(target, outcome, scale):
    """Attack 1: connections that keep writing values of 1 MiB to one key, and read their replies."""
    flood(target, outcome, scale, encoded("SET", "big", bytes(1 << 20)), len(b"+OK\r\n"), 5)


def read_large(target, outcome, scale):
    """Attack 1: connections that keep reading a value of 1 MiB."""
    target.ask("SET", "big", bytes(1 << 20))
    flood(target, outcome, scale, encoded("GET", "big"), len(b"$1048576\r\n") + (1 << 20) + 2, 5)


def wrong_lines(target, outcome, scale):
    """Attack 1: connections that send lines of one byte to memcached's port, 16 KiB of them at a time."""
    lines = b"a\r\n" * 5461
    flood(target, outcome, scale, lines, len(b"ERROR\r\n") * 5461, 5, target.memcached_port)


def cut_commands(target, outcome, scale):
    """Attack 2: commands of several keys that end in the middle."""
    before = connections(target)
    for command in (b"EXISTS", b"DEL", b"UNLINK", b"TOUCH", b"MGET"):
        for _ in range(scale // 5):
            with contextlib.closing(target.connect()) as connection:
                connection.sendall(b"*3\r\n$%d\r\n%s\r\n$1\r\na\r\n" % (len(command), command))
    deadline = time.monotonic() + 5
    while (left := connections(target) - before) > 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    outcome["connections_left"] = left


def connections(target):
    with contextlib.closing(target.connect()) as connection:
        connection.sendall(encoded("INFO", "clients"))
        received = b""
        while b"connected_clients:" not in received or not received.endswith(b"\r\n"):
            received += connection.recv(1 << 16)
        return int(received.split(b"connected_clients:")[1].split(b"\r\n")[0])


def long_replies(target, outcome, scale):
    """Attack 4: commands whose replies are a gigabyte."""
    target.ask("SADD", "set", bytes(1 << 10))
    target.ask("HSET", "hash", "field", bytes(1 << 20))
    with probed(target, outcome):
        outcome["srandmember"] = target.ask("SRANDMEMBER", "set", -1048576)[:60].decode()
        outcome["hmget"] = target.ask("HMGET", "hash", *(["field"] * 2000))[:60].decode()


def slow_log(target, outcome, scale):
    """Attack 5: slow commands with long arguments, which the log of them could keep."""
    target.ask("CONFIG", "SET", "slowlog-log-slower-than", 0)
    target.ask("CONFIG", "SET", "slowlog-max-len", 2000)
    with probed(target, outcome):
        for n in range(scale):
            target.ask("HSET", "logged", "field", bytes(1 << 20))
    target.ask("CONFIG", "SET", "slowlog-log-slower-than", 10000)


def held(target, outcome, clients, message, seconds=3):
    """Clients that send a message and read nothing, for some seconds; then all of them leave."""
    opened = []
    with probed(target, outcome):
        for _ in range(clients):
            connection = target.connect()
            connection.setblocking(False)
            opened.append(connection)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                view = memoryview(message)
                while view:
                    view = view[connection.send(view) :]
        peak, deadline = 0, time.monotonic() + seconds
        while time.monotonic() < deadline:
            peak = max(peak, target.resident_bytes())
            time.sleep(0.05)
    for connection in opened:
        connection.close()
    outcome["peak_mib"] = peak >> 20


def unread_pipelines(target, outcome, scale):
    """Attack 6: pipelines of GETs whose replies are never read."""
    target.ask("SET", "ten", bytes(10 << 10))
    held(target, outcome, scale, encoded("GET", "ten") * 2000)


def unread_fields(target, outcome, scale):
    """Attack 6: fields of 15 MiB that are asked for and not read."""
    target.ask("HSET", "fields", "long", bytes(15 << 20))
    held(target, outcome, scale, encoded("HGET", "fields", "long"))


def half_sent(target, outcome, scale):
    """Attack 6: arguments of 30 MiB that end 10 bytes early."""
    held(target, outcome, scale, encoded("HSET", "half", "field", bytes(30 << 20))[:-10])


def globs(target, outcome, scale):
    """Attack 7: patterns that backtrack, over long keys and a long member."""
    key = b"a" * 3900
    for n in range(scale):
        target.ask("SET", key + b"%d" % n, "v")
    target.ask("SADD", "long", b"a" * (256 << 10))
    pattern = b"*a" * 1950 + b"b"
    with probed(target, outcome):
        began = time.monotonic()
        target.ask("KEYS", pattern)
        target.ask("SSCAN", "long", 0, "MATCH", pattern)
        outcome["seconds"] = round(time.monotonic() - began, 2)


def long_commands(target, outcome, scale):
    """Attack 14: commands of so many members, and on strings of a hundred times as many bytes."""
    members = [b"m%07d" % n for n in range(scale)]
    scored = [word for n, member in enumerate(members) for word in (n, member)]
    commands = [
        ("SADD", "set", *members),
        ("SMISMEMBER", "set", *members),
        ("SPOP", "set", scale // 2),
        ("ZADD", "sorted", *scored),
        ("ZRANGE", "sorted", 0, -1),
        ("SETRANGE", "bits", 100 * scale, "x"),
        ("BITCOUNT", "bits"),
        ("DUMP", "bits"),
        ("CLIENT", "LIST", "ID", *range(1, scale)),
    ]
    messages = [encoded(*words) for words in commands]
    with probed(target, outcome):
        began = time.monotonic()
        for message in messages:
            with contextlib.closing(target.connect()) as attacker:
                attacker.sendall(message)
                first_line(attacker)
        outcome["seconds"] = round(time.monotonic() - began, 2)


def stalled_upload(target, outcome, scale):
    """Attack 8: an upload that stops 10 bytes before its end; how long others' SET of 20 KB is refused."""
    message = encoded("SET", "stalled", bytes(32 << 20))[:-10]
    with contextlib.closing(target.connect()) as attacker:
        attacker.sendall(message)
        began = time.monotonic()
        refused = 0.0
        while time.monotonic() - began < 10:
            if not target.ask("SET", "other", bytes(20_000)).startswith(b"+OK"):
                refused = time.monotonic() - began
            time.sleep(0.02)
    outcome["refused_seconds"] = round(refused, 2)


def long_pipeline(target, outcome, scale):
    """A million SETs that are sent before any reply is read."""
    with contextlib.closing(target.connect()) as client:
        began = time.monotonic()
        command = encoded("SET", "pipelined", "v")
        for _ in range(scale):
            client.sendall(command * 1000)
        left = scale * 1000 * len(b"+OK\r\n")
        while left > 0:
            some = client.recv(CHUNK_BYTES)
            if not some:
                raise ConnectionError("closed within the pipeline")
            left -= len(some)
        outcome["seconds"] = round(time.monotonic() - began, 1)


# Each attack with its scale: connections, keys or repetitions, first for a short run.
ATTACKS = {
    "write-large": (write_large, (50, 200)),
    "read-large": (read_large, (50, 1000)),
    "wrong-lines": (wrong_lines, (50, 1000)),
    "cut-commands": (cut_commands, (100, 200)),
    "long-replies": (long_replies, (1, 1)),
    "slow-log": (slow_log, (50, 1500)),
    "unread-pipelines": (unread_pipelines, (200, 1000)),
    "unread-fields": (unread_fields, (20, 100)),
    "half-sent": (half_sent, (10, 60)),
    "globs": (globs, (500, 5000)),
    "long-commands": (long_commands, (50_000, 300_000)),
    "stalled-upload": (stalled_upload, (1, 1)),
    "long-pipeline": (long_pipeline, (100, 1000)),
}


def run(target, name, is_short):
    """Runs an attack; returns what was seen: of the probe, of resident memory in MiB before, at the end, and after."""
    attack, scales = ATTACKS[name]
    target.ask("SET", "probe", "v")
    outcome = {"attack": name, "scale": scales[0 if is_short else 1], "idle_mib": target.resident_bytes() >> 20}
    attack(target, outcome, outcome["scale"])
    outcome["end_mib"] = target.resident_bytes() >> 20
    return outcome


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
