"""Named sets of paired comparisons: each table of docs/results/ that scripts/pair writes is one of these."""

import math
import re

from bench import pair, report
from bench.command import Failure
from bench.server import MEMCACHED, PINION_MEMCACHED, PINION_RESP, REDIS

# Room for 4 M keys of 100 B in every server.
LARGE = "4096"
MULTI_GET = {"depth": 4, "mget": 16}
LARGE_VALUES = {"conns": 20, "val": 65_536, "setpct": 0, "keys": 2000}
DEPTHS = (1, 16, 64)


def depths(proto):
    return {f"depth {depth}": {"proto": proto, "depth": depth} for depth in DEPTHS}


def shards(command, count):
    """A command of Pinion with another number of shards."""
    return re.sub(r" -t \d+ ", f" -t {count} ", command)


# Of each table: the default commands of both sides, and the workloads by name.
TABLES = {
    "memcached": (MEMCACHED, PINION_MEMCACHED, {
        **depths("memcached"),
        "depth 4, 16 keys per get": MULTI_GET,
        "depth 16, values of 1 KiB": {"depth": 16, "val": 1024},
        "depth 16, 4 M keys": {"depth": 16, "keys": 4_000_000},
        "500 connections, depth 1": {"conns": 500},
        "gets of 64 KiB, 20 connections, depth 1": LARGE_VALUES,
    }),
    "resp": (REDIS, PINION_RESP, {
        **depths("resp"),
        "depth 4, 16 keys per get": {"proto": "resp"} | MULTI_GET,
        "depth 16, values of 1 KiB": {"proto": "resp", "depth": 16, "val": 1024},
        "depth 16, 4 M keys": {"proto": "resp", "depth": 16, "keys": 4_000_000},
        "500 connections, depth 1": {"proto": "resp", "conns": 500},
        "gets of 64 KiB, 20 connections, depth 1": {"proto": "resp"} | LARGE_VALUES,
    }),
    "two-shards": (PINION_MEMCACHED, shards(PINION_MEMCACHED, 2), depths("memcached")),
}  # fmt: skip


def with_memory(command, mebibytes):
    """A command with another memory limit, where it has one (-m)."""
    return re.sub(r" -m \S+", f" -m {mebibytes}", command)


def measure(name, base, test, count, milliseconds, only=None):
    """Runs a table; prints a row after each comparison, and returns what is written to docs/results/.

    `base` and `test` replace the default commands where they are given. `only` is a part of the names to run.
    """
    default_base, default_test, workloads = TABLES[name]
    commands = {"base": base or default_base, "test": test or default_test}
    workloads = {title: workload for title, workload in workloads.items() if not only or only in title}
    if not workloads:
        raise Failure(f"--only {only}: no row of {name} has this in its name", status=2)
    results = {"table": name, **report.environment(commands), "rounds": count, "milliseconds": milliseconds, "rows": []}
    report.print_head([name, "CPU per operation, ratio", "µs", "throughput", "p50", "p99"])
    for title, changes in workloads.items():
        workload = pair.DEFAULTS | changes
        needs_memory = workload["keys"] > 1_000_000
        both = [with_memory(command, LARGE) if needs_memory else command for command in commands.values()]
        result = pair.compare(*both, workload, count, milliseconds)
        results["rows"].append({"name": title, "workload": workload} | rounded(result))
        cpu = result["cpu"]
        cells = [title, f"{cpu['ratio']:.2f}", f"{cpu['test']:.2f} vs {cpu['base']:.2f}"]
        report.print_row([*cells, *(f"{result[figure]['ratio']:.2f}" for figure in ("ops", "p50", "p99"))])
    return results


def rounded(result, digits=4):
    """The figures with so many significant digits."""
    def short(value):
        return round(value, digits - 1 - math.floor(math.log10(abs(value)))) if value else value
    return {figure: {side: short(value) for side, value in sides.items()} for figure, sides in result.items()}
