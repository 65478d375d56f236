"""The WeChat Pay v3 gateway: native orders, query, close and notifications, with real keys both ways.

Every call must carry a valid signature of the merchant's certificate; every answer to such a call and every
notification is signed with one of the platform's keys.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from collections import deque
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from deploy.simulators.agenda import Agenda
from deploy.simulators.credentials import SigningKey, WeChatWorld
from deploy.simulators.http import Reply, Request
from deploy.simulators.outage import Outage, Weather
from deploy.simulators.wechat_orders import BEIJING, Order, OrderBook, Refusal, TradeState, read_expiry
from services.chassis.clock import Clock
from services.chassis.wire import NoAnswer, Wires

SCHEME = "WECHATPAY2-SHA256-RSA2048"
# After the first try; 24 h 4 m in all.
REPEATS = tuple(
    timedelta(seconds=s)
    for s in (15, 15, 30, 180, 600, 1200, 1800, 1800, 1800, 3600, 10800, 10800, 10800, 21600, 21600)
)
_FRESH = timedelta(minutes=5)
_PATIENCE = 5.0  # real seconds a receiver has for its answer
_CAPTURED = 200  # notifications kept as sent, to be replayed byte for byte
_NATIVE = "/v3/pay/transactions/native"
_BY_ORDER = re.compile(r"/v3/pay/transactions/out-trade-no/([^/]+)(/close)?")
_BY_TRANSACTION = re.compile(r"/v3/pay/transactions/id/([^/]+)")
_OUT_TRADE_NO = re.compile(r"[0-9A-Za-z_\-|*]{6,32}")
_FIELD = re.compile(r'(\w+)="([^"]*)"')
_STATE_TEXT = {
    TradeState.NOTPAY: "订单未支付",
    TradeState.SUCCESS: "支付成功",
    TradeState.CLOSED: "订单已关闭",
}
MISBEHAVIOURS = ("altered-body", "wrong-signature", "probe", "stale", "unlisted-key")


class WeChatGateway:
    def __init__(
        self, world: WeChatWorld, book: OrderBook, clock: Clock, agenda: Agenda, client: Wires
    ) -> None:
        self._world = world
        self._clock = clock
        self._agenda = agenda
        self._signer = world.signing_keys[0]
        self._by_serial = {key.serial: key for key in world.signing_keys}
        self._aead = AESGCM(world.api_v3_key)
        self._client = client
        self._captured: deque[tuple[str, dict[str, str], bytes]] = deque(maxlen=_CAPTURED)
        self._misbehaving: deque[str] = deque()
        self.book = book
        self.weather = Weather(clock)
        self.refused: dict[str, int] = {}
        for order in book.orders():
            for moment in order.callbacks[order.notified :]:
                agenda.add(moment, partial(self._notify, order, 0, _notification_id()))

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
        raise Refusal(404, "RESOURCE_NOT_EXISTS", "请求的资源不存在")

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
            "trade_state": order.state.value,
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
        self.refused[refusal.code] = self.refused.get(refusal.code, 0) + 1
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

    # What people and nature do

    def pay(self, out_trade_no: str, callbacks: list[float]) -> Order:
        """A person pays; the gateway will call back after each of these seconds, or never."""
        if self.weather.until is not None:
            raise Refusal(409, "GATEWAY_DOWN", "系统繁忙，请稍后再试")
        now = self._clock.now()
        moments = [now + timedelta(seconds=seconds) for seconds in callbacks]
        order = self.book.pay(out_trade_no, now, moments)
        for moment in moments:
            self._agenda.add(moment, partial(self._notify, order, 0, _notification_id()))
        return order

    def notify_again(self, out_trade_no: str | None, last: int | None) -> int:
        """Freshly signed notifications of what is paid: one order, the last so many, or all."""
        if out_trade_no is not None:
            order = self.book.find(out_trade_no)
            if order is None or order.paid_at is None:
                raise Refusal(404, "ORDER_NOT_EXIST", "没有已支付的订单")
            orders = [order]
        else:
            orders = [order for order in self.book.orders() if order.paid_at is not None]
            orders = orders[-last:] if last is not None else orders
        now = self._clock.now()
        for order in orders:
            # Told already: what is not acknowledged now is not repeated.
            self._agenda.add(now, partial(self._notify, order, len(REPEATS), _notification_id()))
        return len(orders)

    def replay_captured(self) -> int:
        """The last notifications again, byte for byte, old signature and old timestamp."""
        now = self._clock.now()
        for url, headers, body in self._captured:
            self._agenda.add(now, partial(self._replay, url, headers, body))
        return len(self._captured)

    def sign_with(self, key: int) -> str:
        """Change the platform key; the last is one that merchants were not told of."""
        self._signer = self._world.signing_keys[key]
        return self._signer.serial

    def misbehave(self, how: str, times: int) -> None:
        """The next so many answers or notifications are wrong in this way."""
        if how not in MISBEHAVIOURS:
            raise Refusal(400, "PARAM_ERROR", f"one of {', '.join(MISBEHAVIOURS)}")
        self._misbehaving.extend([how] * times)

    # What the gateway sends

    async def _notify(self, order: Order, attempt: int, notification_id: str) -> None:
        if (until := self.weather.until) is not None:
            self._agenda.add(until, partial(self._notify, order, attempt, notification_id))
            return
        plain = json.dumps(self._transaction(order), ensure_ascii=False, separators=(",", ":")).encode()
        body = json.dumps(
            {
                "id": notification_id,
                "create_time": _beijing(self._clock.now()),
                "resource_type": "encrypt-resource",
                "event_type": "TRANSACTION.SUCCESS",
                "summary": "支付成功",
                "resource": {"original_type": "transaction", **self._encrypt(plain, "transaction")},
            },
            ensure_ascii=False,
            separators=(",", ":"),
        ).encode()
        headers, body = self._sign(body, self._signer)
        headers["Content-Type"] = "application/json"
        self._captured.append((order.notify_url, headers, body))
        acknowledged = await self._post(order.notify_url, headers, body)
        self.book.note_notified(order, acknowledged=acknowledged)
        if not acknowledged and attempt < len(REPEATS):
            self._agenda.add(
                self._clock.now() + REPEATS[attempt],
                partial(self._notify, order, attempt + 1, notification_id),
            )

    async def _replay(self, url: str, headers: dict[str, str], body: bytes) -> None:
        await self._post(url, headers, body)

    async def _post(self, url: str, headers: dict[str, str], body: bytes) -> bool:
        try:
            answer = await self._client.request("POST", url, headers, body, _PATIENCE)
        except (NoAnswer, ValueError):
            return False
        return answer.status in {200, 204}

    def _signed(self, reply: Reply, asked_serial: str | None) -> Reply:
        key = self._by_serial.get(asked_serial or "", self._signer)
        headers, body = self._sign(reply.body, key)
        fields = tuple((name.lower().encode(), value.encode()) for name, value in headers.items())
        return Reply(reply.status, body, (*reply.headers, *fields))

    def _sign(self, body: bytes, key: SigningKey) -> tuple[dict[str, str], bytes]:
        how = self._misbehaving.popleft() if self._misbehaving else ""
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


def _notification_id() -> str:
    return f"EV-{secrets.token_hex(16)}"


def _beijing(at: datetime) -> str:
    return at.astimezone(BEIJING).isoformat(timespec="seconds")
