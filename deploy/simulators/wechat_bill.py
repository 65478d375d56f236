"""A bill of all kinds in WeChat Pay's form: a back-tick before every value, amounts in yuan, a summary at the end."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from typing import Final

from deploy.simulators.bill_faults import Booked
from deploy.simulators.order_book import BEIJING

_HEADER: Final = (
    "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,交易状态,付款银行,货币种类,应结订单金额,代金券金额,"
    "微信退款单号,商户退款单号,退款金额,充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注"
)
_SUMMARY: Final = (
    "总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,申请退款总金额"
)


def packed_bill(lines: Sequence[Booked], app_id: str, merchant_id: str) -> tuple[bytes, bytes]:
    """The file, and the same with gzip."""
    rows = [_HEADER, *(_row(line, app_id, merchant_id) for line in lines)]
    paid = sum(line.amount_fen for line in lines if not line.refund_no)
    back = sum(line.refund_fen for line in lines)
    totals = (str(len(lines)), _yuan(paid), _yuan(back), "0.00", "0.00", _yuan(paid), _yuan(back))
    rows += [_SUMMARY, ",".join(f"`{total}" for total in totals)]
    raw = ("\ufeff" + "\r\n".join(rows) + "\r\n").encode()
    return raw, gzip.compress(raw, mtime=0)


def _row(line: Booked, app_id: str, merchant_id: str) -> str:
    refund = bool(line.refund_no)
    values = (
        f"{line.at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}", app_id, merchant_id, "0", "", line.transaction_id,
        line.order_no, "o0000000000000000000000000000", "NATIVE", "REFUND" if refund else "SUCCESS", "OTHERS", "CNY",
        "0.00" if refund else _yuan(line.amount_fen), "0.00", f"5030{line.refund_no}" if refund else "0",
        line.refund_no or "0", _yuan(line.refund_fen), "0.00", "ORIGINAL" if refund else "", "SUCCESS" if refund else "",
        "考试费", "", "0.00000", "0.60%", "0.00" if refund else _yuan(line.amount_fen), _yuan(line.refund_fen), "",
    )  # fmt: skip
    return ",".join(f"`{value}" for value in values)


def _yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"
