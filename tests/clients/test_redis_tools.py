"""redis-cli and redis-benchmark, from Debian's redis-tools: what people type first."""

import csv
import shutil
import subprocess

import pytest
from pinion import HOST

SECONDS_MAX = 300
REQUESTS = 5_000

# What redis-benchmark measures by default, without what there is not: MSET.
BENCHMARKS = "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange"


def tool(name, node, *arguments, stdin=None, fails=False):
    """Runs one of the tools against a node and returns what it printed."""
    path = shutil.which(name)
    assert path, f"{name} is not installed: it is in the Debian package redis-tools"
    command = [path, "-h", HOST, "-p", str(node.resp_port), *arguments]
    run = subprocess.run(
        command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS_MAX
    )
    assert (run.returncode != 0) is fails, run.stdout
    return run.stdout


@pytest.fixture
def cli(node):
    return lambda *arguments, **settings: tool("redis-cli", node, *arguments, **settings)


def test_commands(cli):
    assert cli("ping") == "PONG\n"
    assert cli("set", "k", "a value", "ex", "100") == "OK\n"
    assert cli("get", "k") == "a value\n" and cli("--no-raw", "get", "k") == '"a value"\n'
    assert cli("--no-raw", "rpush", "l", "a", "b") == "(integer) 2\n"
    assert cli("--no-raw", "lrange", "l", "0", "-1") == '1) "a"\n2) "b"\n'
    assert cli("--no-raw", "get", "nothing") == "(nil)\n"
    assert cli("-n", "3", "set", "k", "of database 3") == "OK\n" and cli("-n", "3", "get", "k") == "of database 3\n"
    assert cli("get", "k") == "a value\n"
    assert cli("-x", "set", "file", stdin="a\r\nb\0") == "OK\n" and cli("strlen", "file") == "5\n"
    assert "unknown command 'multi'" in cli("multi")
    assert "unknown command 'multi'" in cli("-e", "multi", fails=True)
    assert cli("-r", "3", "incr", "n") == "1\n2\n3\n"


def test_commands_from_a_file(cli):
    lines = [f'set key:{n} "value {n}"' for n in range(1000)] + [f"get key:{n}" for n in range(1000)]
    assert cli(stdin="\n".join(lines)).splitlines() == ["OK"] * 1000 + [f"value {n}" for n in range(1000)]


def test_resp3(cli):
    assert cli("-3", "--no-raw", "hset", "h", "f", "v") == "(integer) 1\n"
    assert cli("-3", "--no-raw", "hgetall", "h") == '1# "f" => "v"\n'
    cli("sadd", "s", "m"), cli("zadd", "z", "1.5", "m")
    assert cli("-3", "--no-raw", "smembers", "s") == '1~ "m"\n'
    assert cli("-3", "--no-raw", "zscore", "z", "m") == "(double) 1.5\n"
    assert cli("-3", "--no-raw", "zrange", "z", "0", "-1", "withscores") == '1) 1) "m"\n   2) (double) 1.5\n'
    assert "proto" in cli("-3", "hello")
    assert "redis_version:" in cli("-3", "info", "server")


def test_password(start_node, shards):
    node = start_node(shards=shards, arguments=["--requirepass", "secret"])
    assert "NOAUTH" in tool("redis-cli", node, "get", "k")
    assert "WRONGPASS" in tool("redis-cli", node, "-a", "wrong", "--no-auth-warning", "get", "k")
    for login in [("-a", "secret"), ("--user", "default", "--pass", "secret"), ("-3", "-a", "secret")]:
        assert tool("redis-cli", node, *login, "--no-auth-warning", "set", "k", "v") == "OK\n"


def test_pipe(cli):
    """--pipe sends all it has and then ECHO with a word of its own, whose reply is the end."""
    words = [("SET", f"key:{n}", f"value {n}") for n in range(20_000)]
    sent = "".join("*3\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in command) for command in words)
    assert "errors: 0, replies: 20000" in cli("--pipe", stdin=sent)
    assert cli("dbsize") == "20000\n" and cli("get", "key:19999") == "value 19999\n"


def fill(cli):
    lines = [f"set string:{n} {'v' * n}" for n in range(1, 500)]
    lines += [f"rpush list:{n} {'v ' * 50}" for n in range(100)] + ["rpush list:long" + " v" * 5000]
    lines += ["sadd set:1 a b c", "zadd zset:1 1 a 2 b", "hset hash:1 a 1 b 2 c 3 d 4"]
    cli(stdin="\n".join(lines))
    return 499 + 101 + 3


def test_scan(cli):
    count = fill(cli)
    assert len(set(cli("--scan").split())) == count
    assert set(cli("--scan", "--pattern", "set:*").split()) == {"set:1"}
    assert len(set(cli("--scan", "--pattern", "list:*").split())) == 101


def unquoted(text):
    """Versions of redis-cli put different quotes around keys."""
    return text.replace('"', "").replace("'", "")


def test_bigkeys_and_memkeys(cli):
    count = fill(cli)
    found = cli("--bigkeys")
    assert f"Sampled {count} keys in the keyspace!" in found
    for line in ["list:long has 5000 items", "string:499 has 499 bytes", "hash:1 has 4 fields", "set:1 has 3 members",
                 "zset:1 has 2 members"]:  # fmt: skip
        kind = line.split(":")[0]
        assert f"Biggest {kind:>6} found {line}" in unquoted(found), found
    found = cli("--memkeys")
    assert f"Sampled {count} keys in the keyspace!" in found and "list:long" in found


def test_stat_and_latency(cli):
    """--stat reads INFO for as long as it is left alone; -i and -r end it."""
    fill(cli)
    assert "keys=603," in cli("info", "keyspace")
    info = dict(line.split(":", 1) for line in cli("info").splitlines() if ":" in line)
    for name in ["used_memory", "connected_clients", "blocked_clients", "total_commands_processed",
                 "total_connections_received", "db0"]:  # fmt: skip
        assert name in info, name
    latency = cli("--latency", "--raw", "-i", "0.2")
    assert int(latency.split()[-1]) > 0, latency


def test_benchmark(node):
    printed = tool("redis-benchmark", node, "-t", BENCHMARKS, "-n", str(REQUESTS), "-r", "1000", "-c", "20", "--csv")
    assert "rror" not in printed, printed
    rows = {row[0]: float(row[1]) for row in csv.reader(printed.splitlines()) if len(row) > 1 and row[0] != "test"}
    wanted = {"PING_INLINE", "PING_MBULK", *(name.upper() for name in BENCHMARKS.split(",") if name not in ("ping", "lrange"))}
    assert wanted <= set(rows), printed
    assert sum(name.startswith("LRANGE") for name in rows) == 4, printed
    assert all(rate > 0 for rate in rows.values()), printed


def test_benchmark_with_pipelines(node):
    """Big values and deep pipelines. The first error reply would end it."""
    for arguments in [("-P", "100"), ("-P", "16", "-d", "1000", "-3"), ("-d", "100000", "-c", "5")]:
        printed = tool(
            "redis-benchmark", node, "-t", "set,get,lpush,lpop,zadd", "-n", "5000", "-r", "100", "--csv", *arguments
        )
        assert "rror" not in printed and printed.count("\n") >= 5, printed
