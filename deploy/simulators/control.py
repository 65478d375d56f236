"""How a script moves the simulated outside: people pay, things break, books are read.

Unsigned, and for this machine only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from deploy.simulators.agenda import Agenda
from deploy.simulators.gateway import Gateway
from deploy.simulators.http import Reply, Request
from deploy.simulators.mailbox import Mailbox
from deploy.simulators.order_book import Refusal
from deploy.simulators.outage import Outage
from deploy.simulators.sms_carrier import Manners, SmsCarrier
from services.chassis.clock import Clock

_MAIL_PAGE = re.compile(r"/mail/([0-9]+)")
_PAGE = 5000  # entries of a book in one answer, unless `limit` says otherwise
_REST = ("GET", "/sim/rest")
_KEPT_WAITING = (
    0.1  # real seconds that who waits for rest (`?soon=true`) is kept waiting by what is under way
)


class ControlPort:
    def __init__(
        self,
        clock: Clock,
        agenda: Agenda,
        gateways: Mapping[str, Gateway],
        carriers: Mapping[str, SmsCarrier],
        mailbox: Mailbox,
    ) -> None:
        self._clock = clock
        self._agenda = agenda
        self._gateways = gateways
        self._carriers = carriers
        self._mailbox = mailbox
        self._routes: dict[tuple[str, str], Callable[[Request], object]] = {
            _REST: self._rest,
            ("POST", "/sim/mail/down"): lambda request: _bring(request, self._mailbox.weather.bring),
            ("POST", "/sim/mail/manners"): lambda request: self._mailbox.manners.set(request.json()),
            ("GET", "/sim/mail/book"): self._mail_book,
            ("GET", "/sim/mail/box"): self._box,
            ("GET", "/mail"): lambda request: Reply.html(self._mailbox.list_page(request.argument("to"))),
        }
        for name, carrier in carriers.items():
            for method, what, of_carrier in (
                ("POST", "down", _carrier_down),
                ("POST", "throttle", _throttle),
                ("POST", "receipts-url", _set_receipts_url),
                ("POST", "receipts", _receipt_manners),
                ("POST", "forbid", _forbid),
                ("GET", "book", _sms_book),
            ):
                self._routes[method, f"/sim/{name}/{what}"] = partial(of_carrier, carrier)
        for name, gateway in gateways.items():
            for method, what, answer in (
                ("POST", "pay", _pay),
                ("POST", "open", _open),
                ("POST", "replay", _replay),
                ("POST", "sign-with", _sign_with),
                ("POST", "misbehave", _misbehave),
                ("POST", "refunds", _refund_manners),
                ("POST", "bill", _bill_faults),
                ("GET", "book", _orders_book),
                ("GET", "refunds", _refunds_book),
            ):
                self._routes[method, f"/sim/{name}/{what}"] = partial(answer, gateway)
            self._routes["POST", f"/sim/{name}/down"] = partial(_down, gateway)

    async def handle(self, request: Request) -> Reply:
        asked = request.method, request.path.rstrip("/") or "/"
        if asked == _REST and request.argument("soon"):
            await self._agenda.settled(_KEPT_WAITING)
        route = self._routes.get(asked)
        try:
            if route is None:
                return self._page(request)
            answer = route(request)
        except Refusal as refusal:
            return Reply.of({"code": refusal.code, "message": refusal.message}, refusal.status)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            return Reply.of({"code": "BAD_REQUEST", "message": f"{type(error).__name__}: {error}"}, 400)
        return answer if isinstance(answer, Reply) else Reply.of(answer)

    def _page(self, request: Request) -> Reply:
        match = _MAIL_PAGE.fullmatch(request.path)
        if request.method != "GET" or match is None or int(match[1]) >= len(self._mailbox.mails):
            return Reply.of({"code": "NOT_FOUND", "message": request.path}, 404)
        return Reply.html(self._mailbox.mail_page(int(match[1])))

    def _rest(self, _: Request) -> object:
        pending = self._agenda.pending()
        return {
            "at": self._clock.now().isoformat(),
            "pending_now": pending.now,
            "next_at": pending.next_at.isoformat() if pending.next_at else None,
            "receipts_waiting": sum(one.waiting_for_receipt() for one in self._carriers.values()),
            "bounces_unread": self._mailbox.bouncer.unread(),
            "reached": {
                **{f"{name}-down": gateway.weather.reached for name, gateway in self._gateways.items()},
                **{f"{name}-down": one.weather.reached for name, one in self._carriers.items()},
                "mail-down": self._mailbox.weather.reached,
                **{f"mail-{what}": count for what, count in self._mailbox.manners.reached.items()},
                **{f"bounce-{how}": count for how, count in self._mailbox.bouncer.bounced.items()},
            },
            "failures": self._agenda.failures,
        }

    def _mail_book(self, request: Request) -> object:
        after, limit = _range(request)
        mails = self._mailbox.mails[after : after + limit]
        return {
            "totals": {"mails": len(self._mailbox.mails)},
            "refused": self._mailbox.refused,
            "next": _next(after, mails, limit),
            "mails": [
                {"at": mail.at.isoformat(), "to": mail.to_hashes, "message_id": mail.message_id}
                for mail in mails
            ],
        }

    def _box(self, request: Request) -> object:
        return {
            "mails": [self._mailbox.read(position) for position in self._mailbox.of(request.argument("to"))]
        }


def _carrier_down(carrier: SmsCarrier, request: Request) -> object:
    return _bring(request, carrier.weather.bring)


def _throttle(carrier: SmsCarrier, request: Request) -> object:
    carrier.throttle(float(request.json()["seconds"]))
    return {}


def _set_receipts_url(carrier: SmsCarrier, request: Request) -> object:
    url = request.json()["url"]
    carrier.receipts_url = None if url is None else str(url)
    return {}


def _receipt_manners(carrier: SmsCarrier, request: Request) -> object:
    """How receipts of messages taken from now on come: `delay` in clock seconds, `times` each, or `never`."""
    body = request.json()
    carrier.manners = Manners(
        timedelta(seconds=float(body.get("delay", carrier.manners.delay.total_seconds()))),
        int(body.get("times", 1)),
        bool(body.get("never", False)),
    )
    return {}


def _forbid(carrier: SmsCarrier, request: Request) -> object:
    carrier.forbidden = frozenset(str(word) for word in request.json()["words"])
    return {}


def _sms_book(carrier: SmsCarrier, request: Request) -> object:
    after, limit = _range(request)
    messages = carrier.messages[after : after + limit]
    states: dict[str, int] = {}
    for message in carrier.messages:
        states[message.state] = states.get(message.state, 0) + 1
    return {
        "totals": {"messages": len(carrier.messages), **states},
        "refused": carrier.refused,
        "asked": carrier.asked,
        "receipts": {"pushed": carrier.receipts_pushed, "given_up": carrier.receipts_given_up},
        "next": _next(after, messages, limit),
        "messages": [
            {
                "at": message.at.isoformat(),
                "to": message.to,
                "template": message.template,
                "text": message.text,
                "out_id": message.out_id,
                "biz_id": message.biz_id,
                "state": message.state,
            }
            for message in messages
        ],
    }


def _pay(gateway: Gateway, request: Request) -> object:
    body = request.json()
    number = body.get("out_trade_no") or body["order_no"]
    callbacks = body.get("callbacks", [])
    wrong = body.get("amount_fen")
    order = gateway.pay(
        str(number), [float(seconds) for seconds in callbacks], None if wrong is None else int(wrong)
    )
    assert order.paid_at is not None
    return {
        "paid_at": order.paid_at.isoformat(),
        "transaction_id": order.transaction_id,
        "amount_fen": order.amount_fen,
    }


def _replay(gateway: Gateway, request: Request) -> object:
    body = request.json()
    if body.get("how") == "captured":
        return {"notifications": gateway.replay_captured()}
    last = body.get("last")
    return {
        "notifications": gateway.notify_again(
            body.get("out_trade_no") or body.get("order_no"), int(last) if last is not None else None
        )
    }


def _sign_with(gateway: Gateway, request: Request) -> object:
    return {"serial": gateway.sign_with(int(request.json()["key"]))}


def _misbehave(gateway: Gateway, request: Request) -> object:
    body = request.json()
    gateway.misbehave(str(body["how"]), int(body.get("times", 1)))
    return {}


def _orders_book(gateway: Gateway, request: Request) -> object:
    after, limit = _range(request)
    orders = gateway.book.orders(after, limit)
    return {
        "totals": gateway.book.totals(),
        "refused": gateway.refused,
        "next": _next(after, orders, limit),
        "orders": [
            {
                "out_trade_no": order.out_trade_no,
                "state": order.state.value,
                "amount_fen": order.amount_fen,
                "currency": order.currency,
                "placed_at": order.placed_at.isoformat(),
                "expires_at": order.expires_at.isoformat(),
                "paid_at": order.paid_at.isoformat() if order.paid_at else None,
                "closed_at": order.closed_at.isoformat() if order.closed_at else None,
                "transaction_id": order.transaction_id or None,
                "notified": order.notified,
                "acknowledged": order.acknowledged,
            }
            for order in orders
        ],
    }


def _refund_manners(gateway: Gateway, request: Request) -> object:
    """How the next refunds go: seconds under way, codes of refusals one by one, how many end abnormally."""
    body, book = request.json(), gateway.refunds
    book.takes = timedelta(seconds=float(body.get("takes", 0)))
    book.refusing = [str(code) for code in body.get("refuse", [])]
    book.abnormal = int(body.get("abnormal", 0))
    return {}


def _bill_faults(gateway: Gateway, request: Request) -> object:
    """How bills differ from the book from now on: a list of the words of `Gateway.bill_faults`."""
    gateway.bill_faults = [str(fault) for fault in request.json().get("faults", [])]
    return {}


def _refunds_book(gateway: Gateway, _: Request) -> object:
    now = gateway.now()
    return {
        "totals": gateway.refunds.totals(now),
        "reached": dict(gateway.refunds.reached),
        "refunds": [
            {
                "refund_no": one.refund_no,
                "out_trade_no": one.out_trade_no,
                "amount_fen": one.amount_fen,
                "status": one.status(now).value,
                "at": one.at.isoformat(),
            }
            for one in gateway.refunds.all()
        ],
    }


def _open(gateway: Gateway, request: Request) -> object:
    order = gateway.book.open(str(request.json()["order_no"]), gateway.now())
    return {"opened_at": order.opened_at.isoformat() if order.opened_at else None}


def _down(gateway: Gateway, request: Request) -> object:
    return _bring(request, gateway.weather.bring)


def _bring(request: Request, bring: Callable[[float, Outage], Any]) -> object:
    body = request.json()
    until = bring(float(body["seconds"]), Outage(body.get("how", Outage.REFUSE)))
    return {"until": until.isoformat()}


def _range(request: Request) -> tuple[int, int]:
    return int(request.argument("after", "0")), int(request.argument("limit", str(_PAGE)))


def _next(after: int, entries: list[Any], limit: int) -> int | None:
    return after + len(entries) if len(entries) == limit else None
