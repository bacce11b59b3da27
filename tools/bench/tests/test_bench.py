"""Tests of the package that measure nothing: servers here are Python processes or threads on loopback."""

import argparse
import contextlib
import io
import json
import pathlib
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

from bench import HOST, ROOT, command, commands, elements, replay, report, rounds, server, wire

LISTENER = f"""{shlex.quote(sys.executable)} -c '
import os, socket, sys
assert not [name for name in os.environ if name.startswith("PINION_")]
print("listening", flush=True)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        listener.accept()[0].close()
' {{port}}"""


def answer(replies):
    """A server that answers what it receives on one connection with these replies; returns its port."""
    listener = socket.create_server((HOST, 0))

    def serve():
        with listener, listener.accept()[0] as connection:
            for reply in replies:
                connection.recv(1 << 16)
                connection.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()
    return listener.getsockname()[1]


class Servers(unittest.TestCase):
    def test_starts_waits_and_stops(self):
        with mock.patch.dict("os.environ", {"PINION_MEMORY": "1"}), server.Server(LISTENER) as node:
            self.assertTrue(server.accepts(node.port))
            self.assertGreater(node.cpu_ns(), 0)
            self.assertGreater(node.status_bytes("VmRSS"), 1 << 20)
            self.assertIn("listening", node.logged())
            process = node.process
        self.assertIsNotNone(process.returncode)

    def test_a_server_that_ends_at_once_is_a_failure_with_its_log(self):
        broken = f"{sys.executable} -c 'raise SystemExit(\"no such option\")'"
        with self.assertRaisesRegex(command.Failure, "no such option"):
            server.Server(broken)

    def test_a_program_that_does_not_exist_is_a_failure(self):
        with self.assertRaisesRegex(command.Failure, "no-such-program"):
            server.Server("no-such-program {port}")

    def test_a_server_is_stopped_when_its_probe_fails(self):
        started = []

        def probe(_):
            raise ValueError("not ready")

        popen = subprocess.Popen
        with mock.patch("subprocess.Popen", side_effect=lambda *a, **k: started.append(popen(*a, **k)) or started[0]):
            with self.assertRaises(ValueError):
                server.Server(LISTENER, probe)
        self.assertIsNotNone(started[0].returncode)


class Wire(unittest.TestCase):
    def test_a_command_of_resp_is_encoded(self):
        self.assertEqual(wire.encoded("SET", b"k", 12), b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n12\r\n")

    def test_replies_of_resp(self):
        replies = [b"+OK\r\n", b":42\r\n", b"$5\r\na\r\nbc\r\n", b"$-1\r\n", b"-ERR wrong\r\n"]
        with contextlib.closing(wire.RespConnection(answer(replies))) as connection:
            self.assertEqual([connection.one("PING") for _ in range(4)], [b"OK", 42, b"a\r\nbc", b"-1"])
            with self.assertRaisesRegex(command.Failure, "ERR wrong"):
                connection.one("PING")

    def test_replies_that_arrive_in_pieces_or_together(self):
        port = answer([b"$3\r", b"\nabc\r\n+O", b"K\r\n:1\r\n"])
        with contextlib.closing(wire.RespConnection(port)) as connection:
            connection.send(b"1")
            self.assertEqual(connection.receive_bytes(3), b"$3\r")
            connection.send(b"2")
            self.assertEqual(connection.receive_line(), b"")
            self.assertEqual(connection.receive_bytes(5), b"abc\r\n")
            connection.send(b"3")
            self.assertEqual([connection.reply(), connection.reply()], [b"OK", 1])

    def test_batches_read_every_reply(self):
        listener = socket.create_server((HOST, 0))
        received = bytearray()
        ping = wire.encoded("PING")

        def serve():
            with listener, listener.accept()[0] as connection:
                answered = 0
                while some := connection.recv(1 << 16):
                    received.extend(some)
                    whole = len(received) // len(ping)
                    connection.sendall(b"+PONG\r\n" * (whole - answered))
                    answered = whole

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with contextlib.closing(wire.RespConnection(listener.getsockname()[1])) as connection:
            connection.all([ping] * 2500)
            self.assertEqual(connection.received, b"")
        thread.join(5)
        self.assertEqual(bytes(received), ping * 2500)

    def test_used_memory_and_stats(self):
        info = b"# Memory\r\nused_memory:1234\r\nused_memory_rss:9\r\n"
        with contextlib.closing(wire.RespConnection(answer([b"$%d\r\n%s\r\n" % (len(info), info)]))) as connection:
            self.assertEqual(connection.used_memory(), 1234)
        stats = b"STAT pid 1\r\nSTAT version 1.6 x\r\nSTAT empty\r\nEND\r\n"
        with contextlib.closing(wire.Connection(answer([stats]))) as connection:
            self.assertEqual(wire.memcached_stats(connection), {"pid": "1", "version": "1.6 x"})

    def test_a_closed_connection_is_an_error(self):
        with contextlib.closing(wire.Connection(answer([]))) as connection:
            with self.assertRaises(ConnectionError):
                connection.receive_line()

    def test_probes(self):
        self.assertTrue(wire.memcached_answers(answer([b"VERSION 1.6.45\r\n"])))
        self.assertFalse(wire.memcached_answers(answer([b"ERROR\r\n"])))
        self.assertTrue(wire.resp_answers(answer([b"+PONG\r\n"])))


class Rounds(unittest.TestCase):
    def test_each_side_goes_first_in_every_other_round(self):
        order = []
        measured = list(rounds.alternate({"base": "b", "test": "t"}, 3, lambda node, number: order.append((node, number))))
        self.assertEqual(order, [("b", 0), ("t", 0), ("t", 1), ("b", 1), ("b", 2), ("t", 2)])
        self.assertEqual(len(measured), 3)

    def test_the_ratio_is_the_median_of_the_rounds(self):
        measured = [
            {"base": {"cpu": 2.0}, "test": {"cpu": 1.0}},
            {"base": {"cpu": 4.0}, "test": {"cpu": 1.0}},
            {"base": {"cpu": 1.0}, "test": {"cpu": 3.0}},
        ]
        self.assertEqual(rounds.medians(measured, ("cpu",)), {"cpu": {"base": 2.0, "test": 1.0, "ratio": 0.5}})


class Reports(unittest.TestCase):
    def test_tables(self):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            report.print_head(["name", "µs", "bar"])
            report.print_row(["GET", 1, ""])
        self.assertEqual(printed.getvalue(), "| name | µs | bar |\n|---|--:|--:|\n| GET | 1 |  |\n")

    def test_bars(self):
        self.assertEqual([report.judged(0.5, bar) for bar in (None, 0.5, 0.4)], ["0.50", "**0.50**", "0.50 (missed)"])

    def test_commands_lose_their_paths(self):
        for path in ("/a/b/pinion", "'/a/b/pinion'"):
            command = report.portable(f"taskset -c 0 {path} -p {{port}} --save ''")
            self.assertEqual(command, "taskset -c 0 pinion -p {port} --save ''")
        self.assertEqual(report.portable("/a/pinion -t 1"), "pinion -t 1")

    def test_versions_are_those_of_the_program_below_taskset(self):
        said = report.version(f"taskset -c 0 {sys.executable} -x")
        self.assertRegex(said, r"^Python 3\.")
        self.assertIsNone(report.version("taskset -c 0 no-such-program"))

    def test_results_name_the_machine(self):
        environment = report.environment({"base": sys.executable})
        self.assertGreater(environment["machine"]["cores"], 0)
        self.assertRegex(environment["date"], r"^\d{4}-\d\d-\d\d$")
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "new", "results.json")
            report.write_json(path, environment | {"numbers": [1, -2.5e-7]})
            self.assertEqual(json.loads(path.read_text()), environment | {"numbers": [1, -2.5e-7]})
            self.assertIn('"numbers": [1, -2.5e-07]', path.read_text())


class Collections(unittest.TestCase):
    def test_every_case_encodes_a_command(self):
        for name, (_, element) in elements.CASES.items():
            self.assertTrue(element(3).startswith(b"*"), name)
            self.assertNotEqual(element(3), element(4), name)

    def test_requests_go_by_the_greatest_known_depth(self):
        options = argparse.Namespace(quick=False)
        self.assertEqual(commands.requests_at(20, options), commands.REQUESTS[16])

    def test_a_collection_is_filled_once(self):
        options = argparse.Namespace(rounds=2, keys=10, quick=True)
        node = argparse.Namespace(port=answer([b"+OK\r\n"]))
        with mock.patch.object(commands, "send") as send:
            commands.fill(node, "SADD", 100, options)
            commands.fill(node, "SADD", 100, options)
        send.assert_called_once()
        self.assertEqual(send.call_args.args[3], 40)


class Replays(unittest.TestCase):
    def cell(self, policy, hits, **changes):
        cell = {"policy": policy, "memory": "1%", "fraction": 0.01, "items": 5000, "gets": 100, "hits": hits}
        return cell | {"object_hit_ratio": hits / 100, "byte_hit_ratio": hits / 100} | changes

    def test_deviations_and_saved_misses(self):
        results = {"traces": [{"trace": "t", "cells": [self.cell("s3fifo", 60), self.cell("lru", 50)]}]}
        expected = {("t", name, 0.01): {"object_hit_ratio": ratio, "byte_hit_ratio": ratio} for name, ratio in
                    (("s3hc", "0.55"), ("s3hc-g50", "0.61"), ("lru8-s16", "0.5"))}  # fmt: skip
        found = replay.compared(results, expected)
        # Of two policies of the simulator the closer one counts.
        self.assertAlmostEqual(found["s3fifo", "object_hit_ratio"][0][0], -1.0)
        self.assertAlmostEqual(found["lru", "byte_hit_ratio"][0][0], 0.0)
        self.assertAlmostEqual(replay.misses_saved(results)[0], 20.0)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            self.assertAlmostEqual(replay.print_summary(found), 1.0)
        self.assertIn("s3fifo", printed.getvalue())

    def test_small_cells_are_left_out(self):
        results = {"traces": [{"trace": "t", "cells": [self.cell("lru", 50, items=10)]}]}
        self.assertEqual(replay.compared(results, {}), {})
        self.assertEqual(replay.misses_saved(results), [])


class CommandLines(unittest.TestCase):
    SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if "python3" in path.read_text().split("\n", 1)[0])

    def test_every_script_explains_itself(self):
        self.assertGreater(len(self.SCRIPTS), 6)
        for script in self.SCRIPTS:
            run = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=30)
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertIn(f"scripts/{script.name}", run.stdout)

    def test_wrong_calls_have_status_2(self):
        for words in (["efficiency", "--loads", "x"], ["collections", "cpu", "--depths", "0"]):
            script = [sys.executable, ROOT / "scripts" / words[0], *words[1:]]
            self.assertEqual(subprocess.run(script, capture_output=True, timeout=30).returncode, 2, words)

    def test_failures_are_one_message(self):
        def fail():
            raise command.Failure("wrong", status=2)

        with contextlib.redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit) as ended:
            command.run("name", fail)
        self.assertEqual((said.getvalue(), ended.exception.code), ("name: wrong\n", 2))


if __name__ == "__main__":
    unittest.main()
