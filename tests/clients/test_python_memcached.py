"""python-memcached, a second client: it compresses, pickles and hashes in its own way, and swallows errors."""

import re

import memcache
import pytest
from pinion import until


@pytest.fixture
def make(node, start_node):
    made = []

    def make(extra_nodes=0, **settings):
        nodes = [node, *(start_node(shards=node.shards) for _ in range(extra_nodes))]
        client = memcache.Client([node.name for node in nodes], socket_timeout=10, debug=1, **settings)
        client.nodes = nodes
        made.append(client)
        return client

    yield make
    for client in made:
        client.disconnect_all()


@pytest.fixture
def client(make):
    return make(cache_cas=True)


@pytest.fixture(autouse=True)
def no_complaint(capsys):
    """With debug=1 it writes to stderr what it did not expect of the server. That nothing was stored is no surprise."""
    yield
    complaints = [line for line in capsys.readouterr().err.splitlines() if line.startswith("MemCached:")]
    refused = re.compile(r"unexpected response '(NOT_STORED|EXISTS)'|delete expected DELETED, got: b'NOT_FOUND'")
    assert [line for line in complaints if not refused.search(line)] == []


def test_values_keep_their_types(client):
    values = {"bytes": b"\x00\xff\r\n", "text": "Ritzel 🦀", "int": -5}
    values |= {"big": 2**70, "list": [1, {"a": None}], "bool": True}
    for key, value in values.items():
        assert client.set(key, value)
    assert client.get_multi([*values, "missing"]) == values
    assert {key: client.get(key) for key in values} == values
    assert client.get("missing", default="none") == "none"


def test_storage_commands(client):
    assert not client.replace("k", "1")
    assert not client.append("k", "1")
    assert not client.prepend("k", "1")
    assert client.add("k", "2")
    assert not client.add("k", "3")
    assert client.append("k", "3")
    assert client.prepend("k", "1")
    assert client.get("k") == "123"
    assert client.replace("k", "9")
    assert client.get("k") == "9"
    assert client.delete("k")
    assert not client.delete("k")
    assert client.get("k") is None


def test_noreply(client):
    assert client.set("k", "1", noreply=True)
    assert client.add("k", "2", noreply=True)
    assert client.append("k", "2", noreply=True)
    assert client.touch("k", 1000, noreply=True)
    client.incr("k", 3, noreply=True)
    client.delete("missing", noreply=True)
    assert client.set_multi({"a": "1", "b": "2"}, noreply=True) == []
    client.delete_multi(["a"], noreply=True)
    assert client.get_multi(["k", "a", "b"]) == {"k": "15", "b": "2"}


def test_numbers(client):
    assert client.incr("n") is None
    client.set("n", 10)
    assert client.incr("n", 5) == 15
    assert client.decr("n", 100) == 0
    assert client.get("n") == 0


def test_cas(make):
    one, other = make(cache_cas=True), make(cache_cas=True)
    one.set("k", "1")
    assert one.gets("k") == other.gets("k") == "1"
    assert one.cas("k", "2")
    assert not other.cas("k", "3")
    assert other.gets("k") == "2"
    assert other.cas("k", "4")
    assert one.get("k") == "4"


def test_expiry_and_touch(client):
    client.set("k", "v", time=1)
    client.set("touched", "v", time=1)
    assert client.touch("touched", 1000)
    assert client.get("k") == "v"
    until(lambda: client.get("k") is None)
    assert client.get("touched") == "v"


def test_large_and_compressed_values(client):
    text = "compress me " * 200_000  # more than 1 MiB, until it is compressed
    assert client.set("k", text, min_compress_len=1000)
    assert client.get("k") == text
    value = bytes(range(256)) * 4096  # 1 MiB
    assert client.set("bytes", value)
    assert client.get("bytes") == value


def test_multi_over_three_nodes(make):
    client = make(extra_nodes=2)
    values = {f"key-{i}": f"value {i}" for i in range(300)}
    assert client.set_multi(values, key_prefix="p:") == []
    assert client.get_multi(list(values), key_prefix="p:") == values
    assert client.get_multi(["p:key-0", "key-0"]) == {"p:key-0": "value 0"}
    counts = [int(stats["curr_items"]) for _, stats in client.get_stats()]
    assert sum(counts) == 300 and all(counts)
    assert client.delete_multi(list(values), key_prefix="p:") == 1
    assert client.get_multi(list(values), key_prefix="p:") == {}
    client.set_multi(values)
    client.flush_all()
    assert client.get_multi(list(values)) == {}


def test_statistics(client):
    client.set("k", "v")
    ((name, stats),) = client.get_stats()
    assert name.startswith(client.nodes[0].name)
    assert stats["curr_items"].strip() == "1"
    ((_, settings),) = client.get_stats("settings")
    assert settings["num_threads"].strip() == str(client.nodes[0].shards)
