"""Memory per element of collections, Pinion against Redis: the second half of scripts/collections."""

import contextlib
import itertools
import random
import time
import zlib

from bench import report
from bench.server import Server
from bench.wire import RespConnection, encoded, resp_answers

SETTLE_SECONDS_MAX = 30
SETTLE_POLL_SECONDS = 0.5


def text(number, length):
    """A string of this length, which no other number has."""
    return b"m%0*d" % (length - 1, number)


def score(number, kind):
    match kind:
        case "integers":
            return b"%d" % (number * 7919 % 1_000_000)
        case "fractions":
            return b"%.5f" % (number * 0.61803398875 % 1000)
        # Like random numbers: most elements share their score with one or two others.
        case "drawn":
            return b"%d" % (zlib.crc32(b"%d" % number) % 1_000_000)
        case "shared by 1000":
            return b"%d" % (number % 1000)


def zset(length, kind):
    return lambda n: encoded("ZADD", "zset", score(n, kind), text(n, length))


def small_hash(number):
    fields = itertools.chain.from_iterable((b"field%d" % n, b"%d" % (number * (n + 1) % 100_003)) for n in range(10))
    return encoded("HSET", b"user:%09d" % number, *fields)


# The most bytes per element that are allowed, Pinion's divided by Redis's, and the command that adds an element.
CASES = {
    "set, 10 B": (0.6, lambda n: encoded("SADD", "set", text(n, 10))),
    "set, 16 B": (0.6, lambda n: encoded("SADD", "set", text(n, 16))),
    "set, 40 B": (0.6, lambda n: encoded("SADD", "set", text(n, 40))),
    "hash, 16 + 16 B": (0.6, lambda n: encoded("HSET", "hash", text(n, 16), text(n, 16))),
    "hash, 16 B and numbers up to 1000": (0.6, lambda n: encoded("HSET", "hash", text(n, 16), n * 7919 % 1001)),
    **{
        f"zset, {length} B, {kind}": (0.6, zset(length, kind))
        for length in (10, 16, 40)
        for kind in ("integers", "fractions")
    },
    "zset, 40 B, drawn": (0.6, zset(40, "drawn")),
    "zset, 40 B, shared by 1000": (None, zset(40, "shared by 1000")),
    "hashes of 10 fields": (0.8, small_hash),
    "list, 16 B": (None, lambda n: encoded("LPUSH", "list", text(n, 16))),
}


def settled(server, connection):
    """used_memory and VmRSS, once used_memory no longer changes."""
    deadline, last = time.monotonic() + SETTLE_SECONDS_MAX, None
    while True:
        time.sleep(SETTLE_POLL_SECONDS)
        now = connection.used_memory()
        if now == last or time.monotonic() > deadline:
            return now, server.status_bytes("VmRSS")
        last = now


def growth(command, element, order):
    """By how much used_memory and VmRSS grow, in bytes per element."""
    with Server(command, resp_answers) as server, contextlib.closing(RespConnection(server.port)) as watch:
        before = settled(server, watch)
        with contextlib.closing(RespConnection(server.port)) as connection:
            connection.all(map(element, order))
        after = settled(server, watch)
        return [(late - early) / len(order) for early, late in zip(before, after)]


def measure_all(options):
    """Prints the table; returns what missed a bar."""
    missed = []
    order = list(range(options.elements))
    random.Random(1).shuffle(order)
    report.print_head(["bytes per element", "bar", "Pinion / Redis", "used_memory", "RSS", "RSS, Pinion / Redis"])
    for name, (bar, element) in CASES.items():
        if not any(part in name for part in options.cases):
            continue
        base, test = (growth(command, element, order) for command in (options.base, options.test))
        ratio = test[0] / base[0]
        resident = f"{test[1]:.1f} vs {base[1]:.1f}"
        used = f"{test[0]:.1f} vs {base[0]:.1f}"
        report.print_row([name, bar or "", report.judged(ratio, bar), used, resident, f"{test[1] / base[1]:.2f}"])
        if bar is not None and ratio > bar:
            missed.append(f"{name}: {ratio:.2f} > {bar}")
    return missed
