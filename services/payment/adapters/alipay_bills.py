"""Alipay: the bill of a day, a zip of GBK files. Its address comes sealed; the file itself does not, and has no hash."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import itertools
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from typing import Final
from urllib.parse import urlsplit

from services.payment.adapters.alipay_calls import AlipayCalls
from services.payment.adapters.asking import FILE_LIMIT
from services.payment.adapters.bill_lines import bill_line
from services.payment.ports import Bill, BillLine, ChannelRefused, ChannelUnavailable, NoBill

# One word for a bill that is not made yet and for one that never will be.
_NONE: Final = frozenset({"isp.bill_not_exist", "BILL_NOT_EXIST", "isv.bill_not_exist"})
_SUMMARY: Final = "汇总"
_ACCOUNT: Final = re.compile(r"#\s*账号[：:]")
_AT, _TRANSACTION, _ORDER, _KIND = "完成时间", "支付宝交易号", "商户订单号", "业务类型"
_AMOUNT, _REFUND_NO = "订单金额（元）", "退款批次号/请求号"
_PACKINGS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_LOCKED: Final = 0x1  # in an entry's flags
_COLUMNS: Final = (_AT, _TRANSACTION, _ORDER, _KIND, _AMOUNT, _REFUND_NO)


class AlipayBills(AlipayCalls):
    async def fetch_bill(self, day: date) -> Bill:
        reply = await self.call(
            "alipay.data.dataservice.bill.downloadurl.query",
            {"bill_type": "trade", "bill_date": day.isoformat()},
        )
        if reply.code in _NONE:
            raise NoBill(reply.code)
        if not reply.done:
            raise ChannelRefused(reply.code, 200)
        url = reply.content.get("bill_download_url")
        if not isinstance(url, str):
            raise ChannelUnavailable("bill without address")
        packed = await self._download(url)
        # Reading a large one takes a second: nobody else waits for it.
        lines = await asyncio.to_thread(lambda: tuple(read_bill(packed, self._account.seller_id)))
        return Bill(self.name, day, lines, digest_of(lines), packed)

    async def _download(self, url: str) -> bytes:
        parts = urlsplit(url)
        if f"{parts.scheme}://{parts.netloc}" not in self._account.bill_origins:
            # Whoever could choose the host could make us call anybody.
            raise ChannelUnavailable("bill at another host")
        return await self._connections.file(url, {"User-Agent": "kaowu"})


def read_bill(packed: bytes, seller_id: str) -> Iterator[BillLine]:
    """The lines of the file of transactions in the zip, not of the summary beside it. Raises ChannelUnavailable."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            names = [one for one in archive.infolist() if _SUMMARY not in _name(one)]
            if len(names) != 1 or names[0].file_size > FILE_LIMIT:
                raise ChannelUnavailable("bill is not one file of transactions")
            if names[0].compress_type not in _PACKINGS or names[0].flag_bits & _LOCKED:
                raise ChannelUnavailable("bill is packed in another way")
            raw = archive.read(names[0])
    except (zipfile.BadZipFile, zlib.error, EOFError):
        raise ChannelUnavailable("bill is not a zip") from None
    try:
        if not raw.rstrip().rpartition(b"\n")[2].startswith(b"#"):
            raise ChannelUnavailable("bill is cut short")
        text = io.TextIOWrapper(io.BytesIO(raw), "gb18030", newline="")
        head = list(itertools.takewhile(lambda line: not line.startswith("#-"), text))
        # The account is the seller's number with four digits of its own after it.
        if not any(_ACCOUNT.match(line) and f"[{seller_id}" in line for line in head):
            raise ChannelUnavailable("bill of another merchant")
        rows = csv.reader(line for line in text if not line.startswith("#"))
        header = [cell.strip() for cell in next(rows, [])]
        if missing := [name for name in _COLUMNS if name not in header]:
            raise ChannelUnavailable(f"bill without column {missing[0]}")
        for row in rows:
            yield _line({name: cell.strip() for name, cell in zip(header, row, strict=True)})
    except (ValueError, csv.Error):
        raise ChannelUnavailable("bill cannot be read") from None


def digest_of(lines: Iterable[BillLine]) -> bytes:
    """Of what a bill says. The file itself names the moment it was made, and is another at each fetch."""
    digest = hashlib.sha256()
    for line in lines:
        facts = (
            line.order_no,
            line.transaction_id,
            line.refund_no or "",
            line.amount_fen,
            line.at.isoformat(),
        )
        digest.update("|".join(map(str, facts)).encode() + b"\n")
    return digest.digest()


def _name(entry: zipfile.ZipInfo) -> str:
    """Names are GBK too; the format has no word for that."""
    if entry.flag_bits & 0x800:
        return entry.filename
    return entry.filename.encode("cp437").decode("gb18030", "replace")


def _line(cells: Mapping[str, str]) -> BillLine:
    refund = cells[_KIND] == "退款"
    if not refund and cells[_KIND] != "交易":
        raise ValueError(cells[_KIND])
    if refund and not cells[_REFUND_NO]:
        raise ValueError("a refund without its number")
    # A refund is written as less than nothing.
    yuan = cells[_AMOUNT].removeprefix("-") if refund else cells[_AMOUNT]
    refund_no = cells[_REFUND_NO] if refund else None
    return bill_line(cells[_ORDER], cells[_TRANSACTION], refund_no, yuan, cells[_AT])
