"""redis-py, of RESP2 and of RESP3, synchronous; at the end what its asyncio half does differently: it has its own wire code."""

import asyncio
import random
import socket
import threading
import time

import pytest
import redis
import redis.asyncio
from redis import DriverInfo
from pinion import HOST, until
from pymemcache.exceptions import MemcacheClientError

MIB = 1024 * 1024
SECONDS_LEFT = 90  # of the 100 that most tests give: nothing here takes ten seconds

pytestmark = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])


@pytest.fixture
def clients(protocol):
    """Makes redis-py clients of a node, and closes them."""
    made = []

    def make(node, **settings):
        # A test that gets no answer shall fail, and not be tried again.
        settings = {"protocol": protocol, "decode_responses": True, "socket_timeout": 30, "retry": None} | settings
        made.append(redis.Redis(host=HOST, port=node.resp_port, **settings))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def r(node, clients):
    return clients(node)


def of_scan(pairs):
    """What ZRANGE WITHSCORES returns, in one shape: lists with RESP3, tuples with RESP2."""
    return [(member, score) for member, score in pairs]


# Connecting


def test_connect_sequence(node, clients, protocol):
    client = clients(node, client_name="tester", db=3, driver_info=DriverInfo(name="lib", lib_version="1.2.3"))
    assert client.ping() is True
    mine = client.client_info()
    assert (mine["name"], mine["db"], mine["resp"]) == ("tester", 3, str(protocol))
    assert (mine["lib-name"], mine["lib-ver"]) == ("lib", "1.2.3")
    assert client.client_getname() == "tester"


def test_hello(r, protocol):
    answer = r.execute_command("HELLO", protocol, "SETNAME", "named")
    hello = answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
    wanted = {"server": "redis", "proto": protocol, "mode": "standalone", "role": "master", "modules": []}
    assert {name: hello[name] for name in wanted} == wanted
    assert r.client_getname() == "named" and r.client_id() == hello["id"]
    with pytest.raises(redis.ResponseError, match="^NOPROTO"):
        r.execute_command("HELLO", 4)


def test_password(start_node, clients, shards):
    node = start_node(shards=shards, arguments=["--requirepass", "correct horse"])
    for wrong in [{"password": "wrong"}, {"username": "default", "password": "wrong"}, {"username": "x", "password": "y"}]:
        with pytest.raises(redis.AuthenticationError):
            clients(node, **wrong).ping()
    with pytest.raises(redis.AuthenticationError):
        clients(node).get("k")
    assert clients(node, password="correct horse", db=1, client_name="a").set("k", "v") is True
    named = clients(node, username="default", password="correct horse", db=1)
    assert named.get("k") == "v"
    # A client that has come in is not let out by a wrong password.
    with named.client() as one:
        with pytest.raises(redis.AuthenticationError, match="invalid username-password"):
            one.execute_command("AUTH", "wrong")
        assert one.get("k") == "v"


def test_password_changes_while_clients_are_connected(node, clients, r):
    r.config_set("requirepass", "new")
    assert r.ping() is True
    with pytest.raises(redis.AuthenticationError):
        clients(node).ping()
    assert clients(node, password="new").ping() is True
    r.config_set("requirepass", "")
    assert clients(node).ping() is True


def test_databases(node, clients, r):
    others = [clients(node, db=db) for db in range(16)]
    for db, other in enumerate(others):
        assert other.set("k", db) is True
        assert other.rpush("list", *range(db + 1)) == db + 1
    for db, other in enumerate(others):
        assert other.get("k") == str(db)
        assert other.llen("list") == db + 1
        assert other.dbsize() == 2
        assert sorted(other.keys("*")) == ["k", "list"]
    assert others[7].flushdb() is True
    assert [other.dbsize() for other in others] == [2] * 7 + [0] + [2] * 8
    assert set(r.info("keyspace")) == {f"db{db}" for db in range(16) if db != 7}
    assert r.flushall(asynchronous=True) is True
    assert [other.dbsize() for other in others] == [0] * 16
    with pytest.raises(redis.ResponseError, match="DB index is out of range"):
        clients(node, db=16).ping()


def test_what_is_absent_says_so(r):
    for command in [("MSET", "a", "1"), ("BLPOP", "a", "1"), ("SUBSCRIBE", "c"), ("EVAL", "return 1", "0"), ("MULTI",)]:
        with pytest.raises(redis.ResponseError, match="^unknown command '" + command[0]):
            r.execute_command(*command)
    with pytest.raises(redis.exceptions.ExecAbortError):
        r.execute_command("EXEC")
    assert r.ping() is True


def test_a_transaction_is_refused_as_a_whole(r):
    """Its commands were executed, while the client raised an error."""
    r.set("n", 1)
    with r.pipeline() as pipe, pytest.raises(redis.ResponseError, match="unknown command 'MULTI'"):
        pipe.incr("n").set("long", "v" * 100_000).delete("n", "m").execute()
    assert r.get("n") == "1" and r.exists("long") == 0


# Strings


def test_set_and_its_options(r):
    assert r.get("k") is None
    assert r.set("k", "one") is True
    assert r.set("k", "two", nx=True) is None
    assert r.set("nothing", "two", xx=True) is None
    assert r.set("k", "two", xx=True, get=True) == "one"
    assert r.set("k", "three", ex=100) is True
    assert SECONDS_LEFT < r.ttl("k") <= 100
    assert r.set("k", "four", keepttl=True) is True
    assert SECONDS_LEFT < r.ttl("k") <= 100
    assert r.set("k", "five") is True
    assert r.ttl("k") == -1
    at = int(time.time()) + 100
    assert r.set("k", "six", exat=at) is True
    assert r.expiretime("k") == at
    assert r.set("k", "seven", pxat=at * 1000 + 7) is True
    assert r.pexpiretime("k") == at * 1000 + 7
    for old in [("SETEX", "k", 100, "eight"), ("PSETEX", "k", 100_000, "nine")]:  # redis-py has no method any more
        assert r.execute_command(*old) in (True, "OK") and SECONDS_LEFT < r.ttl("k") <= 100
    assert r.execute_command("SETNX", "k", "ten") in (0, False) and r.execute_command("SETNX", "new", "ten") in (1, True)
    assert r.execute_command("GETSET", "k", "eleven") == "nine"
    assert r.getex("k", px=100_000) == "eleven"
    assert SECONDS_LEFT * 1000 < r.pttl("k") <= 100_000
    assert r.getex("k", persist=True) == "eleven" and r.ttl("k") == -1
    assert r.getdel("k") == "eleven" and r.exists("k") == 0


def test_parts_of_strings(r):
    assert r.append("k", "Hello") == 5 and r.append("k", " World") == 11
    assert r.strlen("k") == 11 and r.strlen("nothing") == 0
    assert r.getrange("k", 0, 4) == "Hello" and r.getrange("k", -5, -1) == "World"
    assert r.setrange("k", 6, "There") == 11 and r.get("k") == "Hello There"
    assert r.setrange("padded", 3, "x") == 4 and r.get("padded") == "\0\0\0x"
    assert r.setbit("bits", 7, 1) == 0 and r.getbit("bits", 7) == 1 and r.bitcount("bits") == 1
    assert r.bitpos("bits", 1) == 7
    assert r.bitfield("field").set("u8", 0, 255).incrby("u8", 0, 2).execute() == [0, 1]


def test_counters(r):
    assert [r.incr("n"), r.incrby("n", 41), r.decr("n"), r.decrby("n", 40)] == [1, 42, 41, 1]
    assert r.incrbyfloat("n", 0.5) == 1.5
    with pytest.raises(redis.ResponseError, match="value is not an integer or out of range"):
        r.incr("n")
    r.set("n", 2**63 - 1)
    with pytest.raises(redis.ResponseError, match="increment or decrement would overflow"):
        r.incr("n")
    assert r.get("n") == str(2**63 - 1)


def test_counters_of_many_clients_at_once(node, clients):
    def count(client):
        for _ in range(500):
            client.incr("n")
            client.hincrby("h", "f", 2)

    threads = [threading.Thread(target=count, args=(clients(node),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client = clients(node)
    assert (client.get("n"), client.hget("h", "f")) == ("4000", "8000")


def test_bytes_of_every_kind(node, clients):
    client = clients(node, decode_responses=False)
    every = bytes(range(256))
    values = {every: every[::-1], b"crlf\r\n": b"\r\n$3\r\n", b"*1\r\n$4\r\nPING\r\n": b"", b"": b"empty key"}
    for key, value in values.items():
        assert client.set(key, value) is True
        assert client.hset(b"h", key, value) == 1
    assert client.mget(list(values)) == list(values.values())
    assert client.hgetall(b"h") == values
    assert set(client.keys(b"*")) == {*values, b"h"}


def test_big_values_both_ways(node, clients):
    client = clients(node, decode_responses=False)
    big = random.Random(5).randbytes(5 * MIB)
    for n in range(4):
        assert client.set(f"k{n}", big) is True
    assert client.set("k0", big[::-1], ex=100, get=True) == big
    assert client.get("k0") == big[::-1] and client.get("k3") == big
    assert client.strlen("k1") == len(big) and client.getrange("k1", 5, 14) == big[5:15]
    assert client.append("k1", b"!") == len(big) + 1
    assert client.getrange("k1", -2, -1) == big[-1:] + b"!"
    assert client.mget("k0", "nothing", "k3") == [big[::-1], None, big]
    # Many at once. redis-py reads no reply before all commands are sent, so what is long goes one way at a time.
    with client.pipeline(transaction=False) as pipe:
        for n in range(4):
            pipe.set(f"k{n}", big).strlen(f"k{n}").set(f"small{n}", n)
        assert pipe.execute() == [True, len(big), True] * 4
        for n in range(4):
            pipe.get(f"k{n}").get(f"small{n}").delete(f"k{n}", f"small{n}")
        assert pipe.execute() == [x for n in range(4) for x in (big, str(n).encode(), 2)]
    assert client.dbsize() == 0


def test_big_elements(node, clients):
    client = clients(node, decode_responses=False)
    big = random.Random(6).randbytes(MIB)
    assert client.rpush("list", b"a", big, b"z") == 3
    assert client.lrange("list", 0, -1) == [b"a", big, b"z"]
    assert client.hset("hash", mapping={b"f": big, big[:1000]: b"v"}) == 2
    assert client.hgetall("hash") == {b"f": big, big[:1000]: b"v"}
    assert client.sadd("set", big) == 1 and client.spop("set") == big


def test_value_too_long_is_refused(node, clients):
    client = clients(node)
    limit = int(client.config_get("proto-max-bulk-len")["proto-max-bulk-len"])
    # It is sent in pieces, of which the last find the connection closed: the error may or may not be read.
    with pytest.raises(redis.RedisError):
        client.set("k", b"x" * (limit + 1))
    assert clients(node).exists("k") == 0


# Keys


def test_many_keys_over_all_shards(r):
    keys = [f"key:{n}" for n in range(1000)]
    for key in keys[::2]:
        r.set(key, key)
    assert r.mget(keys) == [key if n % 2 == 0 else None for n, key in enumerate(keys)]
    r.rpush(keys[1], "a list")
    assert r.mget(keys[:4]) == [keys[0], None, keys[2], None]
    assert r.exists(*keys) == 501 and r.exists(*[keys[0]] * 3) == 3
    assert r.touch(*keys) == 501
    assert r.delete(*keys[:500]) == 251
    assert r.unlink(*keys) == 250
    assert r.dbsize() == 0 and r.randomkey() is None


def test_time_to_live(r):
    assert r.expire("nothing", 100) is False and r.ttl("nothing") == -2
    r.set("k", "v")
    assert r.ttl("k") == -1 and r.pttl("k") == -1
    assert r.expire("k", 100) is True and SECONDS_LEFT < r.ttl("k") <= 100
    assert r.expire("k", 50, gt=True) is False and r.expire("k", 50, lt=True) is True
    assert r.expire("k", 100, nx=True) is False and r.pexpire("k", 100_000, xx=True) is True
    assert r.persist("k") is True and r.persist("k") is False
    at = int(time.time()) + 100
    assert r.expireat("k", at) is True and r.expiretime("k") == at
    assert r.pexpireat("k", at * 1000 + 1) is True and r.pexpiretime("k") == at * 1000 + 1
    assert r.expire("k", -1) is True and r.exists("k") == 0


def test_everything_expires(r):
    r.set("s", "v", px=20)
    r.rpush("l", "v"), r.sadd("set", "v"), r.zadd("z", {"v": 1}), r.hset("h", "f", "v")
    for key in ["l", "set", "z", "h"]:
        assert r.pexpire(key, 20) is True
    until(lambda: r.exists("s", "l", "set", "z", "h") == 0)
    assert (r.get("s"), r.lrange("l", 0, -1), r.hgetall("h"), r.zcard("z")) == (None, [], {}, 0)
    # What expired makes room for another type.
    assert r.sadd("l", "member") == 1


def test_types(r):
    r.set("string", "v"), r.rpush("list", "v"), r.sadd("set", "v"), r.zadd("zset", {"v": 1}), r.hset("hash", "f", "v")
    for key in ["string", "list", "set", "zset", "hash"]:
        assert r.type(key) == key
    assert r.type("nothing") == "none"
    for call in [lambda: r.get("list"), lambda: r.incr("set"), lambda: r.lpush("hash", 1), lambda: r.hget("zset", "f"),
                 lambda: r.sadd("string", 1), lambda: r.zadd("list", {"m": 1}), lambda: r.append("hash", "x")]:
        with pytest.raises(redis.ResponseError, match="^WRONGTYPE"):
            call()
    assert r.set("list", "now a string") is True and r.type("list") == "string"


def test_scan(r):
    strings, lists = {f"s:{n}" for n in range(3000)}, {f"l:{n}" for n in range(300)}
    with r.pipeline(transaction=False) as pipe:
        for key in strings:
            pipe.set(key, "v")
        for key in lists:
            pipe.rpush(key, "v")
        pipe.execute()
    for count in [None, 1, 17, 5000]:
        assert set(r.scan_iter(count=count)) == strings | lists
    assert set(r.scan_iter(match="s:*9", count=100)) == {key for key in strings if key.endswith("9")}
    assert set(r.scan_iter(_type="list", count=100)) == lists
    assert set(r.keys("l:1?")) == {f"l:{n}" for n in range(10, 20)}
    # What is there all the time is found while others come and go.
    found = set()
    for n, key in enumerate(r.scan_iter(count=50)):
        found.add(key)
        if n % 10 == 0:
            r.set(f"new:{n}", "v"), r.delete(f"new:{n - 10}")
    assert strings | lists <= found


def test_scan_within_values(r):
    members = [f"member:{n}" for n in range(3000)]
    r.sadd("set", *members)
    r.zadd("zset", {member: n for n, member in enumerate(members)})
    r.hset("hash", mapping={member: n for n, member in enumerate(members)})
    assert set(r.sscan_iter("set", count=77)) == set(members)
    assert dict(of_scan(r.zscan_iter("zset", count=77))) == {member: float(n) for n, member in enumerate(members)}
    assert dict(r.hscan_iter("hash", count=77)) == {member: str(n) for n, member in enumerate(members)}
    ends = {member for member in members if member.endswith("7")}
    assert set(r.sscan_iter("set", match="*7")) == ends
    assert {field for field, _ in r.hscan_iter("hash", match="*7")} == ends
    assert {member for member, _ in r.zscan_iter("zset", match="*7")} == ends
    assert set(r.hscan_iter("hash", no_values=True)) == set(members)
    assert r.sscan("nothing") == (0, [])


# Collections


def test_lists(r):
    assert r.rpush("l", "b", "c") == 2 and r.lpush("l", "a", "z") == 4
    assert r.lrange("l", 0, -1) == ["z", "a", "b", "c"]
    assert r.llen("l") == 4 and r.lindex("l", -1) == "c" and r.lindex("l", 9) is None
    assert r.lset("l", 0, "y") is True and r.linsert("l", "BEFORE", "b", "x") == 5
    assert r.lpos("l", "b") == 3 and r.lpos("l", "nothing") is None and r.lpos("l", "b", count=0) == [3]
    assert r.lrem("l", 0, "x") == 1 and r.ltrim("l", 0, 2) is True
    assert r.lrange("l", 0, -1) == ["y", "a", "b"]
    assert r.lpop("l") == "y" and r.rpop("l", 5) == ["b", "a"]
    assert r.exists("l") == 0 and r.lpop("l") is None and r.rpop("l", 2) is None
    assert r.rpushx("l", "v") == 0
    assert r.rpush("long", *range(20_000)) == 20_000
    assert r.lrange("long", 9_999, 10_001) == ["9999", "10000", "10001"]
    assert r.lrange("long", 0, -1) == [str(n) for n in range(20_000)]


def test_sets(r):
    assert r.sadd("s", "a", "b", "b") == 2 and r.sadd("s", "b", "c") == 1
    assert r.smembers("s") == {"a", "b", "c"} and r.scard("s") == 3
    assert r.sismember("s", "a") == 1 and r.smismember("s", ["a", "x"]) == [1, 0]
    assert r.srandmember("s") in {"a", "b", "c"} and len(r.srandmember("s", 2)) == 2 and len(r.srandmember("s", -9)) == 9
    assert r.srem("s", "a", "x") == 1 and r.spop("s") in {"b", "c"} and len(r.spop("s", 5)) == 1
    assert r.exists("s") == 0 and r.smembers("s") == set()
    numbers = {str(n) for n in range(5000)}
    assert r.sadd("numbers", *numbers) == 5000 and r.smembers("numbers") == numbers


def test_sorted_sets(r):
    assert r.zadd("z", {"a": 1, "b": 2, "c": 3}) == 3
    assert r.zadd("z", {"a": 9, "d": 4}, nx=True) == 1 and r.zadd("z", {"a": 0.5}, ch=True) == 1
    assert r.zadd("z", {"a": 1}, incr=True) == 1.5 and r.zadd("z", {"x": 1}, xx=True, incr=True) is None
    assert r.zscore("z", "a") == 1.5 and r.zscore("z", "x") is None and r.zmscore("z", ["a", "x"]) == [1.5, None]
    assert r.zrange("z", 0, -1) == ["a", "b", "c", "d"]
    assert of_scan(r.zrange("z", 0, 1, withscores=True)) == [("a", 1.5), ("b", 2.0)]
    assert r.zrange("z", "(2", "+inf", byscore=True, offset=0, num=1) == ["c"]
    assert r.zrevrange("z", 0, 1) == ["d", "c"] and r.zrangebyscore("z", 2, 3) == ["b", "c"]
    assert r.zrevrangebyscore("z", "inf", 3) == ["d", "c"]
    assert r.zrank("z", "b") == 1 and r.zrevrank("z", "b") == 2 and r.zrank("z", "x") is None
    assert list(r.zrank("z", "b", withscore=True)) == [1, 2.0]
    assert r.zcount("z", 2, "(4") == 2 and r.zcard("z") == 4 and r.zincrby("z", 0.25, "b") == 2.25
    assert of_scan(r.zpopmin("z", 1)) == [("a", 1.5)] and of_scan(r.zpopmax("z", 2)) == [("d", 4.0), ("c", 3.0)]
    assert r.zadd("z", {"up": float("inf"), "down": float("-inf")}) == 2
    assert of_scan(r.zrange("z", 0, -1, withscores=True)) == [("down", -float("inf")), ("b", 2.25), ("up", float("inf"))]
    assert r.zrem("z", "up", "x") == 1 and r.zremrangebyscore("z", "-inf", "+inf") == 2 and r.exists("z") == 0
    r.zadd("names", dict.fromkeys("abcde", 0))
    assert r.zrangebylex("names", "[b", "(d") == ["b", "c"] and r.zlexcount("names", "-", "+") == 5
    assert r.zremrangebylex("names", "-", "[b") == 2 and r.zremrangebyrank("names", 0, 0) == 1


def test_hashes(r):
    assert r.hset("h", "f", "v") == 1 and r.hset("h", mapping={"f": "w", "g": 1, "x": 1.5}) == 2
    assert r.hget("h", "f") == "w" and r.hget("h", "nothing") is None
    assert r.hgetall("h") == {"f": "w", "g": "1", "x": "1.5"} and r.hgetall("nothing") == {}
    assert r.hmget("h", "f", "nothing", "g") == ["w", None, "1"]
    assert r.hlen("h") == 3 and r.hexists("h", "f") is True and r.hstrlen("h", "f") == 1
    assert sorted(r.hkeys("h")) == ["f", "g", "x"] and sorted(r.hvals("h")) == ["1", "1.5", "w"]
    assert r.hincrby("h", "g", 4) == 5 and r.hincrbyfloat("h", "x", 0.25) == 1.75
    assert r.hsetnx("h", "f", "no") == 0 and r.hdel("h", "f", "nothing") == 1
    assert r.hrandfield("h") in {"g", "x"}
    assert r.hdel("h", "g", "x") == 2 and r.exists("h") == 0
    fields = {f"field:{n}": f"value:{n}" for n in range(5000)}
    assert r.hset("h", mapping=fields) == 5000 and r.hgetall("h") == fields


def test_fields_expire(r):
    r.hset("h", mapping={"a": 1, "b": 2, "c": 3})
    assert r.hexpire("h", 100, "a", "nothing") == [1, -2]
    assert SECONDS_LEFT < r.httl("h", "a")[0] <= 100 and r.httl("h", "b", "nothing") == [-1, -2]
    assert r.hexpire("h", 50, "a", nx=True) == [0] and r.hpexpire("h", 50_000, "a", lt=True) == [1]
    assert r.hpersist("h", "a", "b") == [1, -1]
    at = int(time.time()) + 100
    assert r.hexpireat("h", at, "a") == [1] and r.hexpiretime("h", "a") == [at]
    assert r.hpexpireat("h", at * 1000 + 5, "a") == [1] and r.hpexpiretime("h", "a") == [at * 1000 + 5]
    assert r.hpexpire("h", 20, "b") == [1]
    until(lambda: not r.hexists("h", "b"))
    assert r.hgetall("h") == {"a": "1", "c": "3"} and r.hlen("h") == 2
    assert r.hexpire("h", 0, "c") == [2] and r.hkeys("h") == ["a"]
    # With the last field, the key goes.
    assert r.hpexpire("h", 20, "a") == [1]
    until(lambda: r.exists("h") == 0)
    assert r.hexpire("h", 100, "a") == [-2] or r.hexpire("h", 100, "a") == []
    assert r.hsetex("h", mapping={"f": "v"}, ex=100) == 1
    assert r.hgetex("h", "f", persist=True) == ["v"] and r.httl("h", "f") == [-1]
    assert r.hgetdel("h", "f") == ["v"] and r.exists("h") == 0


def test_geo_and_hyperloglog(r):
    assert r.geoadd("g", (13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania")) == 2
    assert abs(r.geodist("g", "Palermo", "Catania", "km") - 166.2742) < 0.001
    assert r.geohash("g", "Palermo") == ["sqc8b49rny0"]
    assert r.geosearch("g", longitude=15, latitude=37, radius=200, unit="km", sort="ASC") == ["Catania", "Palermo"]
    longitude, latitude = r.geopos("g", "Palermo")[0]
    assert abs(longitude - 13.361389) < 1e-5 and abs(latitude - 38.115556) < 1e-5
    assert r.pfadd("p", *range(10_000)) == 1
    assert abs(r.pfcount("p") - 10_000) < 300


# Pipelines


def test_pipeline_keeps_the_order_of_replies(r):
    """Thousands of commands on all shards, some for all shards at once, some that fail: replies in request order."""
    pick = random.Random(1)
    model, expected = {}, []
    with r.pipeline(transaction=False) as pipe:
        for n in range(8000):
            key = f"k{pick.randrange(200)}"
            match pick.randrange(9):
                case 0 | 1:
                    pipe.set(key, str(n))
                    model[key] = str(n)
                    expected.append(True)
                case 2 | 3:
                    pipe.get(key)
                    expected.append(model.get(key))
                case 4:
                    keys = [f"k{pick.randrange(200)}" for _ in range(10)]
                    pipe.mget(keys)
                    expected.append([model.get(key) for key in keys])
                case 5:
                    keys = {f"k{pick.randrange(200)}" for _ in range(3)}
                    pipe.delete(*keys)
                    expected.append(sum(model.pop(key, None) is not None for key in keys))
                case 6:
                    pipe.execute_command("ECHO", n)
                    expected.append(str(n))
                case 7:
                    pipe.dbsize()
                    expected.append(None)  # the sum is over shards that count at different moments
                case 8:
                    pipe.execute_command("NOTHING", n)
                    expected.append(f"unknown command 'NOTHING', with args beginning with: '{n}' ")
        replies = pipe.execute(raise_on_error=False)
    assert len(replies) == len(expected)
    for n, (reply, wanted) in enumerate(zip(replies, expected, strict=True)):
        if isinstance(reply, redis.ResponseError):
            assert wanted in str(reply) + " ", n
        elif wanted is None and isinstance(reply, int):
            assert 0 <= reply <= 200, n
        else:
            assert reply == wanted, n


def test_pipeline_of_collections(r):
    with r.pipeline(transaction=False) as pipe:
        for n in range(1000):
            pipe.rpush(f"l{n % 10}", n).hset(f"h{n % 7}", n, n).zadd(f"z{n % 5}", {n: n}).sadd(f"s{n % 3}", n)
            pipe.lrange(f"l{n % 10}", -1, -1).hget(f"h{n % 7}", n).zscore(f"z{n % 5}", n).sismember(f"s{n % 3}", n)
        replies = pipe.execute()
    for n in range(1000):
        assert replies[8 * n : 8 * n + 8] == [n // 10 + 1, 1, 1, 1, [str(n)], str(n), float(n), 1], n


def test_sums_after_a_long_reply(r):
    """They hung with several shards: their parts waited for room that only they could make."""
    value = "v" * 300_000
    keys = [f"k{n}" for n in range(20)]
    for key in keys:
        r.set(key, value)
        # Replies of this length are copied, which made the server expect more of them.
        assert r.set(key, value, get=True) == value
        assert r.exists(*keys[:2]) >= 1
    assert r.touch(*keys) == 20 and r.delete(*keys) == 20


def test_pipeline_in_which_the_connection_changes(node, clients):
    with clients(node).pipeline(transaction=False) as pipe:
        for db in range(16):
            pipe.execute_command("SELECT", db).set("k", db).client_setname(f"n{db}").client_getname()
        assert pipe.execute() == [x for db in range(16) for x in (True, True, True, f"n{db}")]
    assert clients(node, db=9).get("k") == "9"


# The server


def test_client_commands(node, clients, r):
    other = clients(node, client_name="other")
    number = other.client_id()
    assert r.client_id() != number
    assert r.client_setname("me") is True
    listed = {client["name"]: client for client in r.client_list()}
    assert set(listed) == {"me", "other"} and listed["other"]["id"] == str(number)
    assert [client["name"] for client in r.client_list(client_id=[number])] == ["other"]
    assert r.client_kill_filter(_id=number) == 1
    assert other.client_id() != number  # redis-py has found the connection closed and made a new one
    address = {client["name"]: client for client in r.client_list()}["other"]["addr"]
    assert r.client_kill(address) is True
    with pytest.raises(redis.ResponseError, match="No such client"):
        r.client_kill(address)
    assert r.client_kill_filter(_id=10**9) == 0
    # All others, on any shard.
    many = [clients(node) for _ in range(12)]
    for client in many:
        client.ping()
    assert r.client_kill_filter(_type="normal", skipme=True) == 12
    assert [client["name"] for client in r.client_list()] == ["me"]


def test_clients_cannot_be_paused(r):
    """CLIENT PAUSE was in the table and answered with the help of CLIENT, which clients took for success."""
    for command in [("PAUSE", 1), ("UNPAUSE",)]:
        with pytest.raises(redis.ResponseError, match=f"unknown subcommand '{command[0]}'"):
            r.execute_command("CLIENT", *command)


def test_maxmemory_is_live(r):
    assert r.config_get("maxmemory") == {"maxmemory": str(64 * MIB)}
    assert r.config_set("maxmemory", "32mb") is True
    assert r.config_get("maxmemory") == {"maxmemory": str(32 * MIB)}
    assert r.config_set("maxmemory-policy", "noeviction") is True
    assert r.info("memory")["maxmemory_policy"] == r.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    value = "x" * 100_000
    with pytest.raises(redis.OutOfMemoryError):
        for n in range(2000):
            r.set(f"k{n}", value)
    kept = r.dbsize()
    assert 100 < kept < 336 and r.get("k0") == value
    assert r.delete("k0") == 1
    assert r.config_set("maxmemory-policy", "allkeys-lru") is True
    assert r.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
    for n in range(2000):
        assert r.set(f"k{n}", value) is True
    info = r.info()
    assert info["evicted_keys"] > 1000 and info["used_memory"] <= 32 * MIB == info["maxmemory"]
    with pytest.raises(redis.ResponseError):
        r.config_set("maxmemory-policy", "nonsense")
    with pytest.raises(redis.ResponseError):
        r.config_set("nonsense", "1")


def test_freed_memory_goes_back_to_the_system(r):
    """RSS stayed at its peak after FLUSHALL, MEMORY PURGE and a lower limit; any client could raise the limit past --memory."""

    def resident_falls_below(limit):
        deadline = time.monotonic() + 20
        while r.info("memory")["used_memory_rss"] >= limit:
            assert time.monotonic() < deadline, (r.info("memory")["used_memory_rss"], limit)
            time.sleep(0.1)

    def fill():
        with r.pipeline(transaction=False) as pipe:
            for n in range(4000):
                pipe.set(f"k{n}", "x" * 10_000)
            pipe.execute()
        return r.info("memory")["used_memory_rss"]

    full = fill()
    r.flushall()
    assert r.memory_purge() is True
    resident_falls_below(full - 30 * MIB)
    full = fill()
    assert r.get("k3999") == "x" * 10_000
    assert r.config_set("maxmemory", "16mb") is True
    resident_falls_below(full - 20 * MIB)
    assert r.get("k3999") in ("x" * 10_000, None)
    with pytest.raises(redis.ResponseError, match=r"allowed: \d+ to 67108864 bytes \(--memory-max\)"):
        r.config_set("maxmemory", "65mb")


def test_info_that_tools_read(r):
    r.set("k", "v", ex=100), r.get("k"), r.get("nothing")
    info = r.info()
    assert tuple(int(part) for part in info["redis_version"].split(".")) >= (7, 0, 0)
    wanted = {"redis_mode": "standalone", "role": "master", "loading": 0, "cluster_enabled": 0, "connected_clients": 1,
              "maxmemory": 64 * MIB, "keyspace_hits": 1, "keyspace_misses": 1, "connected_slaves": 0, "evicted_keys": 0}
    assert {name: info[name] for name in wanted} == wanted
    for name in ["run_id", "tcp_port", "uptime_in_seconds", "used_memory", "used_memory_human", "used_memory_rss",
                 "maxmemory_policy", "mem_fragmentation_ratio", "total_commands_processed", "expired_keys", "blocked_clients",
                 "total_connections_received", "rdb_bgsave_in_progress", "rdb_last_bgsave_status", "used_cpu_sys", "used_cpu_user"]:
        assert name in info, name
    assert r.info("commandstats")["cmdstat_get"]["calls"] == 2
    keyspace = r.info("keyspace")["db0"]
    assert (keyspace["keys"], keyspace["expires"]) == (1, 1)
    assert set(r.info("replication")) >= {"role", "master_repl_offset"} and "redis_version" not in r.info("replication")
    assert r.execute_command("ROLE")[0] in ("master", b"master")


def test_changes_are_counted(r):
    changes = lambda: r.info("persistence")["rdb_changes_since_last_save"]
    before = changes()
    r.set("k", "v"), r.setbit("bits", 0, 1), r.bitfield("bits").set("u8", 0, 7).execute()
    assert changes() == before + 3
    r.bitfield("counter").incrby("u8", 8, 1).execute()
    assert changes() == before + 4
    # What changes nothing is none.
    r.setbit("bits", 0, 0), r.bitfield("bits").set("u8", 0, 7).execute(), r.setnx("k", "w"), r.get("k")
    assert changes() == before + 4


def test_commands_are_described(r):
    assert r.command_count() == len(r.command())
    assert set(r.command()) | {"config|get"} <= set(r.command_list())
    assert r.command()["get"]["arity"] == 2
    assert r.command_getkeys("MGET", "a", "b") == ["a", "b"]
    assert r.command_getkeysandflags("SET", "k", "v")[0][0] == "k"


def test_object_and_memory(r):
    r.set("int", 12), r.set("short", "v"), r.set("long", "v" * 1000)
    r.rpush("list", *range(3)), r.rpush("big list", *["v" * 100] * 1000)
    r.sadd("ints", *range(3)), r.sadd("set", "v" * 100), r.hset("hash", "f", "v"), r.zadd("zset", {"v" * 100: 1})
    encodings = {"int": "int", "short": "embstr", "long": "raw", "list": "listpack", "big list": "quicklist",
                 "ints": "intset", "set": "hashtable", "hash": "listpack", "zset": "skiplist"}
    assert {key: r.object("encoding", key) for key in encodings} == encodings
    # It was ERR no such key, as only DEBUG OBJECT has it.
    assert [r.object(what, "nothing") for what in ["encoding", "idletime", "refcount", "freq"]] == [None] * 4
    assert r.object("refcount", "int") == 1
    with pytest.raises(redis.ResponseError, match="idle time is not tracked by the policy s3fifo"):
        r.object("idletime", "int")
    r.config_set("maxmemory-policy", "allkeys-lru")

    def idle():
        """the new policy has taken over the key"""
        try:
            return r.object("idletime", "int") + 1
        except redis.ResponseError:
            return None

    assert 1 <= until(idle) < 60
    assert r.memory_usage("nothing") is None
    assert 1000 < r.memory_usage("long") < 2000 and 100_000 < r.memory_usage("big list", samples=0) < 200_000
    assert r.memory_usage("short") < 100
    assert r.memory_stats()["keys.count"] == 9 and r.memory_purge() is True


def test_slowlog(r):
    assert r.slowlog_len() == 0 and r.config_set("slowlog-log-slower-than", 0) is True
    # On any shard: it was only those of the client's own that were measured.
    for n in range(10):
        r.rpush(f"k{n}", *range(1000)), r.lrange(f"k{n}", 0, -1), r.get(f"nothing{n}")
    r.config_set("slowlog-log-slower-than", -1)
    entries = r.slowlog_get(100)
    commands = [b" ".join(entry["command"].split()[:2]).lower() for entry in reversed(entries)]
    wanted = [f"{command}{n}".encode() for n in range(10) for command in ["rpush k", "lrange k", "get nothing"]]
    assert [command for command in commands if not command.startswith(b"config")] == wanted
    assert all(entry["duration"] >= 0 and abs(entry["start_time"] - time.time()) < 60 for entry in entries)
    assert r.slowlog_len() == len(entries) and len(r.slowlog_get(1)) == 1
    assert r.slowlog_reset() is True and r.slowlog_len() == 0


def test_slowlog_of_commands_without_keys(clients, node):
    """PING and its kin were never measured. Of those that are now, passwords are kept out of the log."""
    r, other = clients(node, client_name="me"), clients(node, client_name="other")
    other.ping()
    r.config_set("slowlog-log-slower-than", 0)
    r.ping(), other.echo("hello"), r.config_set("requirepass", "secret")
    r.execute_command("AUTH", "secret"), r.execute_command("HELLO", 2, "AUTH", "default", "secret")
    r.config_set("requirepass", ""), r.config_set("slowlog-log-slower-than", -1)
    entries = [f"{entry['client_name'].decode()}: {entry['command'].decode()}" for entry in reversed(r.slowlog_get(100))]
    assert entries == [
        "me: ping",
        "other: echo hello",
        "me: config SET requirepass (redacted)",
        "me: auth (redacted)",
        "me: hello (redacted) (redacted) (redacted) (redacted)",
        "me: config SET requirepass (redacted)",
    ]


def test_last_commands_of_clients(clients, node):
    """Commands with keys were none to CLIENT LIST: who sent nothing else was idle since it had connected."""
    r, other = clients(node, client_name="me"), clients(node, client_name="other")
    told = lambda name: next(it for it in r.client_list() if it["name"] == name)
    assert told("me")["cmd"] == "client|list"
    other.echo("hello")
    assert told("other")["cmd"] == "echo"
    until(lambda: int(told("other")["idle"]) >= 2)
    other.set("k", "v")
    assert told("other")["cmd"] == "set" and int(told("other")["idle"]) < 2
    other.mget("k", "l", "m")
    assert told("other")["cmd"] == "mget"
    other.set("k", "v" * 1_000_000)
    assert told("other")["cmd"] == "set"
    # Of several at once it is the last, also where that is not read as others are.
    pipeline = other.pipeline(transaction=False)
    pipeline.get("k"), pipeline.ping()
    pipeline.execute()
    assert told("other")["cmd"] == "ping"
    pipeline.get("k"), pipeline.set("k", "v" * 1_000_000)
    pipeline.execute()
    assert told("other")["cmd"] == "set"
    with socket.create_connection((HOST, node.resp_port), timeout=30) as typed:
        typed.sendall(b"CLIENT SETNAME typed\r\n*2\r\n$3\r\nGET\r\n$2\r\nno\r\nPING\r\n")
        until(lambda: any(it["name"] == "typed" and it["cmd"] == "ping" for it in r.client_list()))
    for age, error in [("old", "not an integer"), (-1, "greater than 0")]:
        with pytest.raises(redis.ResponseError, match=error):
            r.execute_command("CLIENT", "KILL", "MAXAGE", age)


def test_dump_and_restore(node, clients):
    client = clients(node, decode_responses=False)
    client.set("string", bytes(range(256))), client.set("number", 12345)
    client.rpush("list", *range(500), b"v" * 5000), client.sadd("set", *range(500)), client.sadd("names", b"a", b"b")
    client.zadd("zset", {f"m{n}": n / 3 for n in range(500)}), client.hset("hash", mapping={f"f{n}": n for n in range(500)})
    readers = {
        b"string": client.get, b"number": client.get, b"list": lambda k: client.lrange(k, 0, -1), b"set": client.smembers,
        b"names": client.smembers, b"zset": lambda k: of_scan(client.zrange(k, 0, -1, withscores=True)), b"hash": client.hgetall,
    }
    for key, read in readers.items():
        dump = client.dump(key)
        assert client.restore(b"copy of " + key, 100_000, dump) in (True, b"OK")
        assert read(b"copy of " + key) == read(key), key
        assert SECONDS_LEFT * 1000 < client.pttl(b"copy of " + key) <= 100_000
        with pytest.raises(redis.ResponseError, match="BUSYKEY|Target key name already exists"):
            client.restore(key, 0, dump)
        assert client.restore(key, 0, dump, replace=True) in (True, b"OK")
        with pytest.raises(redis.ResponseError, match="DUMP payload version or checksum are wrong"):
            client.restore(b"broken", 0, dump[:-1] + bytes([dump[-1] ^ 1]))
    assert client.dump("nothing") is None and client.exists("broken") == 0


# One keyspace with memcached


def test_memcached_shares_strings(r, client):
    assert client.set("k", b"from memcached") is True and r.get("k") == "from memcached"
    assert r.set("k", "from redis") is True and client.get("k") == b"from redis"
    assert r.append("k", "!") == 11 and client.append("k", b"?") is True
    assert r.get("k") == "from redis!?" and client.get("k") == b"from redis!?"
    assert client.set("n", b"41") is True and r.incr("n") == 42 and client.incr("n", 1) == 43 and r.get("n") == "43"
    assert r.set("n", 7) is True and client.decr("n", 2) == 5
    assert r.setrange("k", 0, "FROM") == 12 and client.get("k") == b"FROM redis!?"
    assert r.setbit("bits", 1, 1) == 0 and client.get("bits") == b"@"
    assert client.get_many(["k", "n", "bits"]) == {"k": b"FROM redis!?", "n": b"5", "bits": b"@"}
    assert client.delete("k") is True and r.exists("k") == 0
    assert r.delete("n") == 1 and client.get("n") is None


def test_memcached_shares_long_strings(node, clients, connect):
    r, memcached = clients(node, decode_responses=False), connect()
    value = random.Random(2).randbytes(1000 * 1000)
    assert memcached.set("k", value) is True and r.get("k") == value
    assert r.set("l", value) is True and memcached.get("l") == value
    # Only RESP's clients may store longer ones, but all can read them.
    longer = value * 4
    assert r.set("k", longer) is True and memcached.get("k") == longer


def test_memcached_shares_times(r, client):
    client.set("k", b"v", expire=100)
    assert SECONDS_LEFT < r.ttl("k") <= 100
    assert r.expire("k", 200) is True and client.touch("k", 1000) is True
    assert 990 < r.ttl("k") <= 1000
    assert client.touch("k", 0) is True and r.ttl("k") == -1
    r.set("k", "v", px=20)
    until(lambda: client.get("k") is None)
    client.set("k", b"v", expire=100)
    assert r.persist("k") is True and client.get("k") == b"v" and r.ttl("k") == -1
    assert client.raw_command(b"gat 100 k", end_tokens=b"END\r\n").startswith(b"VALUE k 0 1\r\n")
    assert SECONDS_LEFT < r.ttl("k") <= 100


def test_memcached_agrees_on_versions(r, client):
    client.set("k", b"v")
    changes = [lambda: r.set("k", "w"), lambda: r.append("k", "x"), lambda: r.setrange("k", 0, "y"), lambda: r.execute_command("GETSET", "k", 1),
               lambda: r.incr("k"), lambda: r.delete("k") and r.set("k", "v")]
    for number, change in enumerate(changes):
        _, version = client.gets("k")
        change()
        assert client.cas("k", b"lost update", version) is False, number
        _, version = client.gets("k")
        r.get("k"), r.strlen("k"), r.exists("k"), r.ttl("k")
        assert client.cas("k", b"5", version) is True, number
    assert r.get("k") == "5"


def test_memcached_keeps_its_flags(r, client):
    def flags():
        return client.raw_command(b"get k", end_tokens=b"END\r\n").split()[2]

    client.set("k", b"1", flags=77)
    r.append("k", "2"), r.incr("k"), r.expire("k", 100)
    assert flags() == b"77"
    r.set("k", "another value")
    assert flags() == b"0"


def test_memcached_refuses_collections(r, client):
    r.rpush("list", "a", "b"), r.hset("hash", "f", "v"), r.sadd("set", "m"), r.zadd("zset", {"m": 1})
    for key in ["list", "hash", "set", "zset"]:
        for call in [lambda: client.get(key), lambda: client.gets(key), lambda: client.incr(key, 1),
                     lambda: client.decr(key, 1), lambda: client.append(key, b"x"), lambda: client.prepend(key, b"x")]:
            with pytest.raises(MemcacheClientError):
                call()
        assert client.add(key, b"v") is False
        assert client.touch(key, 100) is True and SECONDS_LEFT < r.ttl(key) <= 100
    assert r.lrange("list", 0, -1) == ["a", "b"] and r.hgetall("hash") == {"f": "v"}
    assert client.set("list", b"now a string") is True
    assert r.type("list") == "string" and r.get("list") == "now a string"
    assert client.replace("hash", b"also") is True and r.get("hash") == "also"
    assert client.delete("set") is True and r.exists("set") == 0


def test_memcached_knows_the_first_database(node, clients, r, client):
    other = clients(node, db=1)
    other.set("k", "of database 1")
    assert client.get("k") is None and client.set("k", b"of database 0") is True
    assert other.get("k") == "of database 1" and r.get("k") == "of database 0"
    assert other.flushdb() is True and client.get("k") == b"of database 0"
    assert r.flushdb() is True and client.get("k") is None


# asyncio


def run(node, protocol, work, **settings):
    """Runs a coroutine with an asyncio client of its own."""

    async def main():
        settings_of_all = {"protocol": protocol, "decode_responses": True, "socket_timeout": 30, "retry": None}
        client = redis.asyncio.Redis(host=HOST, port=node.resp_port, **(settings_of_all | settings))
        try:
            await work(client)
        finally:
            await client.aclose()

    asyncio.run(main())


def test_asyncio_connect_sequence(start_node, shards, protocol):
    node = start_node(shards=shards, arguments=["--requirepass", "secret"])

    async def work(client):
        assert await client.ping() is True
        mine = await client.client_info()
        assert (mine["name"], mine["db"], mine["resp"]) == ("async", 2, str(protocol))

    run(node, protocol, work, password="secret", client_name="async", db=2)
    with pytest.raises(redis.AuthenticationError):
        run(node, protocol, work, password="wrong")


def test_asyncio_commands(node, protocol):
    async def work(client):
        assert await client.set("k", "v", ex=100) is True and await client.get("k") == "v"
        assert await client.incrby("n", 5) == 5
        assert await client.rpush("l", 1, 2) == 2 and await client.lrange("l", 0, -1) == ["1", "2"]
        assert await client.hset("h", mapping={"a": 1}) == 1 and await client.hgetall("h") == {"a": "1"}
        assert await client.sadd("s", "a", "b") == 2 and await client.smembers("s") == {"a", "b"}
        assert await client.zadd("z", {"m": 1.5}) == 1
        assert of_scan(await client.zrange("z", 0, -1, withscores=True)) == [("m", 1.5)]
        assert {key async for key in client.scan_iter(count=1)} == {"k", "n", "l", "h", "s", "z"}
        assert await client.mget("k", "nothing", "n") == ["v", None, "5"]
        assert await client.delete("k", "n", "l", "h", "s", "z") == 6
        with pytest.raises(redis.ResponseError, match="^unknown command"):
            await client.execute_command("MULTI")

    run(node, protocol, work)


def test_asyncio_many_at_once(node, protocol):
    """Each task gets a connection of its own: they are spread over the shards."""

    async def work(client):
        async def one(number):
            for n in range(20):
                assert await client.set(f"{number}:{n}", n) is True
                assert await client.get(f"{number}:{n}") == str(n)
            return await client.incr("all")

        assert sorted(await asyncio.gather(*(one(n) for n in range(100)))) == list(range(1, 101))
        assert await client.dbsize() == 2001

    run(node, protocol, work)


def test_asyncio_pipeline_and_big_values(node, protocol):
    big = random.Random(7).randbytes(5 * MIB)

    async def work(client):
        async with client.pipeline(transaction=False) as pipe:
            for n in range(5000):
                pipe.set(f"k{n % 100}", n).get(f"k{n % 100}")
            pipe.set("big", big).get("big").strlen("big")
            replies = await pipe.execute()
        assert replies[:10_000] == [x for n in range(5000) for x in (True, str(n).encode())]
        assert replies[10_000:] == [True, big, len(big)]

    run(node, protocol, work, decode_responses=False)
