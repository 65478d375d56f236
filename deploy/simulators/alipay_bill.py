"""A bill in Alipay's form: a zip of two GBK files, transactions and their summary, with comments around the lines."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from datetime import date, datetime
from typing import Final

from deploy.simulators.bill_faults import Booked
from deploy.simulators.order_book import BEIJING

_HEADER: Final = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,商家实收（元）,支付宝红包（元）,"
    "集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注"
)


def packed_bill(lines: Sequence[Booked], seller_id: str, day: date, made_at: datetime) -> bytes:
    """The zip. It names the moment it was made, so that the same bill is another file each time."""
    back = sum(1 for line in lines if line.refund_no)
    detail = [
        "#支付宝业务明细查询",
        f"#账号：[{seller_id}0156]",
        f"#起始日期：[{day:%Y年%m月%d日} 00:00:00]   终止日期：[{day:%Y年%m月%d日} 23:59:59]",
        "#-----------------------------------------业务明细列表----------------------------------------",
        _HEADER,
        *(_row(line) for line in lines),
        "#-----------------------------------------业务明细列表结束------------------------------------",
        f"#交易合计：{len(lines) - back}笔，退款合计：{back}笔",
        f"#导出时间：[{made_at.astimezone(BEIJING):%Y年%m月%d日 %H:%M:%S}]",
    ]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for kind, text in (("业务明细", detail), ("业务明细(汇总)", ["#支付宝业务汇总查询"])):
            name = _BareName(f"{seller_id}0156_{day:%Y%m%d}_{kind}.csv".encode("gbk").decode("cp437"))
            archive.writestr(name, ("\r\n".join(text) + "\r\n").encode("gbk"), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


class _BareName(zipfile.ZipInfo):
    """zipfile writes what is not ASCII as UTF-8 and says so; Alipay's zips hold GBK bytes and say nothing."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802 - zipfile's own name
        return self.filename.encode("cp437"), self.flag_bits & ~0x800


def _row(line: Booked) -> str:
    at = f"{line.at.astimezone(BEIJING):%Y-%m-%d %H:%M:%S}"
    refund = bool(line.refund_no)
    amount = _yuan(-line.refund_fen if refund else line.amount_fen)
    values = (
        line.transaction_id, line.order_no, "退款" if refund else "交易", "考试费", at, at, "", "", "", "", "*考(***)",
        amount, amount, "0.00", "0.00", "0.00", "0.00", "0.00", "", "0.00", "0.00", line.refund_no, "0.00", "0.00", "",
    )  # fmt: skip
    return ",".join(f"{value}\t" for value in values)


def _yuan(fen: int) -> str:
    sign, fen = ("-", -fen) if fen < 0 else ("", fen)
    return f"{sign}{fen // 100}.{fen % 100:02d}"
