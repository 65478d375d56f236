"""What this process is sending just now, it does not take over from itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.notification.adapters import smtp
from services.notification.domain.life import LEASE
from services.notification.handlers import delivery
from services.notification.ports import Accepted, Letter
from services.notification.repository import messages
from tests.service.notification.system import System, due


async def test_a_clock_that_is_set_forward_sends_nothing_twice(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every lease has run out at once, and the one process that is there has the messages under way itself."""
    monkeypatch.setattr(delivery, "TOGETHER", 1)
    people = await system.registered(2)
    system.at("2024-02-01 10:00")
    await system.deliver(*(due(one) for one in people))
    sent: list[str] = []
    claimed_again = asyncio.Event()
    send, pick = smtp.SmtpMail.send, messages.pick

    async def slow(self: smtp.SmtpMail, to: str, letter: Letter, reference: str) -> Accepted:
        sent.append(reference)
        if len(sent) == 1:
            await asyncio.wait_for(claimed_again.wait(), 20)
        else:
            system.clock.jump(system.clock.now() + LEASE * 2)
        return await send(self, to, letter, reference)

    async def picked(*asked: Any, **how: Any) -> Any:
        rows = await pick(*asked, **how)
        if len(sent) > 1:
            claimed_again.set()
        return rows

    monkeypatch.setattr(smtp.SmtpMail, "send", slow)
    monkeypatch.setattr(messages, "pick", picked)
    await system.mail_job.run()
    assert claimed_again.is_set()
    assert len(sent) == len(set(sent)) == len(people)
    rows = [(await system.messages(one, "due"))["email"] for one in people]
    assert [(row["state"], row["ambiguous"]) for row in rows] == [("delivered", 0)] * len(people)
