"""libmemcached, through pylibmc: the C client that PHP, Ruby and others use too."""

import pytest
from pinion import until

pylibmc = pytest.importorskip("pylibmc", reason="pylibmc has no wheel for this Python")


@pytest.fixture
def make(node, start_node):
    made = []

    def make(extra_nodes=0, **behaviors):
        nodes = [node, *(start_node(shards=node.shards) for _ in range(extra_nodes))]
        behaviors = {"tcp_nodelay": True, "cas": True} | behaviors
        client = pylibmc.Client([node.name for node in nodes], behaviors=behaviors)
        client.nodes = nodes
        made.append(client)
        return client

    yield make
    for client in made:
        client.disconnect_all()


@pytest.fixture
def client(make):
    return make()


def test_values_keep_their_types(client):
    values = {"bytes": b"\x00\xff\r\n", "text": "Ritzel 🦀", "int": -5}
    values |= {"list": [1, {"a": None}], "bool": True, "none": None}
    for key, value in values.items():
        assert client.set(key, value)
    assert client.get_multi([*values, "missing"]) == values
    assert client.get("missing", "default") == "default"
    assert "list" in client and "missing" not in client


def test_storage_commands(client):
    assert not client.replace("k", "1")
    assert not client.append("k", "1")
    assert client.add("k", "2")
    assert not client.add("k", "3")
    assert client.append("k", "3")
    assert client.prepend("k", "1")
    assert client.get("k") == "123"
    assert client.replace("k", "9")
    assert client.delete("k")
    assert not client.delete("k")
    assert client.get("k") is None


def test_numbers(client):
    with pytest.raises(pylibmc.NotFound):
        client.incr("n")
    client.set("n", 10)
    assert client.incr("n", 5) == 15
    assert client.decr("n", 100) == 0
    assert client.get("n") == 0
    client.set("text", "x")
    with pytest.raises(pylibmc.Error):
        client.incr("text")
    client.set("n", 1)
    assert client.incr("n") == 2  # in step after the error


def test_cas(make):
    one, other = make(), make()
    one.set("k", "1")
    value, version = one.gets("k")
    assert (value, version) == other.gets("k")
    assert one.cas("k", "2", version)
    assert not other.cas("k", "3", version)
    assert one.get("k") == "2"


def test_expiry_and_touch(client):
    client.set("k", "v", time=1)
    client.set("touched", "v", time=1)
    assert client.touch("touched", 1000)
    assert not client.touch("missing", 1000)
    until(lambda: client.get("k") is None)
    assert client.get("touched") == "v"


def test_large_values(client):
    value = bytes(range(256)) * 4096  # 1 MiB
    assert client.set("k", value)
    assert client.get("k") == value
    with pytest.raises(pylibmc.TooBig):
        client.set("k", value + b"x")
    assert client.set("k", "v")
    assert client.get("k") == "v"
    text = "compress me " * 200_000
    assert client.set("text", text, min_compress_len=1000)
    assert client.get("text") == text


@pytest.mark.parametrize("behaviors", [{}, {"ketama": True}, {"no_block": True}], ids=str)
def test_multi_over_three_nodes(make, behaviors):
    client = make(extra_nodes=2, **behaviors)
    values = {f"key-{i}": f"value {i}" * (i % 100) for i in range(500)}
    assert client.set_multi(values, key_prefix="p:") == []
    assert client.get_multi([*values, "missing"], key_prefix="p:") == values
    counts = [int(stats["curr_items"]) for _, stats in client.get_stats()]
    assert sum(counts) == 500 and all(counts)
    assert client.delete_multi(list(values), key_prefix="p:")
    assert client.get_multi(list(values), key_prefix="p:") == {}
    client.set_multi(values)
    assert client.flush_all()
    assert client.get_multi(list(values)) == {}


def test_without_replies(make):
    client = make(_noreply=True)
    values = {f"key-{i}": f"value {i}" for i in range(300)}
    client.set_multi(values)
    client.set("key-0", "again")
    # On one connection: what was sent before is executed before.
    assert client.get_multi(list(values)) == values | {"key-0": "again"}


def test_statistics(client):
    client.set("k", "v")
    ((name, stats),) = client.get_stats()
    assert name.startswith(client.nodes[0].name.encode())
    assert (stats["curr_items"], stats["threads"]) == (b"1", str(client.nodes[0].shards).encode())
