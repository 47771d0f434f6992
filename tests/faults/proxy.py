"""A network between the processes and the database, which fails in the ways of networks."""

import random
import select
import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

RESET: Final = "connection reset"  # both ends hear of it
STALLED: Final = "connection stalled"  # for longer than a lease; then everything arrives
FORGOTTEN: Final = "connection half open"  # it is gone, and neither end was told

STALL_SECONDS = 3.0
LOOK_SECONDS = 0.05  # a socket is closed only when nobody waits for it
TCP_REPAIR = 19  # of Linux: a socket that is closed in this mode tells its peer nothing


def may_forget() -> bool:
    """Whether connections can be forgotten here: only who administers the network may."""
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        except OSError:
            return False
    return True


class Proxy:
    """Passes connections on to a server for the length of the block; `inflict` breaks them in mid-statement."""

    def __init__(self, url: str, dice: random.Random) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._server = (parts.hostname, parts.port)
        self._dice = dice
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=parts.netloc.replace(f":{parts.port}", f":{port}")).geturl()

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for pair in self._pairs:
            pair.end()
            pair.join()

    @property
    def alive(self) -> list["_Pair"]:
        """The connections that stand."""
        return [pair for pair in self._pairs if pair.alive]

    def inflict(self, fate: str, share: float) -> int:
        """Let a share of the connections meet their fate, each at its next statement; returns how many did."""
        chosen = [pair for pair in self.alive if self._dice.random() < share]
        for pair in chosen:
            pair.fate = fate
        time.sleep(0.3)
        return sum(pair.fate is None for pair in chosen)

    def _accept(self) -> None:
        with suppress(OSError):  # when the listener is shut down
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._server)
                except ConnectionRefusedError:
                    client.close()
                    continue
                self._pairs = {pair for pair in self._pairs if pair.alive} | {_Pair(client, server)}


class _Pair:
    """A connection's two ends."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.fate: str | None = None
        self._client, self._server = client, server
        self._ended = threading.Event()
        self._stalled_until = 0.0  # seconds of the monotonic clock
        ways = ((client, server), (server, client))
        self._threads = [threading.Thread(target=self._pump, args=way) for way in ways]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    def end(self) -> None:
        self._ended.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        """Pass on what comes from one end to the other, and close the one it comes from."""
        with suppress(OSError):
            while self.alive:
                if not select.select([source], [], [], LOOK_SECONDS)[0]:
                    continue
                data = source.recv(65536)
                while (left := self._stalled_until - time.monotonic()) > 0:
                    self._ended.wait(left)
                if not data:
                    break
                target.sendall(data)
                if source is self._client and self.fate is not None:
                    self._meet(self.fate)
        self.end()
        source.close()

    def _meet(self, fate: str) -> None:
        self.fate = None
        if fate == STALLED:
            self._stalled_until = time.monotonic() + STALL_SECONDS
            return
        for end in (self._client, self._server):
            if fate == FORGOTTEN:
                end.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            else:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end()
