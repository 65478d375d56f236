"""Facts in the words people read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeAlias

from contracts.cycle import Cycle
from contracts.reasons import ExpiryCause, ReasonCode, RefundCause, ReinstatementCause, WindowReason
from services.notification.domain.moments import (
    deadline_in_words,
    end_in_words,
    event_in_words,
    span_in_words,
    start_in_words,
    yuan,
)
from services.notification.domain.occasions import Occasion
from services.notification.domain.told import Facts

Variables: TypeAlias = "dict[str, str | list[str]]"

# What to bring or do about each reason of a return.
REMEDIES: Final[Mapping[ReasonCode, str]] = {
    ReasonCode.EDUCATION: "学历：带学历证书原件及盖章复印件；没有原件的，带教育部学历证书电子备案注册表",
    ReasonCode.YEARS: "年限：带能证明专业工作年限的材料，由单位人事部门盖章",
    ReasonCode.SPECIALTY: "专业不符：改报与学历、执业范围相符的专业，重新打印申报表并盖章",
    ReasonCode.EMPLOYER: "单位不符：按组织机构代码证填写单位全称，不填科室，重新打印申报表并盖章",
    ReasonCode.DOCUMENTS: "材料不全：补齐所缺证件的原件和加盖单位人事部门公章的复印件",
    ReasonCode.PHOTO: "照片不合格：更换近期正面免冠白底彩色证件照，重新打印申报表并盖章",
    ReasonCode.FORM_OUTDATED: "表格非最新：打印最新一版申报表并盖章，旧表无效",
    ReasonCode.IDENTITY: "身份不符：本人带居民身份证原件及复印件到场",
    ReasonCode.OTHER: "其他：请向报名点问清需要补正的内容",
}

_WINDOW: Final = {str(reason): reason.text for reason in WindowReason}
_WHY: Final[Mapping[Occasion, Mapping[str, str]]] = {
    Occasion.DESK_WINDOW_MOVED: _WINDOW,
    Occasion.PAYMENT_WINDOW_MOVED: _WINDOW,
    # “未按规定时间完成网上缴费的，视为自动放弃考试。”
    Occasion.EXPIRED: {ExpiryCause.UNPAID: "未按规定时间完成网上缴费"},
    Occasion.REINSTATED: {
        ReinstatementCause.PAID_IN_TIME: "经核实，您在截止前已完成缴费",
        ReinstatementCause.WINDOW_EXTENDED: "缴费时间已延长",
        ReinstatementCause.TWO_PERSON_DECISION: "经考点复核",
    },
    Occasion.REFUNDED: {
        RefundCause.PAID_LATE: "缴费晚于截止时间",
        RefundCause.PAID_TWICE: "重复缴费",
        RefundCause.WRONG_AMOUNT: "缴费金额不符",
        RefundCause.REJECTED: "资格审核未通过",
        RefundCause.OTHER: "其他原因",
    },
}


def variables(occasion: Occasion, facts: Facts, tail: str, cycle: Cycle) -> Variables:
    """Every variable that these facts give. Which of them a text uses is the template's affair."""
    said: Variables = {
        "tail": tail,
        "exam": cycle.name,
        "contact": cycle.contact_phone,
        "website": cycle.notice.website,
    }
    for fact, value in facts.items():
        if isinstance(value, str):
            _text(said, occasion, fact, value, cycle)
        elif isinstance(value, int):
            _number(said, fact, value)
        else:
            reasons = [ReasonCode(code) for code in value]
            said["reasons"] = "、".join(reason.text for reason in reasons)
            said["remedies"] = [REMEDIES[reason] for reason in reasons]
    if "remedies" in said and "site_id" not in facts:
        said |= {"desk": "您选择的报名点", "place": "您选择的报名点", "phone": cycle.contact_phone}
    return said


def _number(said: Variables, fact: str, value: int) -> None:
    match fact:
        case "amount_fen":
            said["amount"] = yuan(value)
        case "form_version":
            said["form"] = f"第{value}版"
        case "offset":
            said["left"] = span_in_words(value)


def _text(said: Variables, occasion: Occasion, fact: str, value: str, cycle: Cycle) -> None:
    zone = cycle.zone
    match fact:
        case "site_id":
            site = cycle.site(value)
            said["desk"] = site.name
            said["place"] = site.place or "该报名点指定地点"
            said["phone"] = site.phone or cycle.contact_phone
            said["note"] = site.undated_note or "以报名点通知为准"
        case "opens_at":
            said["opening"] = start_in_words(_moment(value), zone)
        case "closes_at":
            said["deadline"] = deadline_in_words(_moment(value), zone)
        case "reopens_until":
            said["reopening"] = deadline_in_words(_moment(value), zone)
        case "closed_at":
            said["closed"] = end_in_words(_moment(value), zone)
        case "paid_at":
            said["paid"] = event_in_words(_moment(value), zone)
        case "level":
            said["by"] = cycle.review_level(value).name
        case "why":
            said["why"] = _WHY[occasion][value]


def _moment(value: str) -> datetime:
    return datetime.fromisoformat(value)
