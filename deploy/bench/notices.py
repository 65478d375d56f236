"""Payments as WeChat Pay tells of them: sealed for us and signed by the platform, as whole HTTP requests."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from deploy.bench.owing import FEE_FEN
from deploy.simulators.credentials import WeChatWorld
from deploy.simulators.wechat import SCHEME

PATH: Final = "/gateway/wechat/notify"
_BEIJING: Final = ZoneInfo("Asia/Shanghai")


def notice(world: WeChatWorld, order_no: str, *, paid_at: datetime, at: datetime, path: str = PATH) -> bytes:
    """One request, ready to be sent. The gateway's word is fresh for five minutes from `at`."""
    facts = {
        "appid": world.app_id,
        "mchid": world.merchant_id,
        "out_trade_no": order_no,
        "transaction_id": f"42{order_no}"[:32],
        "trade_type": "NATIVE",
        "trade_state": "SUCCESS",
        "trade_state_desc": "支付成功",
        "bank_type": "OTHERS",
        "success_time": paid_at.astimezone(_BEIJING).isoformat(timespec="seconds"),
        "payer": {"openid": f"o{order_no}"[:28]},
        "amount": {"total": FEE_FEN, "payer_total": FEE_FEN, "currency": "CNY", "payer_currency": "CNY"},
    }
    nonce = secrets.token_hex(6)
    plain = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).encode()
    sealed = AESGCM(world.api_v3_key).encrypt(nonce.encode(), plain, b"transaction")
    body = json.dumps(
        {
            "id": secrets.token_hex(16),
            "create_time": at.astimezone(_BEIJING).isoformat(timespec="seconds"),
            "resource_type": "encrypt-resource",
            "event_type": "TRANSACTION.SUCCESS",
            "summary": "支付成功",
            "resource": {
                "original_type": "transaction",
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": base64.b64encode(sealed).decode(),
                "associated_data": "transaction",
                "nonce": nonce,
            },
        },
        ensure_ascii=False,
        separators=(",", ":"),
    ).encode()
    key = world.signing_keys[0]
    timestamp, mark = str(int(at.timestamp())), secrets.token_hex(16)
    signed = f"{timestamp}\n{mark}\n".encode() + body + b"\n"
    signature = base64.b64encode(key.private_key.sign(signed, PKCS1v15(), SHA256())).decode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"wechatpay-serial: {key.serial}\r\nwechatpay-timestamp: {timestamp}\r\nwechatpay-nonce: {mark}\r\n"
        f"wechatpay-signature: {signature}\r\nwechatpay-signature-type: {SCHEME}\r\n\r\n"
    )
    return head.encode() + body
