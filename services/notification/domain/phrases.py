"""One language's words for moments, money, reasons and causes. Chinese stands here; another language is a file of the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from contracts.reasons import ExpiryCause, ReasonCode, RefundCause, ReinstatementCause, WindowReason
from services.notification.domain.occasions import Occasion

CHINESE: Final = "zh"


@dataclass(frozen=True, eq=False)  # known by itself: a key of caches
class Phrases:
    """What stands in braces is filled in: `{year}年{month}月{day}日…`."""

    language: str
    moment: str
    clock: str
    clock_and_minutes: str
    deadline: str
    weekdays: tuple[str, ...]  # Monday first
    months: tuple[str, ...]
    zones: Mapping[str, str]
    day: str  # of one; a language without a plural says the same twice
    days: str
    hour: str
    hours: str
    minute: str
    minutes: str
    hours_and_minutes: str
    money: str
    form: str
    separator: str  # between reasons
    and_more: str  # what is left out of a list or a long name, in an SMS
    opening: str  # how every SMS begins
    consequence: str  # the word by which a text says what happens when its deadline is missed
    no_reply: str  # the last paragraph of every email begins so
    your_desk: str
    its_place: str
    ask_the_desk: str
    reasons: Mapping[str, str]
    remedies: Mapping[str, str]
    causes: Mapping[str, Mapping[str, str]]  # occasion → coded cause
    levels: Mapping[str, str]  # review level; one that is not named keeps the cycle's own name

    def problems(self) -> list[str]:
        """Every code that has no words here."""
        lacking = [f"reasons.{code}" for code in ReasonCode if code not in self.reasons]
        lacking += [f"remedies.{code}" for code in ReasonCode if code not in self.remedies]
        lacking += [
            f"causes.{occasion}.{code}"
            for occasion, codes in CAUSES.items()
            for code in codes
            if code not in self.causes.get(occasion, {})
        ]
        if len(self.weekdays) != 7 or len(self.months) != 12:
            lacking.append("weekdays are seven and months twelve")
        return lacking


# The coded causes that each occasion's `why` may be.
CAUSES: Final[Mapping[Occasion, tuple[str, ...]]] = {
    Occasion.DESK_WINDOW_MOVED: tuple(WindowReason),
    Occasion.PAYMENT_WINDOW_MOVED: tuple(WindowReason),
    Occasion.EXPIRED: tuple(ExpiryCause),
    Occasion.REINSTATED: tuple(ReinstatementCause),
    Occasion.REFUNDED: tuple(RefundCause),
}
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

ZH: Final = Phrases(
    language=CHINESE,
    moment="{year}年{month}月{day}日（星期{weekday}）{clock}（{zone}）",
    clock="{hour}时",
    clock_and_minutes="{hour}时{minute:02d}分",
    deadline="{moment}前",
    weekdays=tuple("一二三四五六日"),
    months=tuple(str(month) for month in range(1, 13)),
    zones={"Asia/Shanghai": "北京时间"},
    day="{n}天",
    days="{n}天",
    hour="{n}小时",
    hours="{n}小时",
    minute="{n}分钟",
    minutes="{n}分钟",
    hours_and_minutes="{hours}小时{minutes}分钟",
    money="{amount}元",
    form="第{n}版",
    separator="、",
    and_more="等",
    opening="考生{{ tail }}：",
    consequence="逾期",
    no_reply="本邮件由系统发出",
    your_desk="您选择的报名点",
    its_place="该报名点指定地点",
    ask_the_desk="以报名点通知为准",
    reasons={str(code): code.text for code in ReasonCode},
    remedies={str(code): text for code, text in REMEDIES.items()},
    causes={
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
    },
    levels={},
)
