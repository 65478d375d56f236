"""A TCP proxy that makes a link bad, with Toxiproxy's eight toxics, each switched on and off while connections live.

    async with Proxy(5432) as proxy:                       # proxy.port leads to 127.0.0.1:5432
        with proxy.poisoned(DOWN, Latency(1.0, jitter=4.0)) as late:
            ...
        assert late.done                                   # what it really did: pieces held up, links cut, bytes kept

A toxic works in one direction: UP is towards the server, DOWN back to the client. Its counter `done` proves that it
was reached. `down` is of the whole link: `await proxy.shut()` and `await proxy.open()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self, TypeVar
from weakref import WeakKeyDictionary

from deploy.local.processes import free_port

CHUNK = 64 * 1024
_AHEAD = 64  # chunks read and not yet handed on, before reading waits


class Direction(StrEnum):
    """Seen from the client."""

    UP = "up"
    DOWN = "down"


UP, DOWN = Direction.UP, Direction.DOWN


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes under way, and when they came. No bytes: the sender has closed."""

    data: bytes
    came: float

    @property
    def closes(self) -> bool:
        return not self.data


Onward = Callable[[Piece], Awaitable[None]]


class Toxic(ABC):
    """One kind of harm. `carry` hands on what it does not keep."""

    def __init__(self) -> None:
        self.done = 0
        """How often, or for how many bytes, the harm was really done."""

    @abstractmethod
    async def carry(self, piece: Piece, link: Link, onward: Onward) -> None: ...

    def removed(self) -> None:  # noqa: B027 -- most have nothing to undo
        """It was switched off."""


Harm = TypeVar("Harm", bound=Toxic)


class Latency(Toxic):
    """Everything comes later, by `seconds` and up to `jitter` more; the order stays. `done`: pieces held up."""

    def __init__(self, seconds: float, *, jitter: float = 0.0, seed: int = 4) -> None:
        super().__init__()
        self.seconds, self.jitter = seconds, jitter
        self._chance = random.Random(seed)

    async def carry(self, piece: Piece, link: Link, onward: Onward) -> None:
        due = piece.came + self.seconds + self.jitter * self._chance.random()
        await asyncio.sleep(max(0.0, due - _now()))
        self.done += 1
        await onward(piece)


class Bandwidth(Toxic):
    """So many bytes a second and no more. `done`: bytes let through."""

    def __init__(self, bytes_per_second: int) -> None:
        super().__init__()
        self.rate = bytes_per_second

    async def carry(self, piece: Piece, link: Link, onward: Onward) -> None:
        step = max(1, self.rate // 20)
        for start in range(0, max(1, len(piece.data)), step):
            part = piece.data[start : start + step]
            await asyncio.sleep(len(part) / self.rate)
            self.done += len(part)
            await onward(Piece(part, piece.came))


class SlowClose(Toxic):
    """The other side hears late that this one has closed. `done`: closings held up."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    async def carry(self, piece: Piece, link: Link, onward: Onward) -> None:
        if piece.closes:
            await asyncio.sleep(self.seconds)
            self.done += 1
        await onward(piece)


class Timeout(Toxic):
    """Nothing comes through, not even that somebody has closed: a link that is half open. `done`: pieces kept back.

    After `seconds` the link is cut; 0: never, until the toxic goes, because what was kept back is lost.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._links: WeakKeyDictionary[Link, bool] = WeakKeyDictionary()

    async def carry(self, piece: Piece, link: Link, onward: Onward) -> None:
        self.done += 1
        if link not in self._links:
            self._links[link] = True
            if self.seconds:
                asyncio.get_running_loop().call_later(self.seconds, link.cut)

    def removed(self) -> None:
        for link in list(self._links):
            link.cut()


class ResetPeer(Toxic):
    """Both sides get a reset, `seconds` after the first bytes. `done`: links reset."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self._links: WeakKeyDictionary[Link, bool] = WeakKeyDictionary()

    async def carry(self, piece: Piece, link: Link, onward: Onward) -> None:
        if not self.seconds:
            self._reset(link)
            return
        if link not in self._links:
            self._links[link] = True
            asyncio.get_running_loop().call_later(self.seconds, self._reset, link)
        await onward(piece)

    def _reset(self, link: Link) -> None:
        self.done += link.cut(reset=True)


class Slicer(Toxic):
    """Bytes come in slices of at most `size`, with a pause between. `done`: slices made."""

    def __init__(self, size: int, *, pause: float = 0.0) -> None:
        super().__init__()
        self.size, self.pause = size, pause

    async def carry(self, piece: Piece, link: Link, onward: Onward) -> None:
        for start in range(0, max(1, len(piece.data)), self.size):
            await onward(Piece(piece.data[start : start + self.size], piece.came))
            if not piece.closes:
                self.done += 1
                await asyncio.sleep(self.pause)


class LimitData(Toxic):
    """After `limit` bytes the link is cut, once these have arrived. `done`: links cut."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self._passed: WeakKeyDictionary[Link, int] = WeakKeyDictionary()

    async def carry(self, piece: Piece, link: Link, onward: Onward) -> None:
        left = self.limit - self._passed.get(link, 0)
        self._passed[link] = self._passed.get(link, 0) + len(piece.data)
        if left > 0 or piece.closes:
            await onward(Piece(piece.data[: max(left, 0)], piece.came) if piece.data else piece)
        if piece.data and len(piece.data) >= left:
            await asyncio.sleep(0)
            self.done += link.cut(flush=True)


@dataclass(slots=True)
class _Seen:
    """What a link has carried since the last `resets`: the end of it, and whether it is what we wait for."""

    tail: bytes = b""
    armed: bool = False


class LimitTo(Toxic):
    """LimitData with the limit set by content: the link is cut around `words`, at most `times` times. `done`: links cut.

    `passes`: the words arrive, and the link is cut when their answer has come back as far as this proxy, which is when
    whoever asked cannot know what happened. Otherwise it is cut before they arrive. `after`: only when these bytes were
    seen on the same link before, since `resets`.
    """

    def __init__(
        self, words: bytes, *, after: bytes = b"", resets: bytes = b"", passes: bool = True, times: int = 1
    ) -> None:
        super().__init__()
        self.words, self.after, self.resets = words, after, resets
        self.passes, self.left = passes, times
        self._seen: WeakKeyDictionary[Link, _Seen] = WeakKeyDictionary()

    async def carry(self, piece: Piece, link: Link, onward: Onward) -> None:
        if self._found(piece, link):
            self.left -= 1
            self._seen.pop(link)
            if not self.passes:
                self.done += link.cut()
                return
            link.cut_by_answer(self._cut)
        await onward(piece)

    def _cut(self, link: Link) -> None:
        self.done += link.cut()

    def _found(self, piece: Piece, link: Link) -> bool:
        seen = self._seen.setdefault(link, _Seen())
        text = seen.tail + piece.data
        kept = max(len(self.words), len(self.after), len(self.resets), 1)
        seen.tail = text[-kept + 1 :] if kept > 1 else b""
        started = text.rfind(self.resets) if self.resets else -1
        if started >= 0:
            seen.armed = False
        seen.armed = seen.armed or not self.after or text.find(self.after, max(started, 0)) >= 0
        return self.left > 0 and seen.armed and text.find(self.words, max(started, 0)) >= 0


@dataclass(eq=False)
class Link:
    """One connection through the proxy: its two halves."""

    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    alive: bool = True
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _by_answer: Callable[[Link], None] | None = None

    def ends(self, direction: Direction) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Where bytes of this direction come from, and where they go."""
        if direction is UP:
            return self.client[0], self.server[1]
        return self.server[0], self.client[1]

    def cut(self, *, reset: bool = False, flush: bool = False) -> int:
        """End both halves at once. Returns 1 if it lived."""
        if not self.alive:
            return 0
        self.alive = False
        for _, writer in (self.client, self.server):
            if reset:
                with contextlib.suppress(OSError, AttributeError):
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
            if flush:
                writer.close()
            else:
                writer.transport.abort()
        for task in self.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        return 1

    def cut_by_answer(self, cut: Callable[[Link], None]) -> None:
        """With the next bytes that come down."""
        self._by_answer = cut

    def ended_by_answer(self) -> bool:
        """Bytes have come down: whether they were those to be cut by."""
        if self._by_answer is not None:
            self._by_answer(self)
        return not self.alive


class Proxy:
    """`async with Proxy(port) as proxy:` leads from `proxy.port` to `127.0.0.1:<port>`."""

    def __init__(self, upstream: int, *, port: int | None = None) -> None:
        """`port`: where to listen; any free one unless given. `upstream` may be changed later."""
        self.upstream = upstream
        self.port = free_port(port)
        self.toxics: dict[Direction, list[Toxic]] = {UP: [], DOWN: []}
        self.links: set[Link] = set()
        self.accepted = 0
        self.refused = 0
        """Connections that the server behind did not take."""
        self.downs = 0
        """Links cut because the proxy was shut."""
        self._listener: asyncio.Server | None = None
        self._reading: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.shut()
        await asyncio.gather(*self._reading, return_exceptions=True)

    async def open(self) -> None:
        """Listen."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def shut(self) -> None:
        """The toxic `down`: nobody listens, and every link is cut."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.downs += self.cut_all()

    def cut_all(self, *, reset: bool = False) -> int:
        """Cut every link there is; new ones may come."""
        return sum(link.cut(reset=reset) for link in list(self.links))

    def add(self, direction: Direction, toxic: Toxic) -> None:
        """Switch a toxic on, behind those that are on already."""
        self.toxics[direction].append(toxic)

    def remove(self, toxic: Toxic) -> None:
        """Switch it off, in whichever direction it works."""
        for toxics in self.toxics.values():
            if toxic in toxics:
                toxics.remove(toxic)
        toxic.removed()

    @contextlib.contextmanager
    def poisoned(self, direction: Direction, toxic: Harm) -> Iterator[Harm]:
        """With this toxic on, inside the block."""
        self.add(direction, toxic)
        try:
            yield toxic
        finally:
            self.remove(toxic)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            server = await asyncio.open_connection("127.0.0.1", self.upstream)
        except OSError:
            self.refused += 1
            writer.transport.abort()
            return
        link = Link((reader, writer), server)
        if self._listener is None:
            link.cut()
            return
        self.links.add(link)
        link.tasks = [asyncio.create_task(self._carry_all(link, direction)) for direction in Direction]
        self._reading.update(link.tasks)
        await asyncio.gather(*link.tasks, return_exceptions=True)
        link.cut(flush=True)
        self.links.discard(link)
        self._reading.difference_update(link.tasks)

    async def _carry_all(self, link: Link, direction: Direction) -> None:
        reader, writer = link.ends(direction)
        under_way: asyncio.Queue[Piece] = asyncio.Queue(_AHEAD)
        reading = asyncio.create_task(self._read(reader, under_way))
        try:
            while link.alive:
                piece = await under_way.get()
                if direction is DOWN and link.ended_by_answer():
                    return
                await self._through(link, direction, writer, piece)
                if piece.closes:
                    return
        except OSError:
            link.cut()  # one half is gone, so is the other
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    @staticmethod
    async def _read(reader: asyncio.StreamReader, under_way: asyncio.Queue[Piece]) -> None:
        while True:
            try:
                data = await reader.read(CHUNK)
            except OSError:
                data = b""
            await under_way.put(Piece(data, _now()))
            if not data:
                return

    async def _through(
        self, link: Link, direction: Direction, writer: asyncio.StreamWriter, piece: Piece
    ) -> None:
        toxics = tuple(self.toxics[direction])

        async def stage(number: int, piece: Piece) -> None:
            if not link.alive:
                return
            if number < len(toxics):
                await toxics[number].carry(piece, link, lambda onward: stage(number + 1, onward))
            elif piece.closes:
                if writer.can_write_eof():
                    writer.write_eof()
            else:
                writer.write(piece.data)
                await writer.drain()

        await stage(0, piece)


def _now() -> float:
    return asyncio.get_running_loop().time()
