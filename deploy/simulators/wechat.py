"""The WeChat Pay v3 gateway: native orders, query, close and notifications, with real keys both ways.

Every call must carry a valid signature of the merchant's certificate; every answer to such a call and every
notification is signed with one of the platform's keys.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import secrets
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from deploy.simulators.agenda import Agenda
from deploy.simulators.credentials import SigningKey, WeChatWorld
from deploy.simulators.gateway import Gateway
from deploy.simulators.http import Reply, Request
from deploy.simulators.order_book import BEIJING, Order, OrderBook, Refusal, TradeState, read_expiry
from deploy.simulators.outage import Outage
from deploy.simulators.refund_book import Refund, RefundBook, RefundStatus
from deploy.simulators.wechat_bill import packed_bill
from services.chassis.clock import Clock
from services.chassis.wire import Answer, Wires

SCHEME = "WECHATPAY2-SHA256-RSA2048"
# After the first try; 24 h 4 m in all.
REPEATS = tuple(
    timedelta(seconds=s)
    for s in (15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600)
)
_FRESH = timedelta(minutes=5)
_NATIVE = "/v3/pay/transactions/native"
_BY_ORDER = re.compile(r"/v3/pay/transactions/out-trade-no/([^/]+)(/close)?")
_BY_TRANSACTION = re.compile(r"/v3/pay/transactions/id/([^/]+)")
_OUT_TRADE_NO = re.compile(r"[0-9A-Za-z_\-|*]{6,32}")
_REFUNDS = "/v3/refund/domestic/refunds"
_BY_REFUND = re.compile(r"/v3/refund/domestic/refunds/([^/]+)")
_FIELD = re.compile(r'(\w+)="([^"]*)"')
_STATE_TEXT = {
    TradeState.NOTPAY: "订单未支付",
    TradeState.SUCCESS: "支付成功",
    TradeState.CLOSED: "订单已关闭",
}


class WeChatGateway(Gateway):
    misbehaviours = ("altered-body", "wrong-signature", "probe", "stale", "unlisted-key")
    repeats = REPEATS

    def __init__(
        self,
        world: WeChatWorld,
        book: OrderBook,
        refunds: RefundBook,
        clock: Clock,
        agenda: Agenda,
        client: Wires,
    ) -> None:
        self._world = world
        self._signer = world.signing_keys[0]
        self._by_serial = {key.serial: key for key in world.signing_keys}
        self._aead = AESGCM(world.api_v3_key)
        self._files: dict[str, bytes] = {}
        super().__init__(book, refunds, clock, agenda, client)

    # What merchants call

    async def handle(self, request: Request) -> Reply:
        outage = self.weather.meet()
        if outage is Outage.REFUSE:
            return Reply.of({"code": "SYSTEM_ERROR", "message": "系统异常，请稍后重试"}, 503)
        if outage is Outage.HANG:
            await asyncio.sleep(60)
            return Reply.of({"code": "SYSTEM_ERROR", "message": "系统异常，请稍后重试"}, 504)
        try:
            self._verify_merchant(request)
        except Refusal as refusal:
            # Only those who have proved who they are get a signed answer.
            return self._refusal(refusal)
        if request.path == "/v3/billdownload/file":
            file = self._files.get(request.argument("token"))
            # Files come without a seal.
            return Reply(404) if file is None else Reply(200, file, ((b"content-type", b"text/plain"),))
        try:
            reply = self._answer(request)
        except Refusal as refusal:
            reply = self._refusal(refusal)
        if outage is Outage.LOSE:
            return Reply.of({"code": "SYSTEM_ERROR", "message": "系统异常，请稍后重试"}, 502)
        return self._signed(reply, request.headers.get("wechatpay-serial"))

    def _answer(self, request: Request) -> Reply:
        if request.path == _NATIVE and request.method == "POST":
            return Reply.of({"code_url": self._place(_json_object(request.body))})
        if request.path == "/v3/certificates" and request.method == "GET":
            return Reply.of(
                {"data": [self._wrap_certificate(key) for key in self._listed() if key.certificate_pem]}
            )
        if match := _BY_ORDER.fullmatch(request.path):
            if match[2] and request.method == "POST":
                self._check_merchant_id(str(_json_object(request.body).get("mchid", "")))
                self.book.close(match[1], self._clock.now())
                return Reply(204)
            if not match[2] and request.method == "GET":
                self._check_merchant_id(request.argument("mchid"))
                return Reply.of(self._transaction(self.book.find(match[1])))
        elif (match := _BY_TRANSACTION.fullmatch(request.path)) and request.method == "GET":
            self._check_merchant_id(request.argument("mchid"))
            return Reply.of(self._transaction(self.book.find_transaction(match[1])))
        return Reply.of(self._answer_about_money(request))

    def _answer_about_money(self, request: Request) -> dict[str, Any]:
        if request.path == _REFUNDS and request.method == "POST":
            return self._refund(_json_object(request.body))
        if (match := _BY_REFUND.fullmatch(request.path)) and request.method == "GET":
            refund = self.refunds.find(match[1])
            if refund is not None:
                return self._refund_facts(refund)
        elif request.path == "/v3/bill/tradebill" and request.method == "GET":
            return self._bill(request)
        raise Refusal(404, "RESOURCE_NOT_EXISTS", "请求的资源不存在")

    def _refund(self, body: dict[str, Any]) -> dict[str, Any]:
        amount, number = body.get("amount"), body.get("out_trade_no")
        order = self.book.find(str(number))
        fen = amount.get("refund") if isinstance(amount, dict) else None
        if not isinstance(fen, int) or not isinstance(amount, dict) or amount.get("currency") != "CNY":
            raise Refusal(400, "PARAM_ERROR", "amount.refund 应为正整数，单位为分")
        if order is None or order.amount_fen != amount.get("total"):
            raise Refusal(400, "INVALID_REQUEST", "订单金额或退款金额不符")
        refund_no = str(body.get("out_refund_no", ""))
        if not _OUT_TRADE_NO.fullmatch(refund_no):
            raise Refusal(400, "PARAM_ERROR", "out_refund_no 应为6至32个字符")
        refund, new = self.refunds.ask(str(number), refund_no, fen, self._clock.now())
        url = str(body.get("notify_url") or "")
        if new and url:
            self._agenda.add(
                max(refund.done_at, self._clock.now()), partial(self._tell_of_refund, refund, url)
            )
        return self._refund_facts(refund)

    def _refund_facts(self, refund: Refund) -> dict[str, Any]:
        order = self.book.find(refund.out_trade_no)
        assert order is not None
        status = refund.status(self._clock.now())
        done = {"success_time": _beijing(refund.done_at)} if status is RefundStatus.SUCCESS else {}
        return {
            "refund_id": refund.refund_id,
            "out_refund_no": refund.refund_no,
            "transaction_id": order.transaction_id,
            "out_trade_no": order.out_trade_no,
            "channel": "ORIGINAL",
            "user_received_account": "支付用户零钱",
            "create_time": _beijing(refund.at),
            "status": status.value,
            "amount": {"total": order.amount_fen, "refund": refund.amount_fen, "currency": "CNY"},
            **done,
        }

    def _bill(self, request: Request) -> dict[str, Any]:
        day, now = date.fromisoformat(request.argument("bill_date")), self._clock.now().astimezone(BEIJING)
        if day >= now.date() or (day == now.date() - timedelta(days=1) and now.hour < 10):
            raise Refusal(400, "STATEMENT_CREATING", "账单生成中")
        lines = self.booked_on(day)
        if not lines:
            raise Refusal(400, "NO_STATEMENT_EXIST", "账单文件不存在")
        raw, packed = packed_bill(lines, self._world.app_id, self._world.merchant_id)
        token = secrets.token_hex(16)
        self._files[token] = packed
        return {
            "hash_type": "SHA1",
            "hash_value": hashlib.sha1(raw, usedforsecurity=False).hexdigest(),
            "download_url": f"http://{request.headers.get('host', '')}/v3/billdownload/file?token={token}",
        }

    def _place(self, body: dict[str, Any]) -> str:
        amount = body.get("amount")
        total = amount.get("total") if isinstance(amount, dict) else None
        currency = amount.get("currency", "CNY") if isinstance(amount, dict) else None
        number, description = body.get("out_trade_no"), body.get("description")
        notify_url = body.get("notify_url")
        if body.get("appid") != self._world.app_id or body.get("mchid") != self._world.merchant_id:
            raise Refusal(400, "APPID_MCHID_NOT_MATCH", "AppID和mch_id不匹配")
        if not isinstance(number, str) or not _OUT_TRADE_NO.fullmatch(number):
            raise Refusal(400, "PARAM_ERROR", "out_trade_no 应为6至32个字符")
        if not isinstance(total, int) or isinstance(total, bool) or total < 1:
            raise Refusal(400, "PARAM_ERROR", "amount.total 应为正整数，单位为分")
        if currency != "CNY":
            raise Refusal(400, "PARAM_ERROR", "amount.currency 仅支持 CNY")
        if not isinstance(description, str) or not 1 <= len(description) <= 127:
            raise Refusal(400, "PARAM_ERROR", "description 应为1至127个字符")
        if not isinstance(notify_url, str) or not _may_be_notified(notify_url):
            raise Refusal(400, "PARAM_ERROR", "notify_url 应为不带参数的 https 地址")
        time_expire = str(body.get("time_expire") or "")
        now = self._clock.now()
        order = self.book.place(
            Order(
                number,
                description,
                total,
                currency,
                notify_url,
                str(body.get("attach") or ""),
                time_expire,
                now,
                read_expiry(time_expire, now),
            )
        )
        return f"weixin://wxpay/bizpayurl?pr={secrets.token_urlsafe(6)}{order.codes_given}"

    def _transaction(self, order: Order | None) -> dict[str, Any]:
        if order is None:
            raise Refusal(404, "ORDER_NOT_EXIST", "订单不存在")
        facts: dict[str, Any] = {
            "appid": self._world.app_id,
            "mchid": self._world.merchant_id,
            "out_trade_no": order.out_trade_no,
            "trade_state": "REFUND" if self.refunds.of_order(order.out_trade_no) else order.state.value,
            "trade_state_desc": _STATE_TEXT[order.state],
            "attach": order.attach,
            "amount": {"total": order.amount_fen, "currency": order.currency},
        }
        if order.paid_at is not None:
            facts |= {
                "transaction_id": order.transaction_id,
                "trade_type": "NATIVE",
                "bank_type": "OTHERS",
                "success_time": _beijing(order.paid_at),
                "payer": {"openid": order.openid},
                "amount": {
                    "total": order.amount_fen,
                    "payer_total": order.amount_fen,
                    "currency": order.currency,
                    "payer_currency": order.currency,
                },
            }
        return facts

    def _verify_merchant(self, request: Request) -> None:
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        fields = dict(_FIELD.findall(rest))
        try:
            signed_at = datetime.fromtimestamp(int(fields["timestamp"]), UTC)
            signature = base64.b64decode(fields["signature"], validate=True)
            nonce, merchant, serial = fields["nonce_str"], fields["mchid"], fields["serial_no"]
        except (KeyError, ValueError, OverflowError, OSError):
            raise Refusal(401, "SIGN_ERROR", "Http头Authorization值格式错误") from None
        if scheme != SCHEME or merchant != self._world.merchant_id or serial != self._world.merchant_serial:
            raise Refusal(401, "SIGN_ERROR", "商户号或证书序列号有误")
        if abs(self._clock.now() - signed_at) > _FRESH:
            raise Refusal(401, "SIGN_ERROR", "Http头Authorization中的timestamp与发起请求的时间不得超过5分钟")
        text = f"{request.method}\n{request.target}\n{fields['timestamp']}\n{nonce}\n".encode()
        try:
            self._world.merchant_key.verify(signature, text + request.body + b"\n", PKCS1v15(), SHA256())
        except InvalidSignature:
            raise Refusal(401, "SIGN_ERROR", "签名错误") from None

    def _check_merchant_id(self, merchant_id: str) -> None:
        if merchant_id != self._world.merchant_id:
            raise Refusal(400, "MCH_NOT_EXISTS", "商户号不存在")

    def _refusal(self, refusal: Refusal) -> Reply:
        self._count(refusal.code)
        return Reply.of({"code": refusal.code, "message": refusal.message}, refusal.status)

    def _listed(self) -> tuple[SigningKey, ...]:
        return self._world.signing_keys[:-1]

    def _wrap_certificate(self, key: SigningKey) -> dict[str, Any]:
        assert key.certificate_pem is not None
        return {
            "serial_no": key.serial,
            "effective_time": "2015-01-01T08:00:00+08:00",
            "expire_time": "2054-12-22T08:00:00+08:00",
            "encrypt_certificate": self._encrypt(key.certificate_pem, "certificate"),
        }

    def sign_with(self, key: int) -> str:
        self._signer = self._world.signing_keys[key]
        return self._signer.serial

    # What the gateway sends

    def _notice_id(self) -> str:
        return f"EV-{secrets.token_hex(16)}"

    def _notice(self, order: Order, notice_id: str) -> tuple[dict[str, str], bytes]:
        facts = self._transaction(order) | {"trade_state": order.state.value}
        return self._told(notice_id, "TRANSACTION.SUCCESS", "transaction", facts)

    async def _tell_of_refund(self, refund: Refund, url: str) -> None:
        """Once: whoever needs to know asks."""
        facts = self._refund_facts(refund)
        facts |= {"mchid": self._world.merchant_id, "refund_status": facts.pop("status")}
        event = f"REFUND.{facts['refund_status']}"
        headers, body = self._told(self._notice_id(), event, "refund", facts)
        await self._post(url, headers, body)

    def _told(
        self, notice_id: str, event: str, kind: str, facts: dict[str, Any]
    ) -> tuple[dict[str, str], bytes]:
        plain = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()
        body = json.dumps(
            {
                "id": notice_id,
                "create_time": _beijing(self._clock.now()),
                "resource_type": "encrypt-resource",
                "event_type": event,
                "summary": "支付成功" if kind == "transaction" else "退款通知",
                "resource": {"original_type": kind, **self._encrypt(plain, kind)},
            },
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        headers, body = self._sign(body, self._signer)
        return headers | {"Content-Type": "application/json"}, body

    def _heard(self, answer: Answer) -> bool:
        return answer.status in {200, 204}

    def _signed(self, reply: Reply, asked_serial: str | None) -> Reply:
        key = self._by_serial.get(asked_serial or "", self._signer)
        headers, body = self._sign(reply.body, key)
        fields = tuple((name.lower().encode(), value.encode()) for name, value in headers.items())
        return Reply(reply.status, body, (*reply.headers, *fields))

    def _sign(self, body: bytes, key: SigningKey) -> tuple[dict[str, str], bytes]:
        how = self._wrong()
        if how == "unlisted-key":
            key = self._world.signing_keys[-1]
        at = self._clock.now() - (timedelta(days=1) if how == "stale" else timedelta(0))
        timestamp, nonce = str(int(at.timestamp())), secrets.token_hex(16)
        text = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
        signature = base64.b64encode(key.private_key.sign(text, PKCS1v15(), SHA256())).decode()
        if how == "probe":
            signature = "WECHATPAY/SIGNTEST/" + signature[19:]
        elif how == "wrong-signature":
            signature = base64.b64encode(key.private_key.sign(text + b" ", PKCS1v15(), SHA256())).decode()
        elif how == "altered-body":
            body = body.replace(b"SUCCESS", b"SUCCES5") if b"SUCCESS" in body else body + b" "
        return {
            "Wechatpay-Timestamp": timestamp,
            "Wechatpay-Nonce": nonce,
            "Wechatpay-Serial": key.serial,
            "Wechatpay-Signature": signature,
            "Wechatpay-Signature-Type": SCHEME,
        }, body

    def _encrypt(self, plain: bytes, associated: str) -> dict[str, str]:
        nonce = secrets.token_hex(6)  # twelve characters, as the protocol wants them: text
        sealed = self._aead.encrypt(nonce.encode(), plain, associated.encode())
        return {
            "algorithm": "AEAD_AES_256_GCM",
            "nonce": nonce,
            "associated_data": associated,
            "ciphertext": base64.b64encode(sealed).decode(),
        }


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise Refusal(400, "PARAM_ERROR", "请求体不是合法的 JSON 对象")
    return content


def _may_be_notified(url: str) -> bool:
    """HTTPS without a query; plain HTTP on this machine, where the whole world is simulated."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    local = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost"}
    return (parts.scheme == "https" or local) and not parts.query and len(url) <= 256


def _beijing(at: datetime) -> str:
    return at.astimezone(BEIJING).isoformat(timespec="seconds")
