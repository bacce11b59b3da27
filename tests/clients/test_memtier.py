"""memtier_benchmark against a node whose memory holds a tenth of the keys: it evicts, and never answers with an error.

memtier accepts VALUE, END and STORED; it calls any other line an error in the response."""

import json
import re
import shutil
import subprocess

import pytest
from pinion import HOST

MEMORY_MIB = 16
VALUE_BYTES = 1024
KEYS = 10 * MEMORY_MIB * 1024 * 1024 // VALUE_BYTES
CLIENTS = 10
SECONDS = 3
AFTERWARDS = 100


@pytest.fixture
def memtier():
    path = shutil.which("memtier_benchmark")
    if not path:
        pytest.skip("memtier_benchmark is not installed")
    return path


@pytest.fixture
def node(start_node, shards):
    return start_node(shards=shards, memory_mib=MEMORY_MIB)


@pytest.fixture
def run(memtier, node, tmp_path):
    """Runs memtier with more arguments, and returns the operations that it counted."""

    def run(*arguments):
        results = tmp_path / "memtier.json"
        command = [memtier, "-P", "memcache_text", "-h", HOST, "-p", str(node.port), "--threads", "1"]
        command += ["--key-maximum", str(KEYS), "--data-size", str(VALUE_BYTES), "--hide-histogram"]
        command += ["--json-out-file", str(results), *arguments]
        memtier_run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        output = memtier_run.stdout + memtier_run.stderr
        assert memtier_run.returncode == 0, output
        assert "response parsing failed" not in output, output
        assert not re.search(r"\berror", output, re.IGNORECASE), output
        totals = json.loads(results.read_text())["ALL STATS"]["Totals"]
        assert totals["Connection Errors"] == 0
        return totals["Count"]

    return run


@pytest.mark.parametrize("pipeline", [1, 32])
def test_ten_times_more_keys_than_memory(run, client, pipeline):
    fill = ["--clients", "1", "--pipeline", "64", "--ratio", "1:0", "--key-pattern", "P:P"]
    stored = run(*fill, "--requests", "allkeys")
    filled = client.stats()
    assert filled[b"cmd_set"] == stored
    assert filled[b"evictions"] > KEYS // 2
    client.raw_command(b"stats reset")

    # Without seeds of their own, all clients draw the same keys.
    load = ["--clients", str(CLIENTS), "--pipeline", str(pipeline), "--ratio", "1:1", "--distinct-client-seed"]
    counted = run(*load, "--test-time", str(SECONDS))
    stats = client.stats()
    # memtier counts what was answered before its time was up, the server all that it was asked.
    assert counted <= stats[b"cmd_get"] + stats[b"cmd_set"] <= counted + CLIENTS * pipeline
    assert stats[b"get_hits"] > 0
    assert stats[b"evictions"] > 0
    assert stats[b"limit_maxbytes"] == MEMORY_MIB * 1024 * 1024
    assert stats[b"curr_items"] * VALUE_BYTES <= stats[b"bytes"] <= stats[b"limit_maxbytes"]
    # It is full, and not of overhead.
    assert stats[b"curr_items"] * VALUE_BYTES > stats[b"limit_maxbytes"] // 2

    # Full memory takes new keys all the same.
    values = {f"afterwards-{i}": f"{i}-".encode() * (VALUE_BYTES // 8) for i in range(AFTERWARDS)}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values
