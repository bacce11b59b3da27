"""Tests of the paired comparison and of its tables, without servers or a load generator that measures."""

import argparse
import contextlib
import io
import subprocess
import sys
import unittest
from unittest import mock

from bench import ROOT, command, load, pair, tables
from bench.tests.test_bench import LISTENER


class Pairs(unittest.TestCase):
    def measure(self, *_, **__):
        return {"ops": 1000, "p50": 10.0, "p99": 20.0, "p999": 30.0, "cpu": 1.0}

    def test_keys_are_stored_in_the_first_round_only(self):
        with mock.patch.object(load, "binary"), mock.patch.object(load, "checked", side_effect=self.measure) as checked:
            result = pair.compare(LISTENER, LISTENER, pair.DEFAULTS, 2, 50)
        self.assertEqual([call.kwargs["preload"] for call in checked.call_args_list], [True, True, False, False])
        self.assertEqual(pair.flat(result)["cpu"], 1.0)
        self.assertIn("memcached 50x1 val 100 keys 100000 mget 1: CPU/op 1.00x (1.00 vs 1.00 us)", pair.line(pair.DEFAULTS, result))

    def test_the_generator_gets_the_workload(self):
        node = argparse.Namespace(port=7, process=argparse.Namespace(pid=9))
        with mock.patch.object(load, "run", return_value='{"ops":1}') as run:
            self.assertEqual(load.checked(node, {"depth": 16, "proto": "resp"}, 50, preload=False), {"ops": 1})
        words = [str(word) for word in run.call_args.args]
        self.assertEqual(words[:4], ["--depth", "16", "--proto", "resp"])
        self.assertIn("--nopreload", words)

    def test_tables_run_their_rows(self):
        result = {figure: {"base": 2.0, "test": 1.23456, "ratio": 0.5} for figure in pair.FIGURES}
        with mock.patch.object(pair, "compare", return_value=result) as compare, contextlib.redirect_stdout(io.StringIO()):
            results = tables.measure("memcached", "base -m 1024", None, 2, 50)
        self.assertEqual(len(results["rows"]), 8)
        self.assertEqual(results["rows"][0]["cpu"], {"base": 2.0, "test": 1.235, "ratio": 0.5})
        for call, row in zip(compare.call_args_list, results["rows"]):
            large = row["workload"]["keys"] > 1_000_000
            self.assertEqual(call.args[0], f"base -m {4096 if large else 1024}")
            self.assertEqual(set(row["workload"]), set(pair.DEFAULTS))
        with self.assertRaises(command.Failure):
            tables.measure("memcached", None, None, 1, 1, only="no such row")

    def test_two_shards_differ_in_the_number_of_shards_alone(self):
        base, test, _ = tables.TABLES["two-shards"]
        self.assertEqual(base.replace("-t 1", "-t 2"), test)

    def test_wrong_calls_have_status_2(self):
        for words in (["--out", "x"], ["--table", "memcached", "--depth", "2"], ["--rounds", "0"]):
            run = subprocess.run([sys.executable, ROOT / "scripts/pair", *words], capture_output=True, timeout=30)
            self.assertEqual(run.returncode, 2, words)


if __name__ == "__main__":
    unittest.main()
