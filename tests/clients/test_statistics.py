"""What INFO and `stats` count, as those who monitor a server read it."""

import collections
import contextlib
import shutil
import socket
import subprocess

import pytest
import redis
from pinion import HOST, until

# Fields of INFO that Redis 7.0 has and Pinion does not: they describe Redis's build, its main thread, or figures that
# Pinion does not measure.
FIELDS_ABSENT = {
    "redis_build_id", "atomicvar_api", "gcc_version", "used_cpu_sys_main_thread", "used_cpu_user_main_thread",
    "lazyfree_pending_objects", "lazyfreed_objects", "expired_stale_perc", "expired_time_cap_reached_count",
    "expire_cycle_cpu_milliseconds", "total_eviction_exceeded_time", "current_eviction_exceeded_time",
    "reply_buffer_shrinks", "reply_buffer_expands",
}  # fmt: skip


@contextlib.contextmanager
def redis_server():
    """The port of a real Redis server, where one is installed."""
    path = shutil.which("redis-server")
    if path is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([path, "--port", str(port), "--bind", HOST, "--save", ""], stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(HOST, port)

        def answers():
            with contextlib.suppress(redis.ConnectionError):
                return client.ping()

        until(answers)
        yield client
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def client(node):
    with redis.Redis(HOST, node.resp_port) as client:
        yield client


def send(client, command):
    """The reply, or the error."""
    try:
        return client.execute_command(*command.split(" "))
    except redis.ResponseError as error:
        return error


def test_fields_of_info(client):
    """A monitoring tool found 90 series instead of 519."""
    with redis_server() as server:
        expected = set(server.info())
    assert len(expected) > 150
    assert expected - set(client.info()) == FIELDS_ABSENT


def test_memory(client):
    before = client.info("memory")
    assert before["used_memory_startup"] > 0
    for n in range(100):
        client.set(f"key-{n}", "v" * 100_000)
    filled = client.info("memory")
    assert filled["used_memory_dataset"] >= 10_000_000
    assert filled["used_memory"] == filled["used_memory_dataset"] + filled["used_memory_overhead"]
    assert filled["used_memory_peak"] >= filled["used_memory"] > before["used_memory"]
    client.flushall()

    def freed():
        return client.info("memory")["used_memory"] < filled["used_memory"] / 2

    until(freed)
    after = client.info("memory")
    assert after["used_memory_peak"] >= filled["used_memory"]
    stats = client.memory_stats()
    assert stats["peak.allocated"] >= filled["used_memory"] and stats["startup.allocated"] > 0
    assert {"overhead.total", "dataset.percentage", "fragmentation", "keys.bytes-per-key"} <= set(stats)


def test_calls_are_counted_at_once(node, client):
    """What other shards had executed was counted up to a second late: 94 of 100 INFOs were too early."""
    for n in range(100):
        client.set(f"key-{n}", n)
        client.get(f"key-{n}")
        stats = client.info("commandstats")
        assert (stats["cmdstat_set"]["calls"], stats["cmdstat_get"]["calls"]) == (n + 1, n + 1)
    client.config_resetstat()
    stats = client.info("commandstats")
    assert "cmdstat_set" not in stats and stats["cmdstat_config|resetstat"]["calls"] == 1
    assert client.info("stats")["keyspace_hits"] == 0


def test_a_call_on_several_keys_or_shards_is_one_call(client):
    keys = [f"key-{n}" for n in range(20)]
    client.mget(keys), client.delete(*keys), client.exists(*keys), client.dbsize(), client.keys("*"), client.randomkey()
    client.scan(0), client.object("encoding", "none"), client.client_list(), client.config_get("maxmemory")
    stats = client.info("commandstats")
    names = ["mget", "del", "exists", "dbsize", "keys", "randomkey", "scan", "object|encoding", "client|list"]
    for name in [*names, "config|get"]:
        assert stats[f"cmdstat_{name}"]["calls"] == 1, name
    assert "cmdstat_object" not in stats and "cmdstat_config" not in stats


def test_times_of_calls(client):
    """redis_exporter drops lines without times."""
    for _ in range(50):
        client.set("key", "value"), client.get("key")
    client.rpush("list", *range(10_000))
    for _ in range(10):
        client.lrange("list", 0, -1)
    stats = client.info("commandstats")
    for name in ("set", "get", "lrange"):
        fields = stats[f"cmdstat_{name}"]
        assert set(fields) == {"calls", "usec", "usec_per_call", "rejected_calls", "failed_calls"}
        assert fields["usec"] >= 1, (name, fields)
    assert stats["cmdstat_lrange"]["usec_per_call"] > 20 * stats["cmdstat_get"]["usec_per_call"]


def test_errors_are_counted_by_their_codes(client):
    """Errors that the engine gives, such as WRONGTYPE, were not counted."""
    client.set("string", "value")
    # The client library itself tries commands when it connects.
    client.config_resetstat()
    for command in ["LPUSH string x", "HGET string f", "GET", "NOTHING", "INCR string", "CONFIG SET maxmemory x"]:
        assert isinstance(send(client, command), redis.ResponseError), command
    errors = client.info("errorstats")
    assert errors == {"errorstat_WRONGTYPE": {"count": 2}, "errorstat_ERR": {"count": 4}}
    assert client.info("stats")["total_error_replies"] == 6
    stats = client.info("commandstats")
    failed = {name: fields["failed_calls"] for name, fields in stats.items() if fields["failed_calls"]}
    assert failed == {f"cmdstat_{name}": 1 for name in ("lpush", "hget", "incr", "config|set")}
    assert stats["cmdstat_get"]["rejected_calls"] == 1 and stats["cmdstat_get"]["calls"] == 0


def test_keyspace_after_a_flush(client):
    """The counts of before the flush came back for up to a second."""
    for n in range(200):
        client.set(f"old-{n}", n)
    client.flushall()
    for n in range(100):
        client.set(f"key-{n}", n, ex=100 if n % 2 else None)
    client.hset("hash", "field", "value")
    assert client.execute_command("HPEXPIRE", "hash", 100_000, "FIELDS", 1, "field") == [1]
    keyspace = client.info("keyspace")["db0"]
    assert (keyspace["keys"], keyspace["expires"], keyspace["subexpiry"]) == (101, 50, 1)
    assert 90_000 < keyspace["avg_ttl"] <= 100_000
    assert client.info("stats")["keys_with_volatile_items"] == 1


def test_memcached_statistics_are_exact_too(node):
    with socket.create_connection(node.address, timeout=10) as connection, connection.makefile("rb") as lines:

        def stats():
            connection.sendall(b"stats\r\n")
            words = (line.split() for line in iter(lines.readline, b"END\r\n"))
            return {name: value for _, name, value in words}

        for n in range(50):
            connection.sendall(b"set key-%d 0 0 1\r\nx\r\n" % n)
            assert lines.readline() == b"STORED\r\n"
            assert int(stats()[b"cmd_set"]) == n + 1


def test_every_key_is_drawn_at_random(client):
    """Only keys of the connection's own shard came, and one of them eight times as often as it should have."""
    for n in range(100):
        client.set(f"key-{n}", n)
    pipeline = client.pipeline(transaction=False)
    for _ in range(20_000):
        pipeline.randomkey()
    drawn = collections.Counter(pipeline.execute())
    assert len(drawn) == 100
    # 200 of each are expected, with a standard deviation of 14.
    assert max(drawn.values()) < 285 and min(drawn.values()) > 115, drawn.most_common()


def test_a_scan_of_few_keys_takes_one_call(client):
    """A node replied a cursor that led nowhere, once per shard."""
    client.set("key", "value")
    assert client.scan(0, count=100) == (0, [b"key"])
    for n in range(1000):
        client.set(f"key-{n}", n)
    cursor, keys, pages = 0, [], 0
    while pages == 0 or cursor:
        cursor, page = client.scan(cursor, count=300)
        assert not cursor or len(page) >= 300
        keys, pages = keys + page, pages + 1
    assert len(set(keys)) == 1001 and pages <= 5
