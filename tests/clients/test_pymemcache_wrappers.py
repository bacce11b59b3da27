"""pymemcache's PooledClient, RetryingClient, and HashClient over several nodes, one of which stops."""

import concurrent.futures

import pytest
from pinion import until
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient
from pymemcache.exceptions import MemcacheClientError, MemcacheError, MemcacheUnexpectedCloseError

# What a client of a stopped node gets: its old connection ends, in one way or another, and a new one is refused.
STOPPED = (OSError, MemcacheUnexpectedCloseError)

SETTINGS = {"timeout": 10, "connect_timeout": 10, "default_noreply": False}


# PooledClient


@pytest.fixture
def pooled(node):
    client = PooledClient(node.address, max_pool_size=8, **SETTINGS)
    yield client
    client.close()


def test_pooled_client(pooled):
    assert pooled.set("k", b"1") is True
    assert pooled.get("k") == b"1"
    assert pooled.set_many({"a": b"1", "b": b"2"}) == []
    assert pooled.get_many(["a", "b", "c"]) == {"a": b"1", "b": b"2"}
    assert pooled.add("a", b"x") is False
    assert pooled.replace("a", b"3") is True
    assert pooled.append("a", b"4") is True
    assert pooled.prepend("a", b"2") is True
    assert pooled.get("a") == b"234"
    value, version = pooled.gets("a")
    assert value == b"234"
    assert pooled.cas("a", b"5", version) is True
    assert pooled.cas("a", b"6", version) is False
    assert pooled.gets_many(["a"])["a"][0] == b"5"
    assert pooled.incr("a", 2) == 7
    assert pooled.decr("a", 1) == 6
    assert pooled.touch("a", 100) is True
    assert pooled.delete("a") is True
    assert pooled.delete_many(["b", "c"]) is True
    assert pooled.get_many(["a", "b"]) == {}
    assert b"pinion" in pooled.version()
    assert pooled.stats()[b"curr_items"] == 1
    assert pooled.flush_all() is True
    assert pooled.get("k") is None
    with pytest.raises(MemcacheClientError):
        pooled.set("k", b"x")
        pooled.incr("k", 1)
    assert pooled.get("k") == b"x"
    pooled.quit()
    assert pooled.get("k") == b"x"


def test_pooled_client_of_many_threads(pooled):
    pooled.set("count", b"0")

    def work(thread):
        for i in range(200):
            key, value = f"{thread}-{i}", f"value {thread} {i}".encode() * (1 + i)
            assert pooled.set(key, value) is True
            assert pooled.get(key) == value
            assert pooled.incr("count", 1) is not None
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, range(8)))
    assert pooled.get("count") == b"1600"
    stats = pooled.stats()
    assert 1 <= stats[b"curr_connections"] <= 8
    assert stats[b"cmd_set"] == 1601
    assert (stats[b"get_misses"], stats[b"incr_hits"], stats[b"curr_items"]) == (0, 1600, 1601)


def test_compare_and_swap_of_many_threads_loses_no_update(pooled):
    pooled.set("list", b"")

    def work(thread):
        for i in range(50):
            while True:
                value, version = pooled.gets("list")
                if pooled.cas("list", value + b"%d-%d " % (thread, i), version):
                    break

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    words = pooled.get("list").split()
    assert sorted(words) == sorted(b"%d-%d" % (thread, i) for thread in range(4) for i in range(50))
    stats = pooled.stats()
    assert stats[b"cas_hits"] == 200
    assert stats[b"cas_misses"] == 0


def test_the_server_forgets_connections_that_were_closed(pooled, node):
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: pooled.set(f"key-{i}", b"v"), range(100)))
    pooled.close()
    watcher = Client(node.address, **SETTINGS)
    until(lambda: watcher.stats()[b"curr_connections"] == 1)
    watcher.close()


# RetryingClient


class Counting:
    """Counts the calls of a client's incr."""

    def __init__(self, client):
        self.client, self.calls = client, 0

    def incr(self, *args):
        self.calls += 1
        return self.client.incr(*args)

    def __getattr__(self, name):
        return getattr(self.client, name)


def test_retrying_client(client):
    retrying = RetryingClient(client, attempts=3)
    assert retrying.set("k", b"1") is True
    assert retrying.incr("k", 1) == 2
    retrying["other"] = b"v"
    assert retrying["other"] == b"v"
    del retrying["other"]
    assert retrying.get_many(["k", "other"]) == {"k": b"2"}


def test_retrying_client_survives_a_restart(start_node, shards):
    node = start_node(shards=shards)
    client = Client(node.address, **SETTINGS)
    retrying = RetryingClient(client, attempts=2, retry_for=STOPPED)
    assert retrying.set("k", b"1") is True
    node.stop()
    with pytest.raises(STOPPED):
        retrying.get("k")
    again = start_node(shards=shards, port=node.port)
    assert retrying.get("k") is None  # an empty cache
    assert retrying.set("k", b"2") is True
    again.stop()
    start_node(shards=shards, port=node.port)
    # The connection to the node that stopped is in the way of the first attempt, not of the second.
    assert retrying.set("k", b"3") is True
    assert retrying.get("k") == b"3"
    client.close()


@pytest.mark.parametrize("retried", [True, False])
def test_retrying_client_retries_what_it_is_told_to(client, retried):
    counting = Counting(client)
    choice = {"retry_for" if retried else "do_not_retry_for": [MemcacheClientError]}
    retrying = RetryingClient(counting, attempts=3, **choice)
    # dir() of the wrapped client decides which methods are retried.
    retrying._client_dir = dir(client)
    client.set("k", b"x")
    with pytest.raises(MemcacheClientError):
        retrying.incr("k", 1)
    assert counting.calls == (3 if retried else 1)


# HashClient

KEYS = [f"key-{i}" for i in range(300)]
VALUES = {key: f"value of {key}".encode() for key in KEYS}


@pytest.fixture(params=[2, 3], ids=["2-nodes", "3-nodes"])
def nodes(request, start_node, shards):
    return [start_node(shards=shards) for _ in range(request.param)]


@pytest.fixture(params=[False, True], ids=["plain", "pooled"])
def hash_client(request, nodes):
    made = []

    def make(**settings):
        settings = SETTINGS | {"use_pooling": request.param, "retry_timeout": 0} | settings
        made.append(HashClient([node.address for node in nodes], **settings))
        return made[-1]

    yield make
    for client in made:
        client.ignore_exc = True
        client.close()


def items(node):
    client = Client(node.address, **SETTINGS)
    try:
        return client.stats()[b"curr_items"]
    finally:
        client.close()


def keys_of(client, node):
    """The keys that a HashClient sends to a node."""
    return [key for key in KEYS if client.hasher.get_node(key) == node.name]


def test_hash_client(hash_client, nodes):
    client = hash_client()
    assert client.set_many(VALUES) == []
    # Each key is on the node that the hash names, and nowhere else.
    assert [items(node) for node in nodes] == [len(keys_of(client, node)) for node in nodes]
    assert all(items(node) > 0 for node in nodes)
    assert client.get_many([*KEYS, "missing"]) == VALUES
    assert {key: value for key, (value, _) in client.gets_many(KEYS).items()} == VALUES
    assert client.set("n", b"1") is True
    assert client.add("n", b"2") is False
    assert client.replace("n", b"3") is True
    assert client.append("n", b"4") is True
    assert client.prepend("n", b"2") is True
    assert client.incr("n", 1) == 235
    assert client.decr("n", 35) == 200
    value, version = client.gets("n")
    assert (value, client.cas("n", b"5", version), client.cas("n", b"6", version)) == (b"200", True, False)
    assert client.touch("n", 100) is True
    assert client.delete("n") is True
    assert client.get("n") is None
    assert client.delete_many(KEYS[:100]) is True
    assert client.get_many(KEYS) == {key: VALUES[key] for key in KEYS[100:]}
    client.flush_all()
    assert client.get_many(KEYS) == {}
    assert [items(node) for node in nodes] == [0] * len(nodes)
    client.quit()
    assert client.set("k", b"v") is True


def test_hash_client_without_reply(hash_client):
    client = hash_client(default_noreply=True)
    assert client.set_many(VALUES) == []
    assert client.get_many(KEYS) == VALUES
    assert client.delete_many(KEYS[::2]) is True
    assert client.get_many(KEYS) == {key: VALUES[key] for key in KEYS[1::2]}


def test_hash_client_tells_of_a_stopped_node(hash_client, nodes):
    client = hash_client(retry_attempts=1)
    assert client.set_many(VALUES) == []
    lost = keys_of(client, nodes[0])
    kept = [key for key in KEYS if key not in lost]
    nodes[0].stop()
    # What is on the other nodes is not concerned.
    assert client.get_many(kept) == {key: VALUES[key] for key in kept}
    with pytest.raises(STOPPED):
        client.get(lost[0])
    with pytest.raises(STOPPED):
        client.get_many(KEYS)
    with pytest.raises(STOPPED):
        client.set_many({key: VALUES[key] for key in lost})

    # It fails some more times until the client has used its attempts up; then the other nodes get its keys.
    def goes_elsewhere():
        """the stopped node's key is stored on another"""
        try:
            return client.set(lost[0], b"elsewhere")
        except STOPPED:
            return False

    until(goes_elsewhere)
    assert client.hasher.get_node(lost[0]) in [node.name for node in nodes[1:]]
    assert client.get(lost[0]) == b"elsewhere"
    assert client.set_many(VALUES) == []
    assert client.get_many(KEYS) == VALUES
    assert sum(items(node) for node in nodes[1:]) == len(KEYS)


def test_hash_client_that_ignores_a_stopped_node(hash_client, nodes):
    client = hash_client(ignore_exc=True, retry_attempts=0)
    assert client.set_many(VALUES) == []
    lost = keys_of(client, nodes[0])
    kept = [key for key in KEYS if key not in lost]
    nodes[0].stop()
    assert client.get_many(KEYS) == {key: VALUES[key] for key in kept}
    assert client.get(lost[0], default=b"none") in (b"none", None)

    def all_stored():
        """the other nodes hold all keys"""
        client.set_many(VALUES)
        client.get(lost[0])
        return client.get_many(KEYS) == VALUES

    until(all_stored)
    assert sum(items(node) for node in nodes[1:]) == len(KEYS)
    assert client.delete_many(KEYS) is True
    assert client.get_many(KEYS) == {}


def test_hash_client_comes_back_to_a_node_that_comes_back(hash_client, nodes, start_node):
    client = hash_client(retry_attempts=0, dead_timeout=0)
    assert client.set_many(VALUES) == []
    lost = keys_of(client, nodes[0])
    nodes[0].stop()
    with pytest.raises(STOPPED):
        client.get(lost[0])
    back = start_node(shards=nodes[0].shards, port=nodes[0].port)

    def is_used():
        """the node that came back holds all its keys"""
        try:
            client.set_many(VALUES)
        except STOPPED:
            return False
        return items(back) == len(lost)

    until(is_used)
    assert client.get_many(KEYS) == VALUES


def test_hash_client_when_all_nodes_are_stopped(hash_client, nodes):
    client = hash_client(retry_attempts=0)
    for node in nodes:
        node.stop()

    def gives_up():
        """all nodes are known to be down"""
        with pytest.raises((*STOPPED, MemcacheError)) as failure:
            client.set("k", b"v")
        return "All servers seem to be down" in str(failure.value)

    until(gives_up)
    quiet = hash_client(retry_attempts=0, ignore_exc=True)
    assert quiet.get_many(KEYS) == {}
    assert quiet.get("k", default=b"none") == b"none"
    assert quiet.set("k", b"v") is False
