"""CPU per command over RESP, Pinion against Redis: the first half of scripts/collections."""

import contextlib
import itertools
import shlex
import subprocess

from bench import HOST, load, report, rounds
from bench.command import Failure
from bench.server import Server
from bench.wire import RespConnection, resp_answers

# CPU per operation, Pinion's divided by Redis's: the most that is allowed, by depth.
BARS = {1: 0.88, 16: 0.68, 64: 0.60}
REQUESTS = {1: 60_000, 16: 300_000, 64: 600_000}
FILL_DEPTH = 64
VALUE = "x" * 100

# The command that fills the collection, if it is not the measured one; and the measured one.
COMMANDS = {
    "GET": ("SET key:__rand_int__ " + VALUE, "GET key:__rand_int__"),
    "SET": (None, "SET key:__rand_int__ " + VALUE),
    "INCR": (None, "INCR counter:__rand_int__"),
    "LPUSH": (None, "LPUSH list element:__rand_int__"),
    "LPOP": ("LPUSH list element:__rand_int__", "LPOP list"),
    "SADD": (None, "SADD set element:__rand_int__"),
    "HSET": (None, "HSET hash element:__rand_int__ __rand_int__"),
    "ZADD": (None, "ZADD zset __rand_int__ element:__rand_int__"),
    "ZRANGE": ("ZADD zset __rand_int__ element:__rand_int__", "ZRANGE zset __rand_int__ +inf BYSCORE LIMIT 0 10"),
    "ZRANK": ("ZADD zset __rand_int__ element:__rand_int__", "ZRANK zset element:__rand_int__"),
}
# Removes elements, so it needs as many as it will remove, and leaves a collection that no other command expects.
REMOVES = "LPOP"


def send(server, words, depth, requests, options):
    """Sends a command `requests` times, from core 1."""
    numbers = {"port": server.port, "conns": options.conns, "depth": depth, "requests": requests, "keys": options.keys}
    if options.client == "load":
        load.run(*itertools.chain.from_iterable((f"--{name}", number) for name, number in numbers.items()), *words.split())
        return
    command = ["taskset", "-c", "1", "redis-benchmark", "-h", HOST, "-q"]
    command += [str(word) for both in zip(("-p", "-c", "-P", "-n", "-r"), numbers.values()) for word in both]
    command += words.split()
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode or "requests per second" not in run.stdout or "rror" in run.stdout + run.stderr:
        raise Failure(f"{shlex.join(command)}\n{run.stdout}{run.stderr}")


def requests_at(depth, options):
    requests = REQUESTS[max(known for known in REQUESTS if known <= depth)]
    return requests // 20 if options.quick else requests


def fill(server, name, requests, options):
    """Fills the collection of a command, unless the command before it has left it as this one needs it."""
    filler, words = COMMANDS[name]
    filler = filler or words
    if getattr(server, "filled_by", None) == filler and name != REMOVES:
        return
    with contextlib.closing(RespConnection(server.port)) as connection:
        connection.one("FLUSHALL")
    count = options.rounds * requests if name == REMOVES else 4 * options.keys
    send(server, filler, FILL_DEPTH, count, options)
    server.filled_by = None if name == REMOVES else filler


def compare(servers, name, depth, options):
    """Medians of the rounds: the ratio test/base, and µs of CPU per operation of both."""
    requests = requests_at(depth, options)
    for server in servers.values():
        fill(server, name, requests, options)

    def measure(server, _):
        before = server.cpu_ns()
        send(server, COMMANDS[name][1], depth, requests, options)
        return {"cpu": (server.cpu_ns() - before) / 1000 / requests}

    return rounds.medians(list(rounds.alternate(servers, options.rounds, measure)), ("cpu",))["cpu"]


def measure_all(options):
    """Prints the table; returns what missed a bar."""
    missed = []
    with Server(options.base, resp_answers) as base, Server(options.test, resp_answers) as test:
        servers = {"base": base, "test": test}
        titles = (f"depth {depth}" + (f" (bar {BARS[depth]})" if depth in BARS else "") for depth in options.depths)
        report.print_head([f"{options.conns} connections", *itertools.chain.from_iterable((t, "µs") for t in titles)])
        for name in options.commands:
            cells = [name]
            for depth in options.depths:
                cpu = compare(servers, name, depth, options)
                bar = BARS.get(depth)
                cells += [report.judged(cpu["ratio"], bar), f"{cpu['test']:.2f} vs {cpu['base']:.2f}"]
                if bar is not None and cpu["ratio"] > bar:
                    missed.append(f"{name} at depth {depth}: {cpu['ratio']:.2f} > {bar}")
            report.print_row(cells)
    return missed
