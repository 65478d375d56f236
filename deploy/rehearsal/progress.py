"""What a rehearsal shows while it runs: the virtual date, the stage, the funnel so far, events and messages."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from typing import Final, Self
from zoneinfo import ZoneInfo

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from contracts.cycle import Cycle
from deploy.rehearsal.people import Verb
from deploy.rehearsal.streams import Streams

EVERY: Final = 0.25  # real seconds between two pictures
PLAIN_EVERY: Final = 10.0  # and between two lines where there is no terminal
WEEKDAYS: Final = "一二三四五六日"
SHOWN: Final = {
    Verb.PRE_REGISTER: "预报名",
    Verb.CONFIRM: "现场确认",
    Verb.APPROVE: "审核通过（各级）",
    Verb.ORDER: "下单",
    Verb.PAY: "缴费",
}


class Progress:
    """An audience of the driver that draws. Without a terminal it prints a line now and then."""

    def __init__(self, cycle: Cycle, steps: int, streams: Streams, console: Console) -> None:
        self._cycle = cycle
        self._zone = ZoneInfo(cycle.time_zone)
        self._steps = steps
        self._streams = streams
        self._console = console
        self._done: Counter[Verb] = Counter()
        self._refused = 0
        self._count = 0
        self._at: datetime | None = None
        self._started = time.monotonic()
        self._drawn = 0.0
        self._live: Live | None = None
        self._rate = (self._started, 0)
        self._per_second = 0.0
        self.stages: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def moment(self, at: datetime) -> None:
        now = time.monotonic()
        if self._at is not None:
            stage = self.stage(self._at)
            self.stages[stage] = self.stages.get(stage, 0.0) + now - self._last
        self._last = now
        self._at = at
        every = EVERY if self._live is not None else PLAIN_EVERY
        if now - self._drawn >= every:
            self._drawn = now
            self._draw()

    def step(self, verb: Verb, code: str | None) -> None:
        self._count += 1
        if code is None:
            self._done[verb] += 1
        else:
            self._refused += 1

    def stage(self, at: datetime) -> str:
        windows = self._cycle.windows
        if at < windows.pre_registration.closes:
            return "pre-registration"
        if at < windows.confirmation.closes:
            return "confirmation"
        if at < windows.payment.opens:
            return "review"
        return "payment" if at < windows.payment.closes else "close"

    def _draw(self) -> None:
        assert self._at is not None
        local = self._at.astimezone(self._zone)
        when = f"{local:%Y-%m-%d} 周{WEEKDAYS[local.weekday()]} {local:%H:%M:%S}"
        events, now = self._streams.flow.events, time.monotonic()
        since, before = self._rate
        if now - since > 1:
            self._per_second = (events - before) / (now - since)
            self._rate = (now, events)
        seconds = now - self._started
        if self._live is None:
            self._console.print(
                f"{when}  {self.stage(self._at):<17} {self._count}/{self._steps} steps, {self._refused} refused, "
                f"{events} events, {seconds:.0f} s",
                highlight=False,
                soft_wrap=True,
            )
            return
        self._live.update(self._picture(when, events, seconds))

    def _picture(self, when: str, events: int, seconds: float) -> RenderableType:
        assert self._at is not None
        table = Table.grid(padding=(0, 2))
        for verb, word in SHOWN.items():
            table.add_row(word, f"{self._done[verb]:,}")
        table.add_row("被拒绝的步骤", f"{self._refused:,}")
        table.add_row("事件", f"{events:,}（{self._per_second:,.0f}/s）")
        title = Text(f"{when}  ", style="bold")
        title.append(self.stage(self._at), style="cyan")
        title.append(f"   {self._count:,}/{self._steps:,} 步   {seconds:.0f} s", style="dim")
        return Group(title, ProgressBar(total=self._steps, completed=self._count, width=60), table)

    _last = 0.0
