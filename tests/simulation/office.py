"""Two people of the office: one asks for a later close of payment, or that a forfeiture be lifted; another says yes or no.

Only in runs in which time passes over work that waits: what becomes of people then is judged by money and place, not by the
model of the notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from deploy.rehearsal.people import Step, Verb
from deploy.rehearsal.standing import Standing
from tests.simulation.doors import SimulatedDoors
from tests.simulation.scene import Do, Scene

OFTEN: Final = 500  # per mille of the late runs
_HOUR: Final = timedelta(hours=1)
_BEYOND: Final = 1000  # the numbers of steps that stand in no file
_DECISIONS: Final = "sim://payment/office/decisions"
_FIRST, _SECOND = "office-li", "office-wang"


@dataclass
class Office:
    scene: Scene
    doors: SimulatedDoors
    standings: Mapping[str, Standing]

    def turns(self) -> list[tuple[datetime, str | None, Step | Do]]:
        """What they will do in this run, and what people do who were given more time: moment, who, what."""
        scene, chance = self.scene, self.scene.chance
        closes = scene.stage.cycle.windows.payment.closes
        found: list[tuple[datetime, str | None, Step | Do]] = []
        if scene.late and chance.happens("", OFTEN):
            asked_at = closes - chance.pick((26 * _HOUR, 3 * _HOUR, _HOUR))
            later = closes + chance.pick((6 * _HOUR, 24 * _HOUR))
            body = {"kind": "extend-payment", "closes_at": later.isoformat()}
            if chance.below(2):
                body["site"] = chance.pick(list(self.standings.values())).site
            # Some are still waiting for a word when the old close comes, and some when theirs does.
            found += self._decision(body, asked_at, chance.pick((_HOUR, 5 * _HOUR, 30 * _HOUR)))
            found += self._pays(closes + 5 * _HOUR)
        if scene.late and chance.happens("", OFTEN):
            at = closes + 31 * _HOUR
            name = chance.pick(list(self.standings))
            found += self._decision({"kind": "revive"}, at, _HOUR, name)
            found += self._pays(at + 3 * _HOUR, name)
        return found

    def _decision(
        self, body: dict[str, str], at: datetime, after: timedelta, name: str | None = None
    ) -> list[tuple[datetime, str | None, Step | Do]]:
        asked: list[str] = []

        async def ask() -> None:
            wanted = {**body, "reason": "系统故障"}
            if name is not None:
                wanted["registration_id"] = self.standings[name].registration_id or ""
                if not wanted["registration_id"]:
                    return
            answer = await self._say(_FIRST, "", wanted)
            if answer is not None:
                asked.append(str(answer["decision_id"]))
                self._reached(f"{body['kind']} asked for")

        async def say() -> None:
            for decision in asked:
                if self.scene.chance.below(3) == 2:
                    await self._say(_FIRST, f"/{decision}/approve", {})
                word = "reject" if self.scene.chance.below(4) == 3 else "approve"
                if await self._say(_SECOND, f"/{decision}/{word}", {}) is not None:
                    self._reached(f"{body['kind']} decided: {word}")

        return [(at, None, ask), (at + after, None, say)]

    def _pays(self, at: datetime, name: str | None = None) -> list[tuple[datetime, str | None, Step | Do]]:
        """They order and pay, if they may."""
        names = [one for one in self.standings if name in (None, one) and self.scene.chance.below(2)]
        return [
            (at + timedelta(minutes=minutes), one, Step(index, at, verb, {}))
            for one in names
            for index, (minutes, verb) in enumerate(((0, Verb.ORDER), (2, Verb.PAY)), start=_BEYOND)
        ]

    async def _say(self, who: str, path: str, body: object) -> Mapping[str, Any] | None:
        """What the service answered; None if a rule refused."""
        headers = self.doors.headers("office", who)
        answer = await self.doors.ask(f"{who} decides", "POST", f"{_DECISIONS}{path}", headers, body)
        if answer.code is None:
            return answer.data
        self._reached(f"decision refused: {answer.code}")
        return None

    def _reached(self, what: str) -> None:
        self.scene.chance.reached[what] += 1
