"""What happens around the people: outages, deaths of processes, and what the office decides. Each is counted when it is
really reached, and what this version cannot do is said in the report, never passed over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from contracts.cycle import PaymentWindow
from contracts.reasons import Channel, WindowReason
from deploy.rehearsal.acts import Addresses
from deploy.rehearsal.doors import Doors, RehearsalStopped
from deploy.rehearsal.people import WorldEvent, WorldVerb
from deploy.rehearsal.people_file import moment

HOLD: Final = 0.5  # real seconds a process stays dead or frozen at least, so that the fault is really met
_REASON_WORDS: Final = {reason.text: reason.value for reason in WindowReason}


class Machinery(Protocol):
    """What a rehearsal may do to the local system's processes."""

    async def kill(self, name: str) -> None: ...
    async def restart(self, name: str) -> None: ...
    def suspend(self, name: str) -> None: ...
    def resume(self, name: str) -> None: ...
    async def stop_broker(self) -> None: ...
    async def start_broker(self) -> None: ...
    async def restart_database(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Happened:
    at: datetime
    verb: str
    fields: Mapping[str, Any]
    outcome: str
    """`done`, or why not."""


@dataclass(slots=True)
class _End:
    """What will be over at a moment, and how to end it."""

    at: datetime
    verb: WorldVerb
    names: tuple[str, ...]
    end: Callable[[], Awaitable[None]]


@dataclass(slots=True)
class World:
    doors: Doors
    addresses: Addresses
    machinery: Machinery
    office: Mapping[str, str]
    second: Mapping[str, str] = field(default_factory=dict)
    """Another person of the office: what two decide one asks for and the other approves."""
    payment: PaymentWindow | None = None
    registration_of: Callable[[str], str | None] = lambda _: None
    """What a person of the file is registered as."""
    happened: list[Happened] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    down: dict[str, datetime] = field(default_factory=dict)
    """Services that a world event has stopped, and until when. `broker` and `database` stand for themselves."""
    _ends: list[_End] = field(default_factory=list)

    @property
    def under_way(self) -> bool:
        return bool(self._ends)

    def down_until(self, service: str) -> datetime | None:
        """When a service that is down on purpose comes back."""
        return max((self.down[name] for name in (service, "database") if name in self.down), default=None)

    async def happen(self, event: WorldEvent) -> tuple[datetime, ...]:
        """Let it happen. Returns the moments that matter because of it."""
        happenings: Mapping[WorldVerb, Callable[[WorldEvent], Awaitable[tuple[datetime, ...]]]] = {
            WorldVerb.SET_DESK_WINDOW: self._name_days,
            WorldVerb.EXTEND: self._extend,
            WorldVerb.REVIVE: self._revive,
            WorldVerb.GATEWAY_DOWN: self._gateway_down,
            WorldVerb.CARRIER_DOWN: self._carrier_down,
            WorldVerb.CALLBACK_REPLAY: self._replay,
            WorldVerb.KILL: self._kill,
            WorldVerb.FREEZE: self._freeze,
            WorldVerb.BROKER_DOWN: self._broker_down,
            WorldVerb.DATABASE_RESTART: self._database_restart,
        }
        return await happenings[event.verb](event)

    async def pass_to(self, at: datetime) -> bool:
        """End what has lasted long enough. Says whether anything ended."""
        over = [one for one in self._ends if one.at <= at]
        self._ends = [one for one in self._ends if one.at > at]
        # The broker before the processes that cannot start without it.
        for one in sorted(over, key=lambda one: one.verb is not WorldVerb.BROKER_DOWN):
            await one.end()
            for name in one.names:
                if self.down.get(name) == one.at:
                    del self.down[name]
        return bool(over)

    def _note(self, event: WorldEvent, outcome: str = "done") -> None:
        self.happened.append(Happened(event.at, event.verb.value, event.fields, outcome))

    def _reached(self, fault: str, times: int = 1) -> None:
        self.faults[fault] = self.faults.get(fault, 0) + times

    # The office

    async def _name_days(self, event: WorldEvent) -> tuple[datetime, ...]:
        return await self._set_window(event, event.fields["site"], event.fields["opens"])

    async def _set_window(self, event: WorldEvent, site: str, opens: str | None) -> tuple[datetime, ...]:
        body = {"closes": event.fields["closes"], **_reason(event)}
        if opens is not None:
            body["opens"] = opens
        answer = await self.doors.ask(
            f"desk window of {site}",
            "POST",
            f"{self.addresses.confirmation}/office/desk-windows/{site}",
            self.office,
            body,
        )
        if answer.code is None and "asked" in answer.data:
            # People have been told a window: another one takes a second person.
            ask_id = answer.data["asked"]["ask_id"]
            approve = f"{self.addresses.confirmation}/office/desk-windows/{site}/{ask_id}/approve"
            answer = await self.doors.ask(f"another window of {site}", "POST", approve, self.second, {})
            self._reached("two-person-move")
        self._note(
            event,
            "done" if answer.code is None else f"refused: {answer.code} {answer.data.get('detail', '')}",
        )
        if answer.code is not None:
            return ()
        return tuple(moment(value) for value in (opens, event.fields["closes"]) if value is not None)

    async def _extend(self, event: WorldEvent) -> tuple[datetime, ...]:
        window, _, site = str(event.fields["window"]).partition(":")
        if window == "confirmation" and site:
            return await self._set_window(event, site, event.fields.get("opens"))
        if window == "payment":
            return await self._move_payment(event, site)
        self._note(
            event,
            f"refused: the {event.fields['window']} window cannot be moved; payment and a desk's confirmation can, "
            "by two people (docs/runbooks/extension.md). Nothing was changed",
        )
        return ()

    async def _move_payment(self, event: WorldEvent, site: str) -> tuple[datetime, ...]:
        body = {"kind": "extend-payment", "closes_at": str(event.fields["closes"]), **_reason(event)}
        if site:
            body["site"] = site
        return await self._decide(event, "extension of payment", body, "two-person-move")

    async def _revive(self, event: WorldEvent) -> tuple[datetime, ...]:
        """One forfeiture lifted; without `closes` the service says until when the person may pay."""
        person = str(event.fields["person"])
        registration_id = self.registration_of(person)
        if registration_id is None:
            self._note(event, f"refused: {person} is not registered; nothing was changed")
            return ()
        body = {"kind": "revive", "registration_id": registration_id, "reason": str(event.fields["reason"])}
        if "closes" in event.fields:
            body["closes_at"] = str(event.fields["closes"])
        return await self._decide(event, f"revival of {person}", body, "two-person-revival")

    async def _decide(
        self, event: WorldEvent, what: str, body: Mapping[str, str], reached: str
    ) -> tuple[datetime, ...]:
        """One person of the office asks, another approves; what it comes to is done by the service's own job."""
        decisions = f"{self.addresses.payment}/office/decisions"
        asked = await self.doors.ask(what, "POST", decisions, self.office, body)
        if asked.code is not None:
            self._note(event, f"refused: {asked.code} {asked.data.get('detail', '')}")
            return ()
        approve = f"{decisions}/{asked.data['decision_id']}/approve"
        answer = await self.doors.ask("its approval", "POST", approve, self.second, {})
        if answer.code is not None:
            self._note(event, f"refused: {answer.code} {answer.data.get('detail', '')}")
            return ()
        preview = answer.data["preview"]
        self._note(event, f"done: {preview['moved']} moved, {preview['reinstated']} taken back")
        self._reached(reached)
        return self._edges_of_payment(moment(asked.data["closes_at"]), event.at)

    def _edges_of_payment(self, closes: datetime, since: datetime) -> tuple[datetime, ...]:
        """What follows from another close of payment: its own moment, the last order before it, its reminders."""
        found = [closes]
        if self.payment is not None:
            told = closes - (self.payment.closes - self.payment.told_closes)
            found.append(closes - self.payment.no_orders_before_close)
            found += [told - offset for offset in self.payment.reminders]
        return tuple(at for at in found if at > since)

    # Nature

    async def _gateway_down(self, event: WorldEvent) -> tuple[datetime, ...]:
        return await self._weather(event, "wechat")

    async def _carrier_down(self, event: WorldEvent) -> tuple[datetime, ...]:
        return await self._weather(event, str(event.fields.get("channel", "sms")))

    async def _weather(self, event: WorldEvent, outside: str) -> tuple[datetime, ...]:
        lasts = float(event.fields["for"])
        channel = str(event.fields.get("channel", outside))
        if event.verb is WorldVerb.GATEWAY_DOWN:
            if channel not in set(Channel):
                self._note(event, f"refused: there is no gateway {channel}; nothing was changed")
                return ()
            outside = channel
        outside = "mail" if outside == "email" else outside
        answer = await self.doors.ask(
            event.verb.value,
            "POST",
            f"{self.addresses.simulators}/sim/{outside}/down",
            {"content-type": "application/json"},
            {"seconds": lasts},
        )
        if answer.code is not None:
            raise RehearsalStopped(f"{event.verb.value}: the simulators refuse: {answer.data}")
        self._note(event)
        return (event.at + timedelta(seconds=lasts),)

    async def _replay(self, event: WorldEvent) -> tuple[datetime, ...]:
        times = 0
        for channel in Channel:
            answer = await self.doors.ask(
                event.verb.value,
                "POST",
                f"{self.addresses.simulators}/sim/{channel}/replay",
                {"content-type": "application/json"},
                {},
            )
            if answer.code is not None:
                self._note(event, f"refused: {answer.data}")
                return ()
            times += int(answer.data.get("notifications", 0))
        self._reached("callback-replay", times)
        self._note(event, f"done: {times} callbacks once more")
        return ()

    async def _kill(self, event: WorldEvent) -> tuple[datetime, ...]:
        name = str(event.fields["service"])
        await self.machinery.kill(name)
        self._reached(f"kill {name}")
        self._note(event)
        lasts = float(event.fields.get("for", 0))
        lasts = max(lasts, (self.down.get("broker", event.at) - event.at).total_seconds())
        return await self._down(event, (name,), lasts, lambda: self.machinery.restart(name))

    async def _freeze(self, event: WorldEvent) -> tuple[datetime, ...]:
        name = str(event.fields["service"])
        self.machinery.suspend(name)
        self._reached(f"freeze {name}")
        self._note(event)

        async def thaw() -> None:
            self.machinery.resume(name)

        lasts = float(event.fields.get("for", event.fields.get("seconds", 30)))
        return await self._down(event, (name,), lasts, thaw)

    async def _broker_down(self, event: WorldEvent) -> tuple[datetime, ...]:
        await self.machinery.stop_broker()
        self._reached("broker-down")
        self._note(event)
        moments = await self._down(
            event, ("broker",), float(event.fields["for"]), self.machinery.start_broker
        )
        # A process that finds no broker gives up, and whatever supervises it starts it again: here, once there is one.
        back = self.down.get("broker", event.at)
        for one in self._ends:
            if one.verb is WorldVerb.KILL and one.at < back:
                one.at = back
                self.down.update(dict.fromkeys(one.names, back))
        return moments

    async def _database_restart(self, event: WorldEvent) -> tuple[datetime, ...]:
        await self.machinery.restart_database()
        self._reached("database-restart")
        self._note(event)
        return ()

    async def _down(
        self, event: WorldEvent, names: tuple[str, ...], lasts: float, end: Callable[[], Awaitable[None]]
    ) -> tuple[datetime, ...]:
        await asyncio.sleep(HOLD)
        if lasts <= 0:
            await end()
            return ()
        until = event.at + timedelta(seconds=lasts)
        for name in names:
            self.down[name] = max(until, self.down.get(name, until))

        self._ends.append(_End(until, event.verb, names, end))
        return (until,)


def _reason(event: WorldEvent) -> dict[str, str]:
    """The words for the audit trail and the coded reason for the stream, from whichever the file gives."""
    given = str(event.fields.get("reason", ""))
    default = WindowReason.EXTENDED if event.verb is WorldVerb.EXTEND else WindowReason.ANNOUNCED
    known = {reason.value for reason in WindowReason}
    code = _REASON_WORDS.get(given, given if given in known else default.value)
    return {"reason": given or WindowReason(code).text, "reason_code": code}
