"""The process itself, as clients and operators see it."""

import pytest


def test_sigterm_answers_what_was_received_and_exits_with_0(node):
    connection = node.connect()
    connection.sendall(b"set k 0 0 1\r\nv\r\n" + b"get k\r\n" * 500)
    assert connection.recv(8, 0) == b"STORED\r\n"  # everything is on its way
    node.stop()  # asserts the exit status
    answers = b""
    while received := connection.recv(65536):
        answers += received
    assert answers == b"VALUE k 0 1\r\nv\r\nEND\r\n" * 500
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        node.connect()


def test_a_client_that_says_nothing_does_not_keep_it_from_stopping(node):
    with node.connect() as connection:
        # Accepted for sure: one that still waits for that when the node stops is refused.
        connection.sendall(b"version\r\n")
        assert connection.recv(8) == b"VERSION "
        while not connection.recv(100).endswith(b"\r\n"):
            pass
        node.stop()
        assert connection.recv(1) == b""
