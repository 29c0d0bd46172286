"""A TCP proxy on loopback that tests put between a client and the API server, to cut the line."""

import contextlib
import socket
import threading
from typing import Self

_CHUNK = 1 << 16


class Proxy:
    """Forwards connections to one loopback port until `cut`; TLS passes through untouched.

    The API server's certificate is good for the proxy too, since both are on 127.0.0.1.
    """

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._whole = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, name="sandbox-proxy", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The loopback port that the proxy listens on."""
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """The address to put into a kubeconfig."""
        return f"https://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Break all connections; new ones are reset at once until `restore`."""
        with self._lock:
            self._whole = False
            broken, self._open = self._open, set()
        for end in broken:
            _break(end)

    def restore(self) -> None:
        """Let new connections through again."""
        with self._lock:
            self._whole = True

    def close(self) -> None:
        """Break all connections and stop listening."""
        self.cut()
        # A thread that waits in accept() is woken by the shutdown, not by the close.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._target, timeout=5)
        except OSError:
            _break(near)
            return
        far.settimeout(None)
        with self._lock:
            whole = self._whole
            if whole:
                self._open |= {near, far}
        if not whole:
            _break(near)
            _break(far)
            return
        for source, sink in ((near, far), (far, near)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                sink.sendall(data)
        with self._lock:
            mine = {source, sink} & self._open
            self._open -= mine
        for end in mine:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _break(end: socket.socket) -> None:
    """Close with a reset, which the other side notices at once, as if the machine between had failed."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        # Wakes the pump that waits in recv() on this socket, which keeps it open until then. Shutting down
        # the other direction as well would send an orderly end before the reset.
        end.shutdown(socket.SHUT_RD)
    end.close()
