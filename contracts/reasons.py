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
