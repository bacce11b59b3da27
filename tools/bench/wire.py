"""Clients of memcached's text protocol and of RESP: as much of them as the measurements need."""

import contextlib
import itertools
import re
import socket

from bench import HOST
from bench.command import Failure

REPLY_SECONDS_MAX = 60


def memcached_answers(port):
    """A probe for Server: `version` is answered."""
    with socket.create_connection((HOST, port), timeout=1) as connection:
        connection.sendall(b"version\r\n")
        return connection.recv(8) == b"VERSION "


def resp_answers(port):
    """A probe for Server: PING is answered."""
    with contextlib.closing(RespConnection(port)) as connection:
        return connection.one("PING") == b"PONG"


def encoded(*words):
    """A command of RESP."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Connection:
    """A socket, and the bytes that it has received and nobody has taken yet."""

    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port), timeout=REPLY_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send = self.socket.sendall
        self.close = self.socket.close
        self.received = bytearray()

    def receive(self, complete):
        """Takes all received bytes as soon as `complete(bytes)` is true. Bytes of a later reply must not be among them."""
        while not complete(self.received):
            self.receive_some()
        received, self.received = self.received, bytearray()
        return received

    def receive_bytes(self, count):
        while len(self.received) < count:
            self.receive_some()
        taken = self.received[:count]
        del self.received[:count]
        return taken

    def receive_line(self):
        """One line, without its end."""
        searched = 0
        while (end := self.received.find(b"\n", searched)) < 0:
            searched = len(self.received)
            self.receive_some()
        return self.receive_bytes(end + 1).rstrip(b"\r\n")

    def receive_some(self):
        some = self.socket.recv(1 << 20)
        if not some:
            raise ConnectionError(f"the server has closed the connection after {bytes(self.received[-200:])}")
        self.received += some


class RespConnection(Connection):
    """Commands that are answered by one line each, or by a bulk string."""

    BATCH_COMMANDS = 1000

    def one(self, *words):
        """Sends a command; returns its reply: bytes without the type, or an int."""
        self.send(encoded(*words))
        return self.reply()

    def reply(self):
        line = self.receive_line()
        match line[:1]:
            case b"-":
                raise Failure(f"a command was answered with {bytes(line)}")
            case b":":
                return int(line[1:])
            case b"$" if line != b"$-1":
                length = int(line[1:])
                return bytes(self.receive_bytes(length + 2)[:length])
            case _:
                return bytes(line[1:])

    def used_memory(self):
        return int(re.search(rb"\bused_memory:(\d+)", self.one("INFO", "memory"))[1])

    def all(self, commands):
        """Sends encoded commands, two batches in flight, and reads their replies."""
        commands = iter(commands)
        waiting = 0
        while batch := list(itertools.islice(commands, self.BATCH_COMMANDS)):
            self.send(b"".join(batch))
            for _ in range(waiting):
                self.reply()
            waiting = len(batch)
        for _ in range(waiting):
            self.reply()


def memcached_stats(connection):
    """The general statistics, as text by name."""
    connection.send(b"stats\r\n")
    lines = connection.receive(lambda received: received.endswith(b"END\r\n")).decode().splitlines()
    words = [line.split(None, 2) for line in lines if line.startswith("STAT ")]
    return {name: value for _, name, value in (entry for entry in words if len(entry) == 3)}
