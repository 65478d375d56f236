"""Every coded reason that may stand on the wire, with the words people read.

Free text stays in the service that was told it.
"""

from enum import StrEnum


class ReasonCode(StrEnum):
    """Why a desk or a reviewer returned or rejected."""

    EDUCATION = "education"
    YEARS = "years"
    SPECIALTY = "specialty"
    EMPLOYER = "employer"
    DOCUMENTS = "documents"
    PHOTO = "photo"
    FORM_OUTDATED = "form-outdated"
    IDENTITY = "identity"
    OTHER = "other"

    @property
    def text(self) -> str:
        return _REASONS[self]


class WithdrawalReason(StrEnum):
    """Why a candidate withdrew."""

    PERSONAL = "personal"
    MISTAKE = "mistake"
    OTHER = "other"

    @property
    def text(self) -> str:
        return _WITHDRAWALS[self]


class WindowReason(StrEnum):
    """Why a window was set or moved."""

    ANNOUNCED = "announced"
    EXTENDED = "extended"
    OUTAGE = "outage"
    CORRECTED = "corrected"
    OTHER = "other"

    @property
    def text(self) -> str:
        return _WINDOWS[self]


class Decision(StrEnum):
    """What a review level decided."""

    APPROVE = "approve"
    REJECT = "reject"
    RETURN = "return"

    @property
    def text(self) -> str:
        return _DECISIONS[self]


class ChangedField(StrEnum):
    """Names of what a candidate may change; never what it was changed to."""

    NAME = "name"
    ID_TYPE = "id_type"
    ID_NUMBER = "id_number"
    PHONE = "phone"
    EMAIL = "email"
    EMPLOYER = "employer"
    EMPLOYER_CODE = "employer_code"
    SITE_ID = "site_id"
    SPECIALTY_CODE = "specialty_code"
    SUBJECTS = "subjects"
    RETURNING = "returning"
    PHOTO = "photo"


class Channel(StrEnum):
    """Where money comes from."""

    WECHAT = "wechat"
    ALIPAY = "alipay"


class ExpiryCause(StrEnum):
    """Why a registration was forfeited."""

    UNPAID = "unpaid"


class ReinstatementCause(StrEnum):
    """Why a forfeiture was taken back."""

    PAID_IN_TIME = "paid-in-time"
    WINDOW_EXTENDED = "window-extended"
    TWO_PERSON_DECISION = "two-person-decision"


class RefundCause(StrEnum):
    """Why money went back."""

    PAID_LATE = "paid-late"
    PAID_TWICE = "paid-twice"
    WRONG_AMOUNT = "wrong-amount"
    REJECTED = "rejected"
    OTHER = "other"


class BreakKind(StrEnum):
    """How a gateway's bill, our ledger and the registration's state differ."""

    NOT_IN_LEDGER = "not-in-ledger"
    UNKNOWN_ORDER = "unknown-order"
    OTHER_ORDER = "other-order"
    OTHER_AMOUNT = "other-amount"
    OTHER_DAY = "other-day"
    DUPLICATE_LINE = "duplicate-line"
    NOT_PAID_HERE = "not-paid-here"
    NOT_IN_BILL = "not-in-bill"
    REFUND_NOT_IN_LEDGER = "refund-not-in-ledger"
    REFUND_NOT_IN_BILL = "refund-not-in-bill"
    REFUND_OTHER_AMOUNT = "refund-other-amount"

    @property
    def text(self) -> str:
        return _BREAKS[self]


class BreakClosing(StrEnum):
    """Why a person closed a break."""

    GATEWAY_CORRECTED = "gateway-corrected"
    BOOKED_SINCE = "booked-since"
    PAID_BACK = "paid-back"
    NOT_OURS = "not-ours"
    OTHER = "other"

    @property
    def text(self) -> str:
        return _CLOSINGS[self]


class Carrier(StrEnum):
    """How a message went out."""

    SMS = "sms"
    EMAIL = "email"


_REASONS = {
    ReasonCode.EDUCATION: "学历",
    ReasonCode.YEARS: "年限",
    ReasonCode.SPECIALTY: "专业不符",
    ReasonCode.EMPLOYER: "单位不符",
    ReasonCode.DOCUMENTS: "材料不全",
    ReasonCode.PHOTO: "照片不合格",
    ReasonCode.FORM_OUTDATED: "表格非最新",
    ReasonCode.IDENTITY: "身份不符",
    ReasonCode.OTHER: "其他",
}
_WITHDRAWALS = {
    WithdrawalReason.PERSONAL: "个人原因",
    WithdrawalReason.MISTAKE: "填报有误",
    WithdrawalReason.OTHER: "其他",
}
_WINDOWS = {
    WindowReason.ANNOUNCED: "公布时间",
    WindowReason.EXTENDED: "延长",
    WindowReason.OUTAGE: "系统故障顺延",
    WindowReason.CORRECTED: "更正",
    WindowReason.OTHER: "其他",
}
_DECISIONS = {
    Decision.APPROVE: "通过",
    Decision.REJECT: "不通过",
    Decision.RETURN: "退回",
}
_BREAKS = {
    BreakKind.NOT_IN_LEDGER: "账单有收款，我方账本没有",
    BreakKind.UNKNOWN_ORDER: "账单中的订单号不是我方订单",
    BreakKind.OTHER_ORDER: "同一笔交易在账单与账本中属于不同订单",
    BreakKind.OTHER_AMOUNT: "收款金额不一致",
    BreakKind.OTHER_DAY: "同一笔交易记在不同日期",
    BreakKind.DUPLICATE_LINE: "账单重复列出同一笔",
    BreakKind.NOT_PAID_HERE: "账单已收款，但该报名既未缴费也无待退款",
    BreakKind.NOT_IN_BILL: "我方账本有收款，账单没有",
    BreakKind.REFUND_NOT_IN_LEDGER: "账单有退款，我方账本没有",
    BreakKind.REFUND_NOT_IN_BILL: "我方账本有退款，账单没有",
    BreakKind.REFUND_OTHER_AMOUNT: "退款金额不一致",
}
_CLOSINGS = {
    BreakClosing.GATEWAY_CORRECTED: "支付渠道已更正账单",
    BreakClosing.BOOKED_SINCE: "我方账本已补记",
    BreakClosing.PAID_BACK: "款项已退回",
    BreakClosing.NOT_OURS: "不属于本次考试的款项",
    BreakClosing.OTHER: "其他",
}
