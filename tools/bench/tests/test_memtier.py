"""scripts/memtier and scripts/compare against a program that only looks like memtier_benchmark and memcached."""

import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import unittest

from bench import ROOT

MEMTIER = f"""#!{sys.executable}
import contextlib, json, socket, sys
words = sys.argv[1:]
assert words[words.index("-P") + 1] == "memcache_text"
for _ in range(10):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", words[words.index("-p") + 1])).close()
operations = {{"Count": 1000, "Misses/sec": 0.0, "Percentile Latencies": {{"p50.00": 1.0, "p99.00": 2.0, "p99.90": 3.0}}}}
with open(words[words.index("--json-out-file") + 1], "w") as results:
    json.dump({{"ALL STATS": {{"Totals": operations, "Gets": operations}}}}, results)
"""
MEMCACHED = """
import socket, sys
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        connection = listener.accept()[0]
        if connection.recv(100):
            connection.sendall(b"VERSION 1\\r\\n")
        connection.close()
"""


class Memtier(unittest.TestCase):
    def run_script(self, name, *words):
        with tempfile.TemporaryDirectory() as directory:
            program = pathlib.Path(directory, "memtier_benchmark")
            program.write_text(MEMTIER)
            program.chmod(0o755)
            environment = os.environ | {"PATH": f"{directory}:{os.environ['PATH']}"}
            command = [sys.executable, ROOT / "scripts" / name, *words]
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    def test_compare_prints_rounds_and_medians(self):
        server = f"{sys.executable} -c {shlex.quote(MEMCACHED)} {{port}}"
        run = self.run_script("compare", "--base", server, "--test", server, "--rounds", "2", "--seconds", "1")
        lines = run.stdout.splitlines()
        self.assertEqual(len(lines), 3, run.stderr)
        self.assertRegex(lines[0], r"^round 1: CPU/op \d+\.\d\dx, throughput 1\.00x$")
        self.assertRegex(lines[2], r"^50 connections x 1, values of 32 B, median of 2 rounds: CPU/op .* \(1000 vs 1000 ops/s\)$")

    def test_memtier_prints_a_line_per_mix(self):
        run = self.run_script("memtier", "--seconds", "2", "--port", "1")
        self.assertEqual(len(run.stdout.splitlines()), 6, run.stderr)
        self.assertIn("value   32 B  pipeline  1        500 ops/s  p50   1.000 ms  p99   2.000 ms", run.stdout)


if __name__ == "__main__":
    unittest.main()
