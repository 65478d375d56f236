"""One message: asked about first if it may have left already, then sent, and what came of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Final

import structlog
from prometheus_client import Counter

from contracts.reasons import Carrier
from services.chassis.clock import Clock
from services.chassis.crash import crash_point
from services.notification.domain.life import (
    ERASED,
    GIVEN_UP,
    Failure,
    State,
    next_try,
    reason_word,
)
from services.notification.domain.providers import FAILOVER_AFTER, SLOW
from services.notification.handlers.asking import FOUND
from services.notification.handlers.outgoing import Channel, Outgoing, Provider, Tried
from services.notification.handlers.scoreboard import Scoreboard
from services.notification.ports import NoAnswer, Rejected

log = structlog.get_logger(__name__)

TRIES: Final = Counter(
    "kaowu_message_tries", "Messages handed to a carrier, by outcome", ["channel", "outcome"]
)
PARTS: Final = Counter("kaowu_sms_parts", "Parts that accepted SMS were cut into")
AMBIGUOUS: Final = Counter(
    "kaowu_messages_ambiguous",
    "Tries whose outcome was not learned by their answer: at most so many copies too many",
    ["channel"],
)


class Sending:
    """Of one channel. Never raises for one message's sake."""

    def __init__(self, channel: Channel, clock: Clock, scoreboard: Scoreboard | None) -> None:
        self._channel, self._clock, self._scoreboard = channel, clock, scoreboard

    async def send(self, one: Outgoing) -> Tried:
        """Once; given back if its carrier is known to be dead by now."""
        address, board = one.address, self._scoreboard
        if address is None:
            return self._ended(one, ERASED if one.erased else "no-address", None)
        if board is not None and board.leaves_alone(one.provider, one.at, self._clock.now()):
            return self.give_back(one)
        if one.ask_since is not None:
            asked = self._channel.askable(one.had_by)
            for provider in asked:
                try:
                    known = await self._ask(one, provider, address)
                except Exception as error:
                    # As when it is sent: an adapter's own fault. Nothing has left, and nothing leaves before it is known.
                    log.exception("ask-failed", channel=self._channel.carrier, error=type(error).__name__)
                    known = self._again(one, Failure.UNREACHED, type(error).__name__)
                if known is not None:
                    return known
            sure = all(provider.lists_all for provider in asked)
            one = replace(one, ask_since=None, settled=-1 if asked and sure else 0)
        return await self._send(one, self._channel.providers[one.provider], address)

    async def _send(self, one: Outgoing, provider: Provider, address: str) -> Tried:
        carrier = self._channel.carrier
        started = asyncio.get_running_loop().time()
        try:
            accepted = await provider.send(address, one.text, str(one.message_id))
        except Rejected as error:
            # Over a limit, or not to be carried: it answered, so it is well.
            self._note(
                one, one.provider, started, failed=not error.permanent and error.wait is None, why=error.code
            )
            if error.permanent:
                TRIES.labels(carrier, Failure.REFUSED).inc()
                return self._ended(one, reason_word(error.code), error.code)
            if error.wait is not None:
                TRIES.labels(carrier, "over-limit").inc()
                return self._later(one, error.wait, error.code)
            return self._again(one, Failure.BUSY, error.code)
        except NoAnswer as error:
            self._note(one, one.provider, started, failed=True, why=error.reason)
            failure = Failure.AMBIGUOUS if error.maybe_accepted else Failure.UNREACHED
            return self._again(one, failure, error.reason)
        except Exception as error:
            # An adapter's own fault must not stop the batch; whether the message left is not known.
            log.exception("send-failed", channel=carrier, error=type(error).__name__)
            self._note(one, one.provider, started, failed=True, why=type(error).__name__)
            return self._again(one, Failure.AMBIGUOUS, type(error).__name__)
        crash_point(f"{carrier}-accepted")
        self._note(one, one.provider, started)
        TRIES.labels(carrier, "accepted").inc()
        if carrier is Carrier.SMS:
            PARTS.inc(one.parts)
        return Tried.of(
            one, self._channel.accepted, provider_ref=accepted.provider_ref, ambiguous=one.settled
        )

    async def _ask(self, one: Outgoing, provider: Provider, address: str) -> Tried | None:
        """What came of it if the carrier has it already. None: it has not, the message may be sent."""
        assert provider.find is not None
        assert one.ask_since is not None
        started = asyncio.get_running_loop().time()
        try:
            sent = await provider.find(address, one.ask_since, str(one.message_id))
        except Rejected as error:
            self._note(one, provider.name, started, failed=not error.permanent, why=error.code)
            # A number that it will not even talk about was never sent anything.
            return None if error.permanent else self._again(one, Failure.BUSY, error.code)
        except NoAnswer as error:
            self._note(one, provider.name, started, failed=True, why=error.reason)
            return self._again(one, Failure.UNREACHED, error.reason)
        self._note(one, provider.name, started)
        crash_point(f"{self._channel.carrier}-asked")
        if sent is None:
            # Of what was never tried here, only perhaps before a restore, it has known long enough.
            now = self._clock.now()
            sure_at = one.ask_since + provider.shows_after if one.claim > 1 else now
            return None if now >= sure_at else self._later(one, sure_at - now, None)
        FOUND.labels(self._channel.carrier).inc()
        ends = {None: self._channel.accepted, True: State.DELIVERED, False: State.UNDELIVERED}
        return Tried.of(
            one,
            ends[sent.delivered],
            left=False,
            provider=provider.name,
            carrier_code=sent.code or None,
            reason_code=reason_word(sent.code) if sent.delivered is False else None,
            ambiguous=-1,
            tried=False,
        )

    def _again(self, one: Outgoing, failure: Failure, code: str) -> Tried:
        carrier, now = self._channel.carrier, self._clock.now()
        TRIES.labels(carrier, failure).inc()
        ambiguous = failure is Failure.AMBIGUOUS
        if ambiguous:
            AMBIGUOUS.labels(carrier).inc()
        due_at = next_try(failure, one.tries, now)
        if due_at is None:
            log.warning("given-up", channel=carrier, message_id=str(one.message_id), failure=failure)
            return self._ended(one, GIVEN_UP, code, ambiguous=ambiguous)
        if one.tries == 1 and not ambiguous and one.ask_since is None and self._others:
            # It surely was not taken: the other one gets it next.
            due_at = min(due_at, now + FAILOVER_AFTER)
        return Tried.of(
            one,
            State.CREATED,
            left=ambiguous,
            due_at=due_at,
            carrier_code=code,
            ambiguous=int(ambiguous) + one.settled,
            ask_since=one.at if ambiguous and self._asks(one) else one.ask_since,
        )

    def _later(self, one: Outgoing, wait: timedelta, code: str | None) -> Tried:
        """A delay, no try."""
        return Tried.of(
            one,
            State.CREATED,
            left=False,
            due_at=self._clock.now() + wait,
            carrier_code=code,
            ambiguous=one.settled,
            tried=False,
            ask_since=one.ask_since,
        )

    def give_back(self, one: Outgoing) -> Tried:
        """Not tried: its carrier fell, or a slow one used up the time in which this claim is surely ours alone."""
        return self._later(one, timedelta(0), None)

    @property
    def _others(self) -> bool:
        return self._scoreboard is not None and self._scoreboard.several

    def _asks(self, one: Outgoing) -> bool:
        return self._channel.providers[one.provider].find is not None

    def _note(self, one: Outgoing, name: str, started: float, *, failed: bool = False, why: str = "") -> None:
        if self._scoreboard is not None:
            slow = asyncio.get_running_loop().time() - started > SLOW.total_seconds()
            why = why or ("slow" if slow else "")
            self._scoreboard.note(name, self._clock.now(), sent_at=one.at, failed=failed, slow=slow, why=why)

    @staticmethod
    def _ended(one: Outgoing, reason: str, code: str | None, *, ambiguous: bool = False) -> Tried:
        return Tried.of(
            one,
            State.UNDELIVERED,
            left=ambiguous,
            carrier_code=code,
            reason_code=reason,
            ambiguous=int(ambiguous) + one.settled,
        )
