"""What scripts/efficiency asks of a server, by protocol: store numbered keys, say which of them it holds, its counters.

Keys are numbers, KEY_BYTES long. `set_template` returns the bytes of a set with one %d for the key's number.
"""

import re

from bench.sampling import KEY_BYTES
from bench.server import Server
from bench.wire import Connection, memcached_stats

KEY = b"k%015d"
assert len(KEY % 0) == KEY_BYTES
GET_KEYS = 100
GETS_IN_FLIGHT = 8


class Holder(Server):
    """A server on one core, and a connection to it."""

    # Whether asking for a key marks it as used.
    READS_MARK = True
    # LIMIT, {bin}, {shards} and {port} are replaced.
    COMMAND = ""

    def __init__(self, core, limit_mib, **replaced):
        command = self.COMMAND.replace("LIMIT", str(limit_mib))
        for name, value in replaced.items():
            command = command.replace("{%s}" % name, str(value))
        super().__init__(f"taskset -c {core} {command}")
        try:
            self.connection = Connection(self.port)
        except BaseException:
            super().stop()
            raise

    def __exit__(self, *_):
        self.connection.close()
        self.stop()


class Memcached(Holder):
    COMMAND = "memcached -t 1 -p {port} -l 127.0.0.1 -u nobody -m LIMIT"

    @staticmethod
    def set_template(value_bytes, ttl_seconds):
        return b"set %s 0 %d %d noreply\r\n%s\r\n" % (KEY, ttl_seconds, value_bytes, b"v" * value_bytes)

    def send_sets(self, sets):
        # The reply to `version` acknowledges all sets before it, which bounds those in flight.
        self.connection.send(sets + b"version\r\n")

    def wait_for_sets(self, count):
        """Waits until the oldest batch in flight is stored."""
        if not (reply := self.connection.receive_line()).startswith(b"VERSION "):
            raise ValueError(f"a set was answered with {bytes(reply)}")

    def held(self, numbers):
        """Which of the keys it holds, and the bytes of their values."""
        request = b"get" + b" " + b" ".join([KEY] * GET_KEYS) + b"\r\n"
        hits, value_bytes = [], 0
        for start in range(0, len(numbers), GET_KEYS * GETS_IN_FLIGHT):
            part = numbers[start : start + GET_KEYS * GETS_IN_FLIGHT]
            whole = len(part) // GET_KEYS
            requests = request * whole % tuple(part[: whole * GET_KEYS])
            if rest := part[whole * GET_KEYS :]:
                requests += b"get " + b" ".join([KEY] * len(rest)) % tuple(rest) + b"\r\n"
            count = whole + bool(rest)
            self.connection.send(requests)
            replies = self.connection.receive(
                lambda received: received.endswith(b"END\r\n") and received.count(b"END\r\n") == count
            )
            for number, length in re.findall(rb"VALUE k(\d{15}) 0 (\d+)\r\n", replies):
                hits.append(int(number))
                value_bytes += int(length)
        return hits, value_bytes

    def accounting(self):
        """Its own counters: items and, where it has one, user bytes."""
        stats = memcached_stats(self.connection)
        return int(stats["curr_items"]), int(stats["user_bytes"]) if "user_bytes" in stats else None


class Pinion(Memcached):
    COMMAND = "{bin} -t {shards} -p {port} --resp-port 0 --admin-port 0 -m LIMIT"


class Redis(Holder):
    READS_MARK = False
    COMMAND = (
        "redis-server --port {port} --bind 127.0.0.1 --maxmemory LIMITmb --maxmemory-policy allkeys-lru"
        " --save '' --appendonly no"
    )

    @staticmethod
    def set_template(value_bytes, ttl_seconds):
        words = [b"SET", KEY, b"v" * value_bytes, *([b"EX", b"%d" % ttl_seconds] if ttl_seconds else [])]
        lengths = [KEY_BYTES if word is KEY else len(word) for word in words]
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % both for both in zip(lengths, words))

    def send_sets(self, sets):
        self.connection.send(sets)

    def wait_for_sets(self, count):
        stored = b"+OK\r\n" * count
        if (replies := self.connection.receive_bytes(len(stored))) != stored:
            raise ValueError(f"a set was answered with {bytes(replies[:200])}")

    def held(self, numbers):
        request = b"*2\r\n$6\r\nEXISTS\r\n$%d\r\n%s\r\n" % (KEY_BYTES, KEY)
        hits = []
        for start in range(0, len(numbers), GET_KEYS * GETS_IN_FLIGHT):
            part = numbers[start : start + GET_KEYS * GETS_IN_FLIGHT]
            self.connection.send(request * len(part) % tuple(part))
            replies = self.connection.receive_bytes(len(b":1\r\n") * len(part))
            hits += [number for number, reply in zip(part, replies[1::4], strict=True) if reply == ord("1")]
        return hits, None

    def accounting(self):
        self.connection.send(b"DBSIZE\r\n")
        return int(self.connection.receive_line()[1:]), None


HOLDERS = {"pinion": Pinion, "memcached": Memcached, "redis": Redis}
