"""Lookups that find no repository, or one that is slow, endless or not there: no matter of trust."""

import socket
import threading
import time
from typing import Any

import pytest

from careen.release.errors import ReleaseTransferError, TrustError


def test_more_bytes_than_allowed_are_not_read(shop: Any) -> None:
    shop.metadata("timestamp.json").write_bytes(bytes(20_000_000))
    with pytest.raises(TrustError, match=r"timestamp\.json is refused: .* more than 8388608 bytes"):
        shop.client().find_channel(shop.url, "stable")
    shop.metadata("timestamp.json").write_bytes(bytes(20_000))
    with pytest.raises(TrustError, match=r"timestamp\.json is refused: .*maximum allowed length of 16384"):
        shop.client().find_channel(shop.url, "stable")


def test_a_dead_server_and_a_missing_file_are_no_matter_of_trust(shop: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ReleaseTransferError, match=r"root\.json: .*127\.0\.0\.1"):
            shop.client().find_channel(f"http://127.0.0.1:{unused.getsockname()[1]}", "stable")
    shop.metadata("timestamp.json").unlink()
    with pytest.raises(ReleaseTransferError, match=r"timestamp\.json answered 404"):
        shop.client().find_channel(shop.url, "stable")


@pytest.mark.parametrize("url", ["ftp://host/x", "/srv/releases", "http://", "http://host/x?y"])
def test_only_folders_on_the_web_are_repositories(shop: Any, url: str) -> None:
    with pytest.raises(ReleaseTransferError, match="allowed: an http or https URL"):
        shop.client().find_channel(url, "stable")


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_a_server_that_drips_meets_the_deadline(shop: Any, start: bytes) -> None:
    ended = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(start)
            while not ended.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        began = time.monotonic()
        client = shop.client(request_seconds=0.5)
        try:
            with pytest.raises(ReleaseTransferError, match=r"root\.json took longer than 0\.5 s"):
                client.find_channel(f"http://127.0.0.1:{server.getsockname()[1]}", "stable")
        finally:
            ended.set()
            thread.join()
        assert time.monotonic() - began < 5


def test_a_repository_is_not_named_with_a_password(shop: Any) -> None:
    with pytest.raises(ReleaseTransferError, match="the repository at host is named with a user or a password") as told:
        shop.client().find_channel("https://me:secret@host/os", "stable")
    assert "secret" not in str(told.value)
