"""The Alipay gateway: orders by code, query, close and notices, RSA2 with real keys both ways.

A trade that was given a code does not exist until somebody opens it: query and close deny it, and its code stays payable
until its `time_expire`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from deploy.simulators.agenda import Agenda
from deploy.simulators.alipay_bill import packed_bill
from deploy.simulators.credentials import AlipayWorld
from deploy.simulators.gateway import Gateway
from deploy.simulators.http import Reply, Request
from deploy.simulators.order_book import BEIJING, Order, OrderBook, Refusal, TradeState
from deploy.simulators.outage import Outage
from deploy.simulators.refund_book import RefundBook, RefundStatus
from services.chassis.clock import Clock
from services.chassis.wire import Answer, Wires

TRADE_NO: Final = "{date}220014{number:014d}"
# After the first try: eight in 24 hours and 24 minutes.
REPEATS: Final = tuple(timedelta(minutes=m) for m in (4, 10, 10, 60, 120, 360, 900))
_LONGEST: Final = timedelta(days=15)
_FRESH: Final = timedelta(minutes=10)
_OUT_TRADE_NO: Final = re.compile(r"[0-9A-Za-z_]{1,64}", re.ASCII)
_YUAN: Final = re.compile(r"(0|[1-9][0-9]{0,8})\.([0-9]{2})", re.ASCII)
_WORDS: Final = {
    "ORDER_NOT_EXIST": ("ACQ.TRADE_NOT_EXIST", "交易不存在"),
    "ORDERPAID": ("ACQ.TRADE_HAS_SUCCESS", "交易已被支付"),
    "ORDER_CLOSED": ("ACQ.TRADE_HAS_CLOSE", "交易已经关闭"),
    "NOT_ENOUGH": ("ACQ.SELLER_BALANCE_NOT_ENOUGH", "卖家余额不足"),
    "INVALID_REQUEST": ("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "退款金额超限"),
    "RESOURCE_NOT_EXISTS": ("ACQ.TRADE_STATUS_ERROR", "交易状态不合法"),
    "OUT_TRADE_NO_USED": ("ACQ.CONTEXT_INCONSISTENT", "交易信息被篡改"),
}


class AlipayGateway(Gateway):
    misbehaviours = ("altered-body", "wrong-signature", "stale", "unlisted-key")
    repeats = REPEATS

    def __init__(
        self,
        world: AlipayWorld,
        book: OrderBook,
        refunds: RefundBook,
        clock: Clock,
        agenda: Agenda,
        client: Wires,
    ) -> None:
        self._world = world
        self._signer = world.signing_keys[0]
        self._files: dict[str, bytes] = {}
        super().__init__(book, refunds, clock, agenda, client)

    # What merchants call

    async def handle(self, request: Request) -> Reply:
        outage = self.weather.meet()
        if outage is Outage.REFUSE:
            return Reply(503, b"", ())
        if outage is Outage.HANG:
            await asyncio.sleep(60)
            return Reply(504, b"", ())
        fields = dict(parse_qsl(request.query)) | dict(
            parse_qsl(request.body.decode("utf-8", "replace"), keep_blank_values=True)
        )
        method = fields.get("method", "")
        try:
            if request.path != "/gateway.do":
                return self._file(request)
            self._verify_merchant(fields)
        except Refusal as refusal:
            # Whom it does not know it does not answer with a seal.
            self._count(refusal.code)
            return Reply.of(
                {
                    "error_response": {
                        "code": "40002",
                        "msg": "Invalid Arguments",
                        "sub_code": refusal.code,
                        "sub_msg": refusal.message,
                    }
                }
            )
        try:
            content = {
                "code": "10000",
                "msg": "Success",
                **self._answer(method, _biz_content(fields), fields, request.headers.get("host", "")),
            }
        except Refusal as refusal:
            code, message = _WORDS.get(refusal.code, (refusal.code, refusal.message))
            self._count(code)
            content = {"code": "40004", "msg": "Business Failed", "sub_code": code, "sub_msg": message}
        if outage is Outage.LOSE:
            return Reply(502, b"", ())
        return self._signed(method.replace(".", "_") + "_response", content)

    def _answer(
        self, method: str, asked: dict[str, Any], fields: Mapping[str, str], host: str
    ) -> dict[str, Any]:
        number = str(asked.get("out_trade_no", ""))
        match method:
            case "alipay.trade.precreate":
                return self._precreate(number, asked, fields.get("notify_url", ""))
            case "alipay.trade.query":
                return self._trade(self._opened(number))
            case "alipay.trade.close":
                order = self._opened(number)
                if order.state is not TradeState.NOTPAY:
                    raise Refusal(400, "ACQ.TRADE_STATUS_ERROR", "交易状态不合法")
                self.book.close(number, self._clock.now())
                return {"out_trade_no": number, "trade_no": _trade_no(order)}
            case "alipay.trade.refund":
                return self._refund(self._opened(number), asked)
            case "alipay.trade.fastpay.refund.query":
                return self._refund_facts(self._opened(number), str(asked.get("out_request_no", "")))
            case "alipay.data.dataservice.bill.downloadurl.query":
                return {"bill_download_url": self._bill(str(asked.get("bill_date", "")), host)}
        raise Refusal(400, "isv.invalid-method", "不存在的方法名")

    def _refund(self, order: Order, asked: Mapping[str, Any]) -> dict[str, Any]:
        fen = _fen(asked.get("refund_amount"))
        if fen is None:
            raise Refusal(400, "ACQ.INVALID_PARAMETER", "参数无效：refund_amount")
        refund, new = self.refunds.ask(
            order.out_trade_no, str(asked.get("out_request_no", "")), fen, self._clock.now()
        )
        return {
            "out_trade_no": order.out_trade_no,
            "trade_no": order.transaction_id,
            "refund_fee": _yuan(refund.amount_fen),
            "fund_change": "Y" if new and refund.status(self._clock.now()) is RefundStatus.SUCCESS else "N",
        }

    def _refund_facts(self, order: Order, refund_no: str) -> dict[str, Any]:
        refund = self.refunds.find(refund_no)
        if refund is None or refund.out_trade_no != order.out_trade_no:
            return {}  # Alipay's way to say that there is no such refund
        facts = {
            "out_trade_no": order.out_trade_no,
            "out_request_no": refund_no,
            "trade_no": order.transaction_id,
            "refund_amount": _yuan(refund.amount_fen),
            "total_amount": _yuan(order.amount_fen),
        }
        if refund.status(self._clock.now()) is RefundStatus.SUCCESS:
            facts |= {"refund_status": "REFUND_SUCCESS", "gmt_refund_pay": _beijing(refund.done_at)}
        return facts

    def _bill(self, day_text: str, host: str) -> str:
        day, now = date.fromisoformat(day_text), self._clock.now().astimezone(BEIJING)
        lines = self.booked_on(day)
        if not lines or day >= now.date() or (day == now.date() - timedelta(days=1) and now.hour < 10):
            raise Refusal(400, "isp.bill_not_exist", "账单不存在")
        token = secrets.token_hex(16)
        self._files[token] = packed_bill(lines, self._world.seller_id, day, now)
        return f"http://{host}/bill?token={token}"

    def _precreate(self, number: str, asked: Mapping[str, Any], notify_url: str) -> dict[str, Any]:
        fen, subject = _fen(asked.get("total_amount")), asked.get("subject")
        if not _OUT_TRADE_NO.fullmatch(number):
            raise Refusal(400, "ACQ.INVALID_PARAMETER", "参数无效：out_trade_no")
        if fen is None or fen < 1:
            raise Refusal(400, "ACQ.INVALID_PARAMETER", "参数无效：total_amount")
        if not isinstance(subject, str) or not 1 <= len(subject) <= 256:
            raise Refusal(400, "ACQ.INVALID_PARAMETER", "参数无效：subject")
        now, wanted = self._clock.now(), str(asked.get("time_expire") or "")
        order = self.book.place(
            Order(number, subject, fen, "CNY", notify_url, "", wanted, now, _expiry(wanted, now))
        )
        return {
            "out_trade_no": number,
            "qr_code": f"https://qr.alipay.example/bax{secrets.token_hex(8)}{order.codes_given}",
        }

    def _opened(self, number: str) -> Order:
        order = self.book.find(number)
        if order is None or order.opened_at is None:
            raise Refusal(404, "ORDER_NOT_EXIST", "")
        if order.state is TradeState.NOTPAY and order.expires_at <= self._clock.now():
            self.book.close(number, order.expires_at)  # Alipay ends it by itself
        return order

    def _trade(self, order: Order) -> dict[str, Any]:
        facts = {
            "out_trade_no": order.out_trade_no,
            "trade_no": _trade_no(order),
            "trade_status": self._status(order),
            "total_amount": _yuan(order.amount_fen),
            "buyer_user_id": order.openid,
        }
        if order.paid_at is not None:
            facts |= {"send_pay_date": _beijing(order.paid_at), "receipt_amount": _yuan(order.amount_fen)}
        return facts

    def _status(self, order: Order) -> str:
        back = sum(refund.amount_fen for refund in self.refunds.of_order(order.out_trade_no))
        if order.state is TradeState.SUCCESS and back == order.amount_fen:
            return "TRADE_CLOSED"  # as what was never paid, but with a moment of payment
        return {
            TradeState.NOTPAY: "WAIT_BUYER_PAY",
            TradeState.SUCCESS: "TRADE_SUCCESS",
            TradeState.CLOSED: "TRADE_CLOSED",
        }[order.state]

    def _verify_merchant(self, fields: Mapping[str, str]) -> None:
        if fields.get("app_id") != self._world.app_id:
            raise Refusal(400, "isv.invalid-app-id", "无效的AppID参数")
        if fields.get("sign_type") != "RSA2" or fields.get("version") != "1.0":
            raise Refusal(400, "isv.invalid-signature-type", "无效的签名类型")
        try:
            asked_at = datetime.fromisoformat(fields["timestamp"]).replace(tzinfo=BEIJING)
            signature = base64.b64decode(fields.get("sign", ""), validate=True)
        except (KeyError, ValueError):
            raise Refusal(400, "isv.invalid-timestamp", "非法的时间戳参数") from None
        if abs(self._clock.now() - asked_at) > _FRESH:
            raise Refusal(400, "isv.invalid-timestamp", "非法的时间戳参数")
        try:
            self._world.merchant_key.verify(signature, _text(fields, ("sign",)), PKCS1v15(), SHA256())
        except InvalidSignature:
            raise Refusal(400, "isv.invalid-signature", "无效签名") from None

    # What the gateway sends

    def sign_with(self, key: int) -> str:
        self._signer = self._world.signing_keys[key]
        return self._signer.serial

    def _notice_id(self) -> str:
        return f"{self._clock.now():%Y%m%d}{secrets.randbelow(10**26):026d}"

    def _notice(self, order: Order, notice_id: str) -> tuple[dict[str, str], bytes]:
        wrong = self._wrong()
        sent_at = self._clock.now() - (timedelta(days=1) if wrong == "stale" else timedelta(0))
        assert order.paid_at is not None
        fields = {
            "app_id": self._world.app_id,
            "charset": "utf-8",
            "gmt_create": _beijing(order.placed_at),
            "gmt_payment": _beijing(order.paid_at),
            "notify_id": notice_id,
            "notify_time": _beijing(sent_at),
            "notify_type": "trade_status_sync",
            "out_trade_no": order.out_trade_no,
            "seller_id": self._world.seller_id,
            "subject": order.description,
            "total_amount": _yuan(order.amount_fen),
            "receipt_amount": _yuan(order.amount_fen),
            "trade_no": order.transaction_id,
            "trade_status": "TRADE_SUCCESS",
            "buyer_id": order.openid,
            "version": "1.0",
        }
        seal = self._seal(_text(fields, ()), wrong)
        if wrong == "altered-body":
            fields["total_amount"] = _yuan(order.amount_fen + 1)
        body = urlencode({**fields, "sign": seal, "sign_type": "RSA2"}).encode()
        return {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}, body

    def _heard(self, answer: Answer) -> bool:
        return answer.status == 200 and answer.body == b"success"

    def _file(self, request: Request) -> Reply:
        """Bills come without a seal."""
        file = self._files.get(request.argument("token")) if request.path == "/bill" else None
        return (
            Reply(404, b"", ())
            if file is None
            else Reply(200, file, ((b"content-type", b"application/zip"),))
        )

    def _signed(self, name: str, content: Mapping[str, Any]) -> Reply:
        inner = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
        wrong = self._wrong()
        seal = self._seal(inner, wrong)
        if wrong == "altered-body":
            inner = inner[:-1] + b',"x":"1"}'
        return Reply(200, b'{"%s":%s,"sign":"%s"}' % (name.encode(), inner, seal.encode()))

    def _seal(self, text: bytes, wrong: str) -> str:
        key = self._world.signing_keys[-1] if wrong == "unlisted-key" else self._signer
        spoiled = b" " if wrong == "wrong-signature" else b""
        return base64.b64encode(key.private_key.sign(text + spoiled, PKCS1v15(), SHA256())).decode()


def _text(fields: Mapping[str, str], without: tuple[str, ...]) -> bytes:
    named = sorted((name, value) for name, value in fields.items() if value and name not in without)
    return "&".join(f"{name}={value}" for name, value in named).encode()


def _biz_content(fields: Mapping[str, str]) -> dict[str, Any]:
    try:
        content = json.loads(fields.get("biz_content", ""))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Refusal(400, "isv.invalid-biz-content", "biz_content 不是合法的 JSON")
    return content


def _expiry(wanted: str, now: datetime) -> datetime:
    if not wanted:
        return now + _LONGEST
    try:
        moment = datetime.strptime(wanted, "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING).astimezone(UTC)
    except ValueError:
        raise Refusal(400, "ACQ.INVALID_PARAMETER", "参数无效：time_expire") from None
    if moment <= now:
        raise Refusal(400, "ACQ.INVALID_PARAMETER", "参数无效：time_expire")
    return min(moment, now + _LONGEST)


def _fen(text: object) -> int | None:
    found = _YUAN.fullmatch(text) if isinstance(text, str) else None
    return int(found[1]) * 100 + int(found[2]) if found else None


def _yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"


def _beijing(at: datetime) -> str:
    return f"{at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}"


def _trade_no(order: Order) -> str:
    """Of a trade that is paid, the number it is booked under; of any other, one that is never booked."""
    return (
        order.transaction_id
        or f"{order.placed_at:%Y%m%d}220099{int.from_bytes(order.out_trade_no.encode()) % 10**14:014d}"
    )
