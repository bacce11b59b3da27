"""Running memtier_benchmark over memcached's text protocol."""

import json
import pathlib
import shlex
import subprocess
import tempfile

from bench import HOST
from bench.command import Failure


def memtier(port, keys, arguments, host=HOST, core=1):
    """Runs it on a core (None: on any), and returns the statistics of all its operations.

    The duration in its results can be a second off, either way, and so can its operations per second: divide `Count` by
    the seconds that it was asked for instead.
    """
    with tempfile.TemporaryDirectory() as directory:
        results = pathlib.Path(directory, "results.json")
        command = ["taskset", "-c", str(core)] if core is not None else []
        command += ["memtier_benchmark", "-P", "memcache_text", "-h", host, "-p", str(port), "--hide-histogram"]
        command += ["--key-maximum", str(keys), "--json-out-file", str(results), *arguments]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode or "response parsing failed" in run.stderr:
            raise Failure(f"{shlex.join(command)}\n{run.stdout}{run.stderr}")
        return json.loads(results.read_text())["ALL STATS"]


def preload(port, keys, value_bytes, **where):
    """Stores every key once, so that gets are hits."""
    load = ["--threads", "1", "--clients", "1", "--pipeline", "64", "--data-size", str(value_bytes)]
    memtier(port, keys, [*load, "--ratio", "1:0", "--key-pattern", "P:P", "--requests", "allkeys"], **where)


def mix(port, keys, value_bytes, clients, pipeline, seconds, threads=1, **where):
    """set:get 1:10 for some seconds; returns the statistics."""
    load = ["--threads", str(threads), "--clients", str(clients), "--pipeline", str(pipeline)]
    load += ["--ratio", "1:10", "--data-size", str(value_bytes), "--test-time", str(seconds)]
    return memtier(port, keys, load, **where)
