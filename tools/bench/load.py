"""The load generator of benches/load: building it, running it on core 1."""

import functools
import json
import os
import shlex
import subprocess

from bench import ROOT
from bench.command import Failure, require_programs

CORE = 1
SECONDS_MAX = 600


@functools.cache
def binary():
    """Path of the load generator: PINION_LOAD, or benches/load built with the release profile."""
    if path := os.environ.get("PINION_LOAD"):
        return path
    require_programs("cargo")
    command = ["cargo", "bench", "--quiet", "--locked", "--bench", "load", "--no-run", "--message-format=json"]
    build = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if build.returncode:
        raise Failure(f"{shlex.join(command)}\n{build.stderr}")
    artifacts = map(json.loads, build.stdout.splitlines())
    return next(it["executable"] for it in artifacts if it.get("target", {}).get("name") == "load" and it["executable"])


def run(*arguments):
    """Runs it, and returns what it prints."""
    command = [binary(), "--core", CORE, *arguments]
    command = [str(word) for word in command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)
    if done.returncode:
        raise Failure(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def checked(server, workload, milliseconds, warm_milliseconds=150, preload=True):
    """One window of sets and gets whose every reply byte is checked: ops, p50, p99, p999, cpu (µs per operation).

    `workload` maps options of the generator (conns, depth, keys, val, mget, setpct, proto) to their values.
    """
    options = [word for name, value in workload.items() for word in (f"--{name}", value)]
    options += ["--port", server.port, "--pid", server.process.pid, "--reps", 1]
    options += ["--ms", milliseconds, "--warm", warm_milliseconds, *([] if preload else ["--nopreload"])]
    return json.loads(run(*options))
