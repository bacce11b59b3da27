"""Fixtures: every test gets a server of its own, with one shard and with three, which must stop cleanly after it."""

import contextlib

import pytest
from pinion import Node
from pymemcache.client.base import Client


@pytest.fixture(params=[1, 3], ids=["1-shard", "3-shards"])
def shards(request):
    return request.param


@pytest.fixture
def start_node():
    """Starts a server each time it is called; all of them are stopped, and must exit with status 0."""
    with contextlib.ExitStack() as nodes:

        def start(*args, **kwargs):
            node = Node(*args, **kwargs)
            nodes.callback(node.stop)
            return node

        yield start


@pytest.fixture
def node(start_node, shards):
    return start_node(shards=shards)


@pytest.fixture
def connect(node):
    """Makes pymemcache clients of the server, which wait for every reply unless told otherwise."""
    with contextlib.ExitStack() as clients:

        def make(**settings):
            settings = {"timeout": 10, "connect_timeout": 10, "default_noreply": False} | settings
            client = Client(node.address, **settings)
            clients.callback(client.close)
            return client

        yield make


@pytest.fixture
def client(connect):
    return connect()
