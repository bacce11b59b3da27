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


@pytest.mark.parametrize("pipeline", [1, 32])
def test_ten_times_more_keys_than_memory(memtier, node, client, pipeline, tmp_path):
    results = tmp_path / "memtier.json"
    command = [memtier, "-P", "memcache_text", "-h", HOST, "-p", str(node.port)]
    command += ["--threads", "1", "--clients", "10", "--pipeline", str(pipeline), "--ratio", "1:1"]
    command += ["--key-maximum", str(KEYS), "--data-size", str(VALUE_BYTES), "--test-time", str(SECONDS)]
    command += ["--hide-histogram", "--json-out-file", str(results)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    output = run.stdout + run.stderr
    assert run.returncode == 0, output
    assert "response parsing failed" not in output
    assert not re.search(r"\berror", output, re.IGNORECASE), output
    totals = json.loads(results.read_text())["ALL STATS"]["Totals"]
    assert totals["Connection Errors"] == 0

    stats = client.stats()
    # memtier counts what was answered until its time was up, the server what it executed: a pipeline of difference.
    assert totals["Count"] <= stats[b"cmd_get"] + stats[b"cmd_set"] <= totals["Count"] + 10 * pipeline
    assert stats[b"evictions"] > 0
    assert stats[b"limit_maxbytes"] == MEMORY_MIB * 1024 * 1024
    assert 0 < stats[b"bytes"] <= stats[b"limit_maxbytes"]
    assert stats[b"get_hits"] > 0
    assert stats[b"curr_items"] * VALUE_BYTES <= stats[b"bytes"]

    # Full memory takes new keys all the same.
    values = {f"afterwards-{i}": f"{i}-".encode() * (VALUE_BYTES // 8) for i in range(AFTERWARDS)}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values
