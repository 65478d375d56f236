"""What comes to the services from outside: a gateway's callbacks, a carrier's receipts, the office's desk windows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from deploy.rehearsal.people import WorldEvent, WorldVerb
from deploy.simulators.order_book import Refusal
from services.payment.settings import ALIPAY_NOTIFY_PATH, NOTIFY_PATH
from tests.simulation.broker import Place
from tests.simulation.doors import SimulatedDoors
from tests.simulation.scene import Do, Scene
from tests.simulation.services import SECRET, call

_NOTIFY: Final = {"wechat": NOTIFY_PATH, "alipay": ALIPAY_NOTIFY_PATH}


@dataclass
class Calling:
    scene: Scene

    def begin(self) -> None:
        """Carriers report here, and the broker asks here for its weather."""
        carriers, broker = self.scene.stage.carriers, self.scene.stage.broker
        carriers.later, carriers.push = self.scene.later, self._push_receipts
        broker.weather = self._weather

    def _weather(self, _place: Place) -> str:
        chance, lost = self.scene.chance, self.scene.mood.lost
        if chance.happens("batch lost", lost):
            return "lost"
        return "unheard" if chance.happens("acknowledgement lost", lost) else "ok"

    def pay(self, channel: str, order_no: str, after: list[float]) -> str | None:
        """Somebody pays at the gateway, which calls back after so many seconds each. Why not, if not."""
        scene, book = self.scene, self.scene.stage.gateways[channel].book
        try:
            book.open(order_no, scene.now())
            book.pay(order_no, scene.now(), [])
        except Refusal as refusal:
            return refusal.code
        scene.chance.reached[f"paid by {channel}"] += 1
        for seconds in after:
            if not scene.chance.happens("callback lost", scene.mood.gateway.away):
                scene.later(
                    scene.now() + timedelta(seconds=seconds),
                    "callback",
                    self._calling_back(channel, order_no),
                )
        return None

    def _calling_back(self, channel: str, order_no: str, tries: int = 6) -> Do:
        async def notify() -> None:
            scene = self.scene
            body = scene.stage.gateways[channel].notice(order_no)
            repeat = self._calling_back(channel, order_no, tries - 1)
            answered = False
            try:
                door = scene.stage.services.door("payment")
                reply = await call(door, "POST", _NOTIFY[channel], {"simulated": "true"}, body)
                answered = reply.status < 300
            finally:
                again = scene.chance.happens("callback twice", scene.mood.again)
                if tries and (not answered or again):
                    scene.later(scene.now() + timedelta(seconds=15), "callback", repeat)

        return notify

    async def _push_receipts(self, receipts: list[dict[str, Any]]) -> None:
        scene = self.scene
        path, body = f"/carriers/aliyun/receipts/{SECRET}", json.dumps(receipts).encode()
        answered = False
        try:
            reply = await call(scene.stage.services.door("notification"), "POST", path, {}, body)
            answered = reply.status == 200
        finally:
            if not answered or scene.chance.happens("receipt twice", scene.mood.again):
                scene.later(
                    scene.now() + timedelta(seconds=30), "receipt", lambda: self._push_receipts(receipts)
                )


async def set_desk_window(doors: SimulatedDoors, event: WorldEvent) -> None:
    """The office publishes a desk's hours; other events of the world are nobody's here."""
    if event.verb is not WorldVerb.SET_DESK_WINDOW:
        return
    body = {key: event.fields[key] for key in ("opens", "closes")} | {
        "reason": "公布确认时间",
        "reason_code": "announced",
    }
    url = f"sim://confirmation/office/desk-windows/{event.fields['site']}"
    headers = doors.headers("office", "office")
    answer = await doors.ask(f"window of {event.fields['site']}", "POST", url, headers, body)
    assert answer.code is None, answer
