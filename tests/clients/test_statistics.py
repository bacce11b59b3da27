"""What INFO and `stats` count, as those who monitor a server read it."""

import collections
import contextlib
import shutil
import socket
import subprocess

import pytest
import redis
from pinion import HOST, until

FILLED = [
    "SET s value", "SET n 10", "RPUSH l a b c", "SADD t a b c", "ZADD z 1 a 2 b", "HSET h f 1 g 2", "PFADD p a",
    "GEOADD geo 13 38 a 15 37 b",
]  # fmt: skip

# Commands with the hits and misses that Redis 7.0 counts of each, on keys filled as above.
LOOKUPS = """
GET s:1,0|GET none:0,1|GET l:1,0|MGET s none l:2,1|STRLEN s:1,0|STRLEN none:0,1|STRLEN l:1,0|SETNX s x:0,0
SETNX none x:0,0|SET s x:0,0|SET s x GET:1,0|SET none x GET:0,1|SET s x NX:0,0|SET none x XX:0,0|SET s x KEEPTTL:0,0
GETSET s x:1,0|GETSET none x:0,1|GETEX s:1,0|GETEX none:0,1|GETEX s EX 100:1,0|GETEX none EX 100:0,1
GETEX s PERSIST:1,0|GETDEL s:1,0|GETDEL none:0,1|APPEND s x:0,0|APPEND none x:0,0|INCR n:0,0|INCR none:0,0
INCRBYFLOAT n 1:0,0|GETRANGE s 0 1:1,0|GETRANGE none 0 1:0,1|GETRANGE l 0 1:1,0|SUBSTR s 0 1:1,0|SETRANGE s 1 x:0,0
SETRANGE none 1 x:0,0|SETEX s 10 x:0,0|INCR l:0,0
SETBIT s 1 1:0,0|SETBIT none 1 1:0,0|GETBIT s 1:1,0|GETBIT none 1:0,1|BITCOUNT s:1,0|BITCOUNT none:0,1|BITPOS s 1:1,0
BITPOS none 1:0,1|BITFIELD s GET u8 0:1,0|BITFIELD none GET u8 0:0,1|BITFIELD s SET u8 0 1:0,0
BITFIELD none SET u8 0 1:0,0|BITFIELD s GET u8 0 SET u8 0 1:0,0|BITFIELD_RO s GET u8 0:1,0|BITFIELD_RO none GET u8 0:0,1
DEL s:0,0|DEL none:0,0|UNLINK s none:0,0|EXISTS s:1,0|EXISTS none:0,1|EXISTS s none s:2,1|TOUCH s:1,0|TOUCH none:0,1
TOUCH s none:1,1|EXPIRE s 100:0,0|EXPIRE none 100:0,0|PEXPIREAT s 99999999999999:0,0|TTL s:1,0|TTL none:0,1|PTTL s:1,0
EXPIRETIME s:1,0|EXPIRETIME none:0,1|PERSIST s:0,0|PERSIST none:0,0|TYPE s:1,0|TYPE none:0,1|DUMP s:1,0|DUMP none:0,1
DUMP l:1,0|RESTORE none 0 x:0,0|OBJECT ENCODING s:1,0|OBJECT ENCODING none:0,1|OBJECT REFCOUNT s:1,0
OBJECT FREQ none:0,1|MEMORY USAGE s:0,0|MEMORY USAGE none:0,0|RANDOMKEY:0,0|SCAN 0:0,0|KEYS *:0,0|DBSIZE:0,0
LPUSH l x:0,0|LPUSH none x:0,0|LPUSHX none x:0,0|LPUSHX l x:0,0|LPOP l:0,0|LPOP none:0,0|LPOP l 2:0,0|LPOP none 2:0,0
LPOP l 0:0,0|LPOP none 0:0,0|RPOP none:0,0|LPOP s:0,0|LLEN l:1,0|LLEN none:0,1|LLEN s:1,0|LRANGE l 0 -1:1,0
LRANGE none 0 -1:0,1|LINDEX l 0:1,0|LINDEX none 0:0,1|LINDEX l 9:1,0|LSET l 0 x:0,0|LSET none 0 x:0,0
LINSERT l BEFORE a x:0,0|LINSERT none BEFORE a x:0,0|LREM l 1 a:0,0|LREM none 1 a:0,0|LTRIM l 0 1:0,0|LTRIM none 0 1:0,0
LPOS l a:1,0|LPOS none a:0,1|LPOS l zz:1,0|LPOS none a COUNT 1:0,1
SADD t x:0,0|SADD none x:0,0|SREM t a:0,0|SREM none a:0,0|SCARD t:1,0|SCARD none:0,1|SCARD s:1,0|SISMEMBER t a:1,0
SISMEMBER none a:0,1|SMISMEMBER t a x:1,0|SMISMEMBER none a:0,1|SMEMBERS t:1,0|SMEMBERS none:0,1|SRANDMEMBER t:1,0
SRANDMEMBER none:0,1|SRANDMEMBER t 2:1,0|SRANDMEMBER none 2:0,1|SRANDMEMBER t -2:1,0|SRANDMEMBER none 0:0,1
SPOP t:0,0|SPOP none:0,0|SPOP t 2:0,0|SPOP none 2:0,0|SPOP t 9:1,0|SPOP t 0:0,0|SPOP none 0:0,0|SSCAN t 0:1,0
SSCAN none 0:0,1
ZADD z 3 c:0,0|ZADD none 3 c:0,0|ZADD none XX 3 c:0,0|ZINCRBY z 1 a:0,0|ZINCRBY none 1 a:0,0|ZREM z a:0,0
ZREM none a:0,0|ZCARD z:1,0|ZCARD none:0,1|ZCARD s:1,0|ZSCORE z a:1,0|ZSCORE none a:0,1|ZMSCORE z a x:1,0
ZMSCORE none a:0,1|ZRANK z a:1,0|ZRANK none a:0,1|ZREVRANK z a:1,0|ZCOUNT z 0 9:1,0|ZCOUNT none 0 9:0,1
ZLEXCOUNT z - +:1,0|ZLEXCOUNT none - +:0,1|ZRANGE z 0 -1:1,0|ZRANGE none 0 -1:0,1|ZREVRANGE z 0 -1:1,0
ZRANGEBYSCORE z 0 9:1,0|ZRANGEBYSCORE none 0 9:0,1|ZREVRANGEBYSCORE z 9 0:1,0|ZRANGEBYLEX z - +:1,0
ZRANGEBYLEX none - +:0,1|ZPOPMIN z:0,0|ZPOPMIN none:0,0|ZPOPMAX z 2:0,0|ZPOPMAX none 2:0,0|ZRANDMEMBER z:1,0
ZRANDMEMBER none:0,1|ZRANDMEMBER z 2:1,0|ZRANDMEMBER none 2:0,1|ZREMRANGEBYRANK z 0 0:0,0|ZREMRANGEBYRANK none 0 0:0,0
ZREMRANGEBYSCORE z 0 1:0,0|ZREMRANGEBYSCORE none 0 1:0,0|ZREMRANGEBYLEX z - +:0,0|ZREMRANGEBYLEX none - +:0,0
ZSCAN z 0:1,0|ZSCAN none 0:0,1
HSET h x 1:0,0|HSET none x 1:0,0|HSETNX h f 1:0,0|HSETNX none f 1:0,0|HMSET h x 1:0,0|HGET h f:1,0|HGET h x:1,0
HGET none f:0,1|HGET s f:1,0|HMGET h f x:1,0|HMGET none f:0,1|HGETALL h:1,0|HGETALL none:0,1|HKEYS h:1,0|HKEYS none:0,1
HVALS h:1,0|HVALS none:0,1|HDEL h f:0,0|HDEL none f:0,0|HEXISTS h f:1,0|HEXISTS none f:0,1|HLEN h:1,0|HLEN none:0,1
HLEN l:1,0|HSTRLEN h f:1,0|HSTRLEN none f:0,1|HINCRBY h f 1:0,0|HINCRBY none f 1:0,0|HINCRBYFLOAT h f 1:0,0
HINCRBYFLOAT none f 1:0,0|HRANDFIELD h:1,0|HRANDFIELD none:0,1|HRANDFIELD h 2:1,0|HRANDFIELD none 2:0,1|HSCAN h 0:1,0
HSCAN none 0:0,1
PFADD p x:0,0|PFADD none x:0,0|PFCOUNT p:1,0|PFCOUNT none:0,1|GEOADD geo 13 38 c:0,0|GEOADD none 13 38 c:0,0
GEOPOS geo a:1,0|GEOPOS none a:0,1|GEODIST geo a b:1,0|GEODIST none a b:0,1|GEOHASH geo a:1,0|GEOHASH none a:0,1
GEOSEARCH geo FROMMEMBER a BYRADIUS 1 km:1,0|GEOSEARCH none FROMLONLAT 13 38 BYRADIUS 1 km:0,1
GEORADIUS geo 13 38 1 km:1,0|GEORADIUS none 13 38 1 km:0,1|GEORADIUS_RO geo 13 38 1 km:1,0
GEORADIUSBYMEMBER geo a 1 km:1,0|GEORADIUSBYMEMBER_RO geo a 1 km:1,0|GEORADIUSBYMEMBER_RO none a 1 km:0,1
"""

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


def lookups():
    for case in LOOKUPS.replace("\n", "|").split("|"):
        if case:
            command, counts = case.rsplit(":", 1)
            yield command, tuple(int(count) for count in counts.split(","))


def check_lookups(client):
    wrong = []
    for command, expected in lookups():
        client.flushall()
        for filled in FILLED:
            send(client, filled)
        before = client.info("stats")
        send(client, command)
        after = client.info("stats")
        counted = tuple(after[name] - before[name] for name in ("keyspace_hits", "keyspace_misses"))
        if counted != expected:
            wrong.append((command, counted, expected))
    assert not wrong


def test_hits_and_misses(client):
    """STRLEN, TYPE, GETSET and others were not counted, and LPOP of nothing was counted as a miss."""
    check_lookups(client)


def test_hits_and_misses_are_those_of_redis():
    with redis_server() as client:
        check_lookups(client)


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


def test_settings_that_tools_ask_for(client):
    """21 of 32 were empty."""
    for name in """maxmemory maxmemory-policy maxclients timeout tcp-keepalive tcp-backlog databases save dir dbfilename
                   loglevel logfile appendonly appendfsync auto-aof-rewrite-percentage client-output-buffer-limit
                   client-query-buffer-limit slowlog-log-slower-than slowlog-max-len latency-monitor-threshold hz
                   notify-keyspace-events cluster-enabled io-threads port bind protected-mode requirepass replicaof
                   min-replicas-to-write proto-max-bulk-len lua-time-limit stop-writes-on-bgsave-error""".split():
        assert set(client.config_get(name)) == {name}
    assert client.config_get("client-output-buffer-limit")["client-output-buffer-limit"].startswith("normal 0 0 0 ")


def test_settings_that_have_no_effect(client):
    assert client.config_set("appendfsync", "no") and client.config_get("appendfsync") == {"appendfsync": "no"}
    assert client.config_set("save", "") and client.config_set("appendonly", "no")
    for name, value in [("appendonly", "yes"), ("appendfsync", "never"), ("hz", "fast"), ("rdbcompression", "1"),
                        ("hz", "1" * 5000), ("requirepass", "p" * 513)]:  # fmt: skip
        with pytest.raises(redis.ResponseError, match=name):
            client.config_set(name, value)
    assert client.ping()


def test_names_of_clients_are_bounded(client):
    """A few dozen names of 15 MiB held more memory than the cache."""
    for command in [("CLIENT", "SETNAME"), ("CLIENT", "SETINFO", "LIB-NAME"), ("HELLO", "2", "SETNAME")]:
        with pytest.raises(redis.ResponseError, match="cannot be longer than 1024 bytes"):
            client.execute_command(*command, "n" * 1025)
    assert client.execute_command("CLIENT", "SETNAME", "n" * 1024)
