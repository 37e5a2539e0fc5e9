"""Test one request to a faulty server."""

from __future__ import annotations

import gc
import socket
import threading
from pathlib import Path

import pytest

from seedcore.status.http_client import request

HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf"


def sockets() -> int:
    """Return the number of open sockets of this process."""
    return sum("socket:" in str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


@pytest.mark.parametrize("answer", [HALF, b"HTTP/1.1 200 OK\r\n", b"nonsense\r\n\r\n", b""])
def test_an_answer_that_does_not_end_leaves_no_socket_open(answer: bytes) -> None:
    gc.disable()
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ended = threading.Event()

            def serve() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(answer)
                    ended.wait(60)

            serving = threading.Thread(target=serve)
            serving.start()
            before = sockets()
            with pytest.raises(OSError) as caught:  # noqa: PT011 - several kinds
                request(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_s=0.3)
            # One of them is the server's listening socket.
            assert sockets() <= before + 1
            ended.set()
            serving.join()
        assert sockets() == before - 1, caught.value
    finally:
        gc.enable()
