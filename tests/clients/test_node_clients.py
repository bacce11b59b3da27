"""Clients of Node.js: the tests in node/, each of which says what it tests."""

import os
import pathlib
import shutil
import subprocess

import pytest

FOLDER = pathlib.Path(__file__).parent / "node"
SECONDS_MAX = 300
PASSWORD = "secret"


@pytest.mark.parametrize("client", ["ioredis"])
def test_node_client(start_node, shards, client):
    node_js = shutil.which("node")
    assert node_js, "Node.js is not installed: it is in the Debian package nodejs"
    assert (FOLDER / "node_modules" / client).is_dir(), "run scripts/test, or npm ci in tests/clients/node"
    node = start_node(shards=shards, arguments=["--requirepass", PASSWORD])
    environment = os.environ | {"PINION_TEST_RESP_PORT": str(node.resp_port), "PINION_TEST_PASSWORD": PASSWORD}
    run = subprocess.run(
        [node_js, "--test", FOLDER / f"{client}.test.js"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SECONDS_MAX,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
