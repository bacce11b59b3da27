"""The paired comparison: two servers at once, alternating rounds of a load whose every reply byte is checked."""

from bench import load, rounds
from bench.server import Server

FIGURES = ("cpu", "ops", "p50", "p99")
# A workload: options of the load generator.
DEFAULTS = {"conns": 50, "depth": 1, "val": 100, "mget": 1, "setpct": 10, "keys": 100_000, "proto": "memcached"}


def compare(base, test, workload, count, milliseconds):
    """Compares the servers that two commands start; returns medians (rounds.medians) of CPU, operations per second, p50, p99.

    CPU is in µs per operation, of all threads of a server; p50 and p99 are in µs.
    """
    load.binary()
    with Server(base) as base_server, Server(test) as test_server:
        servers = {"base": base_server, "test": test_server}
        measured = list(rounds.alternate(servers, count, lambda server, number: load.checked(
            server, workload, milliseconds, preload=number == 0
        )))  # fmt: skip
    return rounds.medians(measured, FIGURES)


def line(workload, result):
    """One line for a reader."""
    cpu = result["cpu"]
    return (
        f"{workload['proto']} {workload['conns']}x{workload['depth']} val {workload['val']} keys {workload['keys']} "
        f"mget {workload['mget']}: CPU/op {cpu['ratio']:.2f}x ({cpu['test']:.2f} vs {cpu['base']:.2f} us), "
        f"throughput {result['ops']['ratio']:.2f}x, p50 {result['p50']['ratio']:.2f}x, p99 {result['p99']['ratio']:.2f}x"
    )


def flat(result):
    """The ratios, and the CPU per operation of both sides, for a machine."""
    ratios = {figure: result[figure]["ratio"] for figure in FIGURES}
    return ratios | {f"{side}_cpu_us": result["cpu"][side] for side in rounds.SIDES}
