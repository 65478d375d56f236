"""WeChat Pay v3: the bill of a day. Its address and hash come sealed; the file itself does not."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from datetime import date
from typing import Final
from urllib.parse import urlsplit

from services.payment.adapters.asking import FILE_LIMIT
from services.payment.adapters.bill_lines import bill_line
from services.payment.adapters.wechat_calls import WeChatCalls
from services.payment.adapters.wechat_signatures import authorization
from services.payment.ports import Bill, BillLine, ChannelRefused, ChannelUnavailable, NoBill, NoBillYet

_NONE, _NOT_YET = "NO_STATEMENT_EXIST", "STATEMENT_CREATING"
_SUMMARY: Final = "总交易单数"
_AT, _TRANSACTION, _ORDER, _STATE = "交易时间", "微信订单号", "商户订单号", "交易状态"
_PAID, _REFUND_NO, _REFUNDED, _REFUND_STATE = "应结订单金额", "商户退款单号", "退款金额", "退款状态"
_MERCHANT, _CURRENCY = "商户号", "货币种类"
_COLUMNS: Final = (_AT, _TRANSACTION, _ORDER, _STATE, _PAID, _REFUND_NO, _REFUNDED, _MERCHANT)


class WeChatBills(WeChatCalls):
    async def fetch_bill(self, day: date) -> Bill:
        target = f"/v3/bill/tradebill?bill_date={day.isoformat()}&bill_type=ALL&tar_type=GZIP"
        reply = await self.call("GET", target, None)
        if reply.code == _NONE:
            raise NoBill(reply.code)
        if reply.code == _NOT_YET:
            raise NoBillYet(reply.code)
        if reply.status != 200:
            raise ChannelRefused(reply.code, reply.status)
        url, kind, digest = (reply.content.get(name) for name in ("download_url", "hash_type", "hash_value"))
        if not isinstance(url, str) or kind != "SHA1" or not isinstance(digest, str):
            raise ChannelUnavailable("bill without address or hash")
        packed = await self._download(url)
        raw = unzipped(packed)
        if hashlib.sha1(raw, usedforsecurity=False).hexdigest() != digest.lower():
            raise ChannelUnavailable("bill differs from its hash")
        # Reading a large one takes a second: nobody else waits for it.
        lines = await asyncio.to_thread(lambda: tuple(read_bill(raw, self._account.merchant_id)))
        return Bill(self.name, day, lines, hashlib.sha256(raw).digest(), packed)

    async def _download(self, url: str) -> bytes:
        ours, theirs = urlsplit(self._account.gateway_url), urlsplit(url)
        if (theirs.scheme, theirs.netloc) != (ours.scheme, ours.netloc):
            # Whoever could choose the host could make us call anybody, with our seal on it.
            raise ChannelUnavailable("bill at another host")
        target = f"{theirs.path}?{theirs.query}" if theirs.query else theirs.path
        seal = authorization(self._account, "GET", target, b"", self._clock.now())
        return await self._connections.file(url, {"Authorization": seal})


def unzipped(packed: bytes) -> bytes:
    """At most FILE_LIMIT bytes: a small file may hold a large one."""
    try:
        unpacker = zlib.decompressobj(wbits=31)
        raw = unpacker.decompress(packed, FILE_LIMIT)
    except (zlib.error, gzip.BadGzipFile):
        raise ChannelUnavailable("bill is not gzip") from None
    if not unpacker.eof:
        raise ChannelUnavailable("bill is cut short or too large")
    return raw


def read_bill(raw: bytes, merchant_id: str) -> Iterator[BillLine]:
    """The lines of a bill of all kinds: payments, and refunds that were not refused. Raises ChannelUnavailable."""
    try:
        rows = csv.reader(io.TextIOWrapper(io.BytesIO(raw), "utf-8-sig", newline=""))
        header = [cell.strip() for cell in next(rows, [])]
        if missing := [name for name in _COLUMNS if name not in header]:
            raise ChannelUnavailable(f"bill without column {missing[0]}")
        for row in rows:
            if row and row[0].strip().startswith(_SUMMARY):
                return
            cells = {name: cell.strip().removeprefix("`") for name, cell in zip(header, row, strict=True)}
            if cells[_MERCHANT] != merchant_id or cells.get(_CURRENCY, "CNY") != "CNY":
                raise ChannelUnavailable("bill of another merchant or currency")
            if cells[_STATE] == "SUCCESS":
                yield bill_line(cells[_ORDER], cells[_TRANSACTION], None, cells[_PAID], cells[_AT])
            elif cells[_STATE] == "REFUND" and cells.get(_REFUND_STATE, "SUCCESS") in {
                "SUCCESS",
                "PROCESSING",
            }:
                # When it was taken, not when it was done: it is billed once, on that day, and never again (WeChat Pay's
                # description of the bill, "交易时间", as of November 2024).
                refund_no, yuan = cells[_REFUND_NO], cells[_REFUNDED]
                yield bill_line(cells[_ORDER], cells[_TRANSACTION], refund_no, yuan, cells[_AT])
    except (ValueError, csv.Error):
        raise ChannelUnavailable("bill cannot be read") from None
    raise ChannelUnavailable("bill without a summary")
