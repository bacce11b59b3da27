"""pymemcache's Client: its whole interface. raw_command stands in for what it has no method for (gat, verbosity)."""

import time

import pytest
from pinion import until
from pymemcache import serde
from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheIllegalInputError,
    MemcacheServerError,
    MemcacheUnknownCommandError,
)

MIB = 1024 * 1024
U64_MAX = 2**64 - 1

noreply = pytest.mark.parametrize("noreply", [False, True], ids=["reply", "noreply"])


# Values


@noreply
def test_set_get(client, noreply):
    assert client.get("k") is None
    assert client.get("k", default="none") == "none"
    assert client.set("k", b"one", noreply=noreply) is True
    assert client.get("k") == b"one"
    assert client.set("k", b"", noreply=noreply) is True
    assert client.get("k") == b""


def test_values_with_every_byte_and_with_protocol_inside(client):
    values = {"bytes": bytes(range(256)), "crlf": b"\r\n", "end": b"END\r\nVALUE x 0 1\r\n", "command": b"get k\r\n"}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values


@noreply
def test_add_only_where_there_is_nothing(client, noreply):
    assert client.add("k", b"first", noreply=noreply) is True
    assert client.add("k", b"second", noreply=noreply) is noreply  # True is all that pymemcache says of a noreply
    assert client.get("k") == b"first"
    client.delete("k")
    client.add("k", b"third", noreply=noreply)
    assert client.get("k") == b"third"


@noreply
def test_replace_only_where_there_is_something(client, noreply):
    assert client.replace("k", b"first", noreply=noreply) is noreply
    assert client.get("k") is None
    client.set("k", b"old")
    assert client.replace("k", b"new", noreply=noreply) is True
    assert client.get("k") == b"new"


@noreply
def test_append_prepend(client, noreply):
    assert client.append("k", b"x", noreply=noreply) is noreply
    assert client.prepend("k", b"x", noreply=noreply) is noreply
    assert client.get("k") is None
    client.set("k", b"middle", flags=7)
    assert client.append("k", b" end", noreply=noreply, flags=9) is True
    assert client.prepend("k", b"start ", noreply=noreply) is True
    assert client.get("k") == b"start middle end"
    # The flags stay those of the value that was extended.
    assert client.raw_command(b"get k", end_tokens=b"END\r\n").startswith(b"VALUE k 7 16\r\n")


def test_cas(client):
    assert client.gets("k") == (None, None)
    assert client.gets("k", default=b"d", cas_default=b"c") == (b"d", b"c")
    assert client.cas("k", b"v", 1) is None  # not there
    client.set("k", b"one")
    value, version = client.gets("k")
    assert value == b"one"
    assert client.cas("k", b"two", version) is True
    assert client.cas("k", b"three", version) is False  # changed in the meantime
    assert client.get("k") == b"two"
    assert client.gets("k")[1] != version


@pytest.mark.parametrize("change", ["set", "append", "prepend", "incr", "replace", "delete and set"])
def test_any_change_makes_a_cas_fail(client, change):
    client.set("k", b"1")
    version = client.gets("k")[1]
    if change == "delete and set":
        client.delete("k")
        client.set("k", b"1")
    elif change == "incr":
        client.incr("k", 1)
    else:
        getattr(client, change)("k", b"2")
    assert client.cas("k", b"lost", version) is False
    assert client.get("k") != b"lost"


def test_reading_and_touching_do_not_make_a_cas_fail(client):
    client.set("k", b"1")
    version = client.gets("k")[1]
    client.get("k")
    client.touch("k", 1000)
    assert client.gets("k") == (b"1", version)
    assert client.cas("k", b"2", version) is True


def test_cas_noreply(client):
    client.set("k", b"one")
    version = client.gets("k")[1]
    assert client.cas("k", b"two", version, noreply=True) is True
    assert client.get("k") == b"two"
    assert client.cas("k", b"three", version, noreply=True) is True  # says nothing, does nothing
    assert client.get("k") == b"two"


@noreply
def test_delete(client, noreply):
    client.set("k", b"v")
    assert client.delete("k", noreply=noreply) is True
    assert client.get("k") is None
    assert client.delete("k", noreply=noreply) is noreply


@noreply
def test_many(client, noreply):
    values = {f"key-{i}": f"value {i}".encode() * (i % 50) for i in range(1000)}
    assert client.set_many(values, noreply=noreply) == []
    assert client.get_many([*values, "missing"]) == values
    with_versions = client.gets_many(list(values))
    assert {key: value for key, (value, _) in with_versions.items()} == values
    assert all(version.isdigit() for _, version in with_versions.values())
    gone = list(values)[::2]
    assert client.delete_many(gone, noreply=noreply) is True
    assert client.get_many(list(values)) == {key: values[key] for key in list(values)[1::2]}
    assert client.get_many([]) == {}


def test_values_come_in_the_order_of_the_keys(client):
    keys = [f"key-{i}" for i in range(200)]
    client.set_many({key: key.encode() for key in keys})
    assert list(client.get_many(keys)) == keys
    assert list(client.get_many(keys[::-1])) == keys[::-1]


def test_a_key_asked_for_twice_comes_twice(client):
    client.set("k", b"v")
    assert client.raw_command(b"get k nothing k", end_tokens=b"END\r\n") == b"VALUE k 0 1\r\nv\r\n" * 2


def test_item_syntax(client):
    client["k"] = b"v"
    assert client["k"] == b"v"
    del client["k"]
    with pytest.raises(KeyError):
        client["k"]


# Numbers


def test_incr_decr(client):
    assert client.incr("n", 1) is None
    assert client.decr("n", 1) is None
    client.set("n", b"10")
    assert client.incr("n", 5) == 15
    assert client.decr("n", 6) == 9
    assert client.get("n") == b"9"
    assert client.decr("n", 100) == 0
    assert client.get("n") == b"0"


def test_incr_decr_noreply(client):
    client.set("n", b"10")
    assert client.incr("n", 5, noreply=True) is None
    assert client.decr("n", 1, noreply=True) is None
    assert client.incr("missing", 1, noreply=True) is None
    assert client.get_many(["n", "missing"]) == {"n": b"14"}


def test_incr_wraps_at_64_bits(client):
    client.set("n", str(U64_MAX - 1).encode())
    assert client.incr("n", 1) == U64_MAX
    assert client.incr("n", 1) == 0
    assert client.incr("n", U64_MAX) == U64_MAX


@pytest.mark.parametrize("value", [b"abc", b"", b"1x", b"-1", b"1.5", str(U64_MAX + 1).encode()])
def test_incr_of_what_is_no_number(client, value):
    client.set("n", value)
    for command in client.incr, client.decr:
        with pytest.raises(MemcacheClientError, match="cannot increment or decrement non-numeric value"):
            command("n", 1)
    assert client.get("n") == value


@pytest.mark.parametrize("delta", [b"x", b"-1", b"1.5", str(U64_MAX + 1).encode()])
def test_incr_by_what_is_no_number(client, delta):
    client.set("n", b"1")
    with pytest.raises(MemcacheClientError, match="invalid numeric delta argument"):
        client.raw_command(b"incr n " + delta)
    assert client.get("n") == b"1"


def test_incr_keeps_flags(client):
    client.set("n", b"9", flags=4)
    assert client.incr("n", 1) == 10
    assert client.raw_command(b"get n", end_tokens=b"END\r\n") == b"VALUE n 4 2\r\n10\r\n"


# Time


def test_expiry(client):
    before = time.monotonic()
    client.set_many({"short": b"v", "default": b"v"}, expire=1)
    client.set("default", b"v")
    client.set("long", b"v", expire=1000)
    assert client.get("short") == b"v"
    until(lambda: client.get("short") is None)
    assert 0.9 < time.monotonic() - before < 4
    assert client.get_many(["default", "long"]) == {"default": b"v", "long": b"v"}
    assert client.add("short", b"again") is True
    assert client.get("short") == b"again"


def test_expiry_at_a_time(client):
    now = int(time.time())
    client.set("past", b"v", expire=now - 10)
    client.set("soon", b"v", expire=now + 2)
    client.set("later", b"v", expire=now + 1000)
    assert client.get_many(["past", "later"]) == {"later": b"v"}
    until(lambda: client.get("soon") is None)
    assert time.time() > now + 1
    assert client.get("later") == b"v"


def test_a_negative_expiry_is_over_at_once(client):
    client.set("k", b"old")
    assert client.set("k", b"v", expire=-1) is True
    assert client.get("k") is None


def test_incr_append_and_cas_of_what_has_expired(client):
    client.set_many({"n": b"1", "a": b"1", "c": b"1"}, expire=1)
    version = client.gets("c")[1]
    until(lambda: client.get_many(["n", "a", "c"]) == {})
    assert client.incr("n", 1) is None
    assert client.append("a", b"x") is False
    assert client.replace("a", b"x") is False
    assert client.cas("c", b"x", version) is None
    assert client.touch("n", 10) is False
    assert client.delete("n") is False


def test_extending_and_counting_keep_the_expiry(client):
    client.set_many({"n": b"1", "a": b"1"}, expire=1)
    client.incr("n", 1)
    client.append("a", b"2")
    assert client.get_many(["n", "a"]) == {"n": b"2", "a": b"12"}
    until(lambda: client.get_many(["n", "a"]) == {})


@noreply
def test_touch(client, noreply):
    assert client.touch("missing", 10, noreply=noreply) is noreply
    client.set("longer", b"v", expire=1)
    client.set("shorter", b"v")
    assert client.touch("longer", 1000, noreply=noreply) is True
    assert client.touch("shorter", 1, noreply=noreply) is True
    assert client.get_many(["longer", "shorter"]) == {"longer": b"v", "shorter": b"v"}
    until(lambda: client.get("shorter") is None)
    # "longer" was to expire before.
    assert client.get("longer") == b"v"


def test_gat_and_gats(client):
    client.set("k", b"v", expire=1, flags=3)
    client.set("other", b"w")
    assert client.raw_command(b"gat 1000 k missing", end_tokens=b"END\r\n") == b"VALUE k 3 1\r\nv\r\n"
    version = client.gets("k")[1]
    assert client.raw_command(b"gats 1000 k", end_tokens=b"END\r\n") == b"VALUE k 3 1 " + version + b"\r\nv\r\n"
    assert client.raw_command(b"gats 1 other", end_tokens=b"END\r\n").startswith(b"VALUE other 0 1 ")
    until(lambda: client.get("other") is None)
    assert client.get("k") == b"v"
    stats = client.stats()
    assert (stats[b"touch_hits"], stats[b"touch_misses"]) == (3, 1)


def test_gat_of_many_answers_in_order(client, node):
    client.set_many({f"key-{i}": b"%d" % i for i in range(100)})
    command = b"gat 1 " + b" ".join(b"key-%d" % i for i in range(100)) + b"\r\n"
    expected = b"".join(b"VALUE key-%d 0 %d\r\n%d\r\n" % (i, len(str(i)), i) for i in range(100)) + b"END\r\n"
    # Not raw_command: of a reply that arrives in two parts, it loses the first.
    with node.connect() as connection:
        connection.sendall(command)
        assert connection.makefile("rb").read(len(expected)) == expected
    until(lambda: client.get_many([f"key-{i}" for i in range(100)]) == {})


@pytest.mark.parametrize("command", [b"gat x k", b"gats x k", b"touch k x"])
def test_an_expiry_that_is_no_number(client, command):
    client.set("k", b"v")
    with pytest.raises(MemcacheClientError, match="invalid exptime argument"):
        client.raw_command(command)
    assert client.get("k") == b"v"


@noreply
def test_flush_all(client, noreply):
    values = {f"key-{i}": b"v" for i in range(100)}
    client.set_many(values)
    version = client.gets("key-0")[1]
    assert client.flush_all(noreply=noreply) is True
    assert client.get_many(list(values)) == {}
    assert client.cas("key-0", b"x", version) is None
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values


@noreply
def test_flush_all_with_a_delay(client, noreply):
    values = {f"key-{i}": b"v" for i in range(100)}
    client.set_many(values)
    before = time.monotonic()
    assert client.flush_all(delay=1, noreply=noreply) is True
    assert client.get_many(list(values)) == values
    until(lambda: client.get_many(list(values)) == {})
    assert 0.9 < time.monotonic() - before < 4
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values


def test_a_flush_now_and_one_later(client):
    client.set("k", b"v")
    client.flush_all(delay=1000)
    assert client.get("k") == b"v"
    client.flush_all()
    assert client.get("k") is None
    client.set("k", b"v")
    assert client.get("k") == b"v"


# Flags and what clients make of them


@pytest.mark.parametrize("flags", [0, 1, 65535, 65536, 2**32 - 1])
def test_flags_are_kept(client, flags):
    client.set("k", b"v", flags=flags)
    assert client.raw_command(b"get k", end_tokens=b"END\r\n") == b"VALUE k %d 1\r\nv\r\n" % flags


def test_pickled_values(connect):
    client = connect(serde=serde.pickle_serde)
    values = {"int": 42, "big": 2**100, "text": "ünïcödé ✓", "bytes": b"\x00\xff"}
    values |= {"list": [1, {"a": (None, 2.5)}], "none": None}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values
    assert [type(client.get(key)) for key in values] == [type(value) for value in values.values()]


def test_compressed_values(connect):
    client = connect(serde=serde.CompressedSerde(min_compress_len=100))
    values = {"small": "s", "large": "text " * 100_000}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values
    assert len(connect().get("large")) < 10_000


def test_unicode_values(connect):
    client = connect(encoding="utf8")
    text = "Ritzel 小齿轮 🦀\r\n"
    assert client.set("k", text) is True
    assert client.get("k") == text.encode()


def test_unicode_keys(connect):
    client = connect(allow_unicode_keys=True)
    values = {"ключ": b"1", "鍵": b"2", "🔑" * 62: b"3"}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values
    assert client.delete("鍵") is True
    assert client.get_many(list(values)) == {"ключ": b"1", "🔑" * 62: b"3"}


def test_key_prefix(connect):
    prefixed, plain = connect(key_prefix=b"app:"), connect()
    prefixed.set("k", b"v")
    assert prefixed.get("k") == b"v"
    assert plain.get_many(["k", "app:k"]) == {"app:k": b"v"}


# Sizes


@pytest.mark.parametrize("size", [1, 1023, 4096, 16384, 16385, 65536, 512 * 1024, MIB - 1, MIB])
def test_large_values(client, size):
    value = bytes(i % 251 for i in range(1009)) * (size // 1009 + 1)
    value = value[:size]
    assert client.set("k", value) is True
    assert client.get("k") == value
    assert client.set("k", value, noreply=True) is True
    assert client.get_many(["missing", "k"]) == {"k": value}


def test_many_large_values_at_once(client):
    values = {f"key-{i}": bytes([i]) * (MIB // 2) for i in range(10)}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values


def test_append_up_to_the_largest_value(client):
    client.set("k", b"x" * (MIB - 1))
    assert client.append("k", b"y") is True
    assert client.get("k") == b"x" * (MIB - 1) + b"y"
    with pytest.raises(MemcacheServerError, match="object too large for cache"):
        client.append("k", b"z")


@pytest.mark.parametrize("size", [MIB + 1, 2 * MIB, 10 * MIB])
def test_too_large_a_value(client, size):
    client.set("k", b"old")
    client.set("other", b"v")
    with pytest.raises(MemcacheServerError, match="object too large for cache"):
        client.set("k", b"x" * size)
    # A set that failed leaves no old value behind.
    assert client.get_many(["k", "other"]) == {"other": b"v"}
    assert client.stats()[b"store_too_large"] == 1


def test_too_large_a_value_without_reply(client):
    client.set("k", b"old")
    assert client.set("k", b"x" * (2 * MIB), noreply=True) is True
    # The same connection: the value was taken for no command.
    assert client.get("k") is None
    assert client.set("k", b"new") is True
    assert client.get("k") == b"new"


@pytest.mark.parametrize("command", ["add", "replace", "append", "prepend"])
def test_too_large_a_value_of_other_commands_keeps_the_old(client, command):
    client.set("k", b"old")
    with pytest.raises(MemcacheServerError, match="object too large for cache"):
        getattr(client, command)("k", b"x" * (MIB + 1))
    assert client.get("k") == b"old"


# Keys


def test_the_longest_key(client):
    key = "k" * 250
    assert client.set(key, b"1") is True
    assert client.get(key) == b"1"
    assert client.incr(key, 1) == 2
    assert client.touch(key, 10) is True
    assert client.delete(key) is True


@pytest.mark.parametrize("key", ["k" * 251, "with space", "with\nnewline", "with\x00null", "ünicode"])
def test_pymemcache_refuses_illegal_keys(client, key):
    with pytest.raises(MemcacheIllegalInputError):
        client.set(key, b"v")
    with pytest.raises(MemcacheIllegalInputError):
        client.get(key)


@pytest.mark.parametrize(
    "command",
    [b"get %s", b"gets %s", b"get k %s", b"gat 0 %s", b"delete %s", b"incr %s 1", b"decr %s 1", b"touch %s 0"]
    + [b"%s %%s 0 0 1\r\nv" % verb for verb in (b"set", b"add", b"replace", b"append", b"prepend")]
    + [b"cas %s 0 0 1 1\r\nv"],
)
def test_the_server_refuses_too_long_a_key(client, command):
    client.set("k", b"v")
    with pytest.raises(MemcacheClientError, match="bad command line format"):
        client.raw_command(command % (b"k" * 251))
    assert client.get("k") == b"v"
    assert client.stats()[b"curr_items"] == 1


# Commands that concern the server


def test_version(client):
    version = client.version()
    # Clients such as libmemcached read three numbers.
    assert [part.isdigit() for part in version.split(b"-")[0].split(b".")] == [True] * 3
    assert b"pinion" in version


def test_verbosity(client):
    assert client.raw_command(b"verbosity 1") == b"OK"
    with pytest.raises(MemcacheClientError):
        client.raw_command(b"verbosity")


def test_stats(client, node):
    client.set("k", b"v")
    client.get_many(["k", "missing"])
    client.incr("missing", 1)
    client.delete("k")
    stats = client.stats()
    assert stats[b"pid"] == node.process.pid
    assert stats[b"version"] == client.version()
    assert stats[b"threads"] == node.shards
    assert stats[b"limit_maxbytes"] == node.memory_mib * MIB
    assert stats[b"curr_connections"] == 1
    assert stats[b"accepting_conns"] == 1
    assert isinstance(stats[b"rusage_user"], float)
    assert abs(stats[b"time"] - time.time()) < 60
    expected = {"cmd_set": 1, "cmd_get": 2, "get_hits": 1, "get_misses": 1, "incr_misses": 1, "delete_hits": 1}
    expected |= {"curr_items": 0, "total_items": 1, "evictions": 0}
    assert {name: stats[name.encode()] for name in expected} == expected


def test_stats_settings(client, node):
    settings = client.stats("settings")
    assert settings[b"tcpport"] == node.port
    assert settings[b"maxbytes"] == node.memory_mib * MIB
    assert settings[b"num_threads"] == node.shards
    assert settings[b"item_size_max"] == MIB


def test_stats_reset(client):
    client.set("k", b"v")
    client.get("k")
    assert client.raw_command(b"stats reset") == b"RESET"
    stats = client.stats()
    assert (stats[b"cmd_set"], stats[b"get_hits"]) == (0, 0)
    assert stats[b"curr_items"] == 1
    assert client.get("k") == b"v"


@pytest.mark.parametrize("topic", ["items", "slabs", "sizes"])
def test_stats_that_exporters_ask_for(client, topic):
    assert isinstance(client.stats(topic), dict)  # no error


def test_quit_and_come_back(client):
    client.set("k", b"v")
    client.quit()
    assert client.sock is None
    assert client.get("k") == b"v"


def test_the_server_closes_after_quit(node):
    with node.connect() as connection:
        connection.sendall(b"quit\r\nget k\r\n")
        assert connection.recv(1) == b""


def test_shutdown_is_not_for_clients(client):
    with pytest.raises(MemcacheServerError):
        client.shutdown()
    assert client.set("k", b"v") is True


def test_unknown_commands(client):
    for command in b"nonsense", b"GET k", b"":
        with pytest.raises(MemcacheUnknownCommandError):
            client.raw_command(command)
    assert client.set("k", b"v") is True


@pytest.mark.parametrize("command", [b"nonsense noreply", b"stats noreply"])
def test_noreply_hides_no_answer_of_commands_that_do_not_have_it(client, command):
    with pytest.raises(MemcacheUnknownCommandError):
        client.raw_command(command)


def test_version_has_no_noreply(client):
    assert client.raw_command(b"version noreply").startswith(b"VERSION ")


def test_no_answer_to_any_noreply(connect):
    client = connect(default_noreply=True)
    client.set("k", b"1")
    client.set("k", b"x" * (2 * MIB))
    client.set("k", b"1")
    client.add("k", b"2")
    client.replace("missing", b"2")
    client.append("missing", b"2")
    client.prepend("k", b"1")
    client.cas("k", b"2", 999_999, noreply=True)
    client.incr("k", 1, noreply=True)
    client.decr("missing", 1, noreply=True)
    client.touch("missing", 1)
    client.delete("missing")
    client.set_many({f"key-{i}": b"v" for i in range(100)})
    client.delete_many([f"key-{i}" for i in range(100)])
    # Any answer to the above would be taken for the answer to this.
    assert client.get("k") == b"12"
    client.flush_all()
    assert client.get("k") is None
