"""What carriers of SMS refuse in a template, each rule with the page that says it. docs/carrier-rules.md is the same table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.notification.domain.occasions import VARIABLES, Kind
from services.notification.templates.reading import VARIABLE

ALIYUN, TENCENT, HUAWEI, BAIDU = "aliyun", "tencent", "huawei", "baidu"
CARRIERS: Final = (ALIYUN, TENCENT, HUAWEI, BAIDU)

_A_SPEC: Final = "https://help.aliyun.com/document_detail/463270.htm"
_A_APPLY: Final = "https://help.aliyun.com/document_detail/44357.html"
_A_COUNT: Final = "https://help.aliyun.com/knowledge_detail/44335.html"
_A_FORMS: Final = "https://help.aliyun.com/document_detail/2806243.html"
_A_OLD: Final = "https://help-w.com/aliyunqi/1500844962_zh.html"
_T_SPEC: Final = "https://www.tencentcloud.com/zh/document/product/382/40659"
_T_FAQ: Final = "https://cloud.tencent.com/document/product/382/13301"
_H_SPEC: Final = "https://support.huaweicloud.com/productdesc-msgsms/sms_templates.html"
_H_VARIABLES: Final = "https://support.huaweicloud.com/productdesc-msgsms/sms_faq_0003.html"
_H_NOES: Final = "https://support.huaweicloud.com/intl/zh-cn/msgsms_faq/sms_faq_0076.html"
_B_SPEC: Final = "https://cloud.baidu.com/doc/SMS/s/vkihe2msj"


class Level(StrEnum):
    REFUSES = "refuses"
    DOUBTS = "doubts"  # it depends on how a person there sees the sender


@dataclass(frozen=True, slots=True)
class Sms:
    """One template as a carrier sees it. `worst`: the longest value that each variable may take."""

    source: str
    worst: Mapping[str, str]
    signature: str

    @property
    def names(self) -> list[str]:
        return VARIABLE.findall(self.source)

    @property
    def static(self) -> str:
        """The words that are always there."""
        return VARIABLE.sub("", self.source)

    @property
    def longest(self) -> str:
        """The longest that anybody could get."""
        return self.signature + VARIABLE.sub(lambda match: self.worst[match[1]], self.source)

    def of(self, *kinds: Kind) -> list[str]:
        """The variables of these kinds."""
        return [name for name in self.names if VARIABLES[name].kind in kinds]


Check = Callable[[Sms], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """`check`: why a template breaks it, or None."""

    id: str
    carrier: str
    level: Level
    what: str
    source: str
    check: Check


def _words(*words: str) -> Check:
    pattern = re.compile("|".join(words), re.IGNORECASE)

    def check(sms: Sms) -> str | None:
        found = pattern.search(sms.static)
        return f"says “{found[0]}”" if found else None

    return check


def _at_most(limit: int) -> Check:
    def check(sms: Sms) -> str | None:
        return f"up to {len(sms.longest)} characters" if len(sms.longest) > limit else None

    return check


def _without(characters: str) -> Check:
    def check(sms: Sms) -> str | None:
        found = sorted(set(sms.static) & set(characters))
        return f"has {' '.join(found)}" if found else None

    return check


def _variables_at_most(limit: int, *kinds: Kind) -> Check:
    def check(sms: Sms) -> str | None:
        names = sms.of(*kinds) if kinds else sms.names
        long = [f"{name} ({len(sms.worst[name])})" for name in names if len(sms.worst[name]) > limit]
        return f"variables may be longer than {limit}: {', '.join(long)}" if long else None

    return check


def _adjacent(sms: Sms) -> str | None:
    found = re.search(r"\{\{\s*(\w+)\s*\}\}\s*\{\{\s*(\w+)\s*\}\}", sms.source)
    return f"{found[1]} and {found[2]} stand side by side" if found else None


def _nothing_but_variables(sms: Sms) -> str | None:
    return None if re.search(r"\w", sms.static) else "there are no words but variables"


def _adjacent_or_bare(sms: Sms) -> str | None:
    return _adjacent(sms) or _nothing_but_variables(sms)


def _twice(sms: Sms) -> str | None:
    twice = sorted({name for name in sms.names if sms.names.count(name) > 1})
    return f"{', '.join(twice)} stands there twice" if twice else None


def _links(sms: Sms) -> str | None:
    if names := sms.of(Kind.LINK):
        return f"{', '.join(names)} is a link as a variable"
    found = re.search(r"(?:https?://|www\.)\S*\{\{|\{\{[^}]*\}\}\.(?:cn|com|net)", sms.source)
    return "a link is put together with a variable" if found else None


def _own_numbers(sms: Sms) -> str | None:
    found = re.search(r"(?<!\d)1[3-9]\d{9}(?!\d)|微信|QQ|公众号|抖音", sms.static)
    return f"names {found[0]} as a contact" if found else None


def _contacts(sms: Sms) -> str | None:
    written = re.findall(r"(?<!\d)(?:0\d{2,3}-?\d{7,8}|[48]00-?\d{3}-?\d{4})(?!\d)", sms.static)
    many = len(sms.of(Kind.PHONE)) + len(written)
    return f"{many} contacts" if many > 2 else None


def _phones(form: str) -> Check:
    pattern = re.compile(form)

    def check(sms: Sms) -> str | None:
        wrong = [name for name in sms.of(Kind.PHONE) if not pattern.fullmatch(sms.worst[name])]
        return f"{', '.join(wrong)} is no phone as it knows them" if wrong else None

    return check


_ALIYUN_PHONES: Final = _phones(r"[0-9-]{5,15}")
_HUAWEI_PHONES: Final = _phones(r"[0-9+-]{3,14}[0-9]")


def _many(sms: Sms) -> str | None:
    return f"{len(sms.names)} variables" if len(sms.names) > 20 else None


def _not_simplified(sms: Sms) -> str | None:
    """What GB 2312 lacks is traditional, rare, or no character at all."""

    def known(character: str) -> bool:
        try:
            character.encode("gb2312")
        except UnicodeEncodeError:
            return False
        return True

    found = sorted({character for character in sms.static if not known(character)})
    return f"has {' '.join(found)}" if found else None


def _names_it_keeps(sms: Sms) -> str | None:
    found = sorted(set(sms.names) & {"email", "mobile", "id", "nick", "site"})
    return f"a variable is named {', '.join(found)}" if found else None


def _whole_moments(sms: Sms) -> str | None:
    names = sms.of(Kind.DEADLINE, Kind.MOMENT)
    return f"{', '.join(names)} is date and time in one" if names else None


def _brackets_at_its_ends(sms: Sms) -> str | None:
    ends = sms.source.strip()
    return "begins or ends with a bracket" if ends[:1] in "[]" or ends[-1:] in "[]" else None


def _marks_in_values(sms: Sms) -> str | None:
    names = [name for name in sms.of(Kind.TEXT, Kind.NUMBER) if set(sms.worst[name]) & set(".。'<>{}")]
    return f"{', '.join(names)} may hold a mark that it cannot read" if names else None


_COMMON: Final = "贷款|催款|彩票|返利|抽奖|中奖|赌博|投资理财|移民|面试|招聘|助考|皮草|整形|足浴|代开发票|加群|刷单|法律维权"
_SYMBOLS: Final = "#『』「」〖〗²³•①②③④⑤⑥⑦⑧⑨★☆※→←↑↓"
_EDUCATION: Final = "考试|考生|报名|教育|培训|exam|candidate"
_NOT_AT_HUAWEI: Final = "医疗|保险|培训|法律|养老|公积金"
_PAYING: Final = "缴费|缴纳|缴款|支付|付款|应缴|欠费|催缴|payment|pay online|fee due|pay by"

RULES: Final = (
    Rule("A1", ALIYUN, Level.REFUSES, "1 to 500 characters, variables and signature included", _A_COUNT, _at_most(500)),
    Rule("A2", ALIYUN, Level.REFUSES, "no 【】 anywhere", _A_SPEC, _without("【】")),
    Rule("A3", ALIYUN, Level.REFUSES, "no [ ] at the beginning or the end", _A_SPEC, _brackets_at_its_ends),
    Rule("A4", ALIYUN, Level.REFUSES, "no special symbols: # 『』「」〖〗 ² • ① ★ ※ →", _A_SPEC, _without(_SYMBOLS)),
    Rule("A5", ALIYUN, Level.REFUSES, "no traditional characters", _A_SPEC, _not_simplified),
    Rule("A6", ALIYUN, Level.REFUSES, "a variable has 1 to 35 characters", _A_APPLY, _variables_at_most(35)),
    Rule("A7", ALIYUN, Level.REFUSES, "a variable stands in a template once", _A_APPLY, _twice),
    Rule("A8", ALIYUN, Level.REFUSES, "no variables side by side, no template of variables alone", _A_APPLY, _adjacent_or_bare),
    Rule("A9", ALIYUN, Level.REFUSES, "no mobile number, QQ, WeChat or the like as a contact", _A_SPEC, _own_numbers),
    Rule("A10", ALIYUN, Level.REFUSES, "at most two contacts, each an office's phone", _A_SPEC, _contacts),
    Rule("A11", ALIYUN, Level.REFUSES, "a phone as a variable: digits and hyphens, 15 at most", _A_FORMS, _ALIYUN_PHONES),
    Rule("A12", ALIYUN, Level.REFUSES, "a notification offers no unsubscribing", _A_SPEC, _words("拒收请回复", "退订")),
    Rule("A13", ALIYUN, Level.REFUSES, "none of the businesses that it does not carry", _A_SPEC, _words(_COMMON)),
    Rule("A14", ALIYUN, Level.REFUSES, "a link is a constant", _A_OLD, _links),
    Rule("A15", ALIYUN, Level.REFUSES, "no variable is named email, mobile, id, nick or site", _A_OLD, _names_it_keeps),
    Rule("T1", TENCENT, Level.REFUSES, "at most 500 characters, signature and variables included", _T_SPEC, _at_most(500)),
    Rule("T2", TENCENT, Level.REFUSES, "no 【】", _T_SPEC, _without("【】")),
    Rule("T3", TENCENT, Level.REFUSES, "no special symbols: ¥ ★ ^ & ☞ ✓ ※", _T_SPEC, _without("¥￥★☆^&☞✓√※")),
    Rule("T4", TENCENT, Level.REFUSES, "no template of variables alone", _T_SPEC, _nothing_but_variables),
    Rule("T5", TENCENT, Level.REFUSES, "a link is a constant", _T_FAQ, _links),
    Rule("T6", TENCENT, Level.REFUSES, "none of the businesses that it does not carry", _T_SPEC, _words(_COMMON)),
    Rule("T7", TENCENT, Level.DOUBTS, "education sends verification codes only", _T_SPEC, _words(_EDUCATION)),
    Rule("H1", HUAWEI, Level.REFUSES, "at most 500 characters", _H_SPEC, _at_most(500)),
    Rule("H2", HUAWEI, Level.REFUSES, "no 【】", _H_SPEC, _without("【】")),
    Rule("H3", HUAWEI, Level.REFUSES, "no special symbols: ¥ ★ ^ & √ ※ [ ]", _H_SPEC, _without("¥￥★☆^&√※[]")),
    Rule("H4", HUAWEI, Level.REFUSES, "at most 20 variables", _H_VARIABLES, _many),
    Rule("H5", HUAWEI, Level.REFUSES, "no variables side by side, nor of variables alone", _H_VARIABLES, _adjacent_or_bare),
    Rule("H6", HUAWEI, Level.REFUSES, "a variable has 1 to 20 characters", _H_VARIABLES, _variables_at_most(20)),
    Rule("H7", HUAWEI, Level.REFUSES, "date and time are two variables", _H_VARIABLES, _whole_moments),
    Rule("H8", HUAWEI, Level.REFUSES, "a link is a constant", _H_SPEC, _links),
    Rule("H9", HUAWEI, Level.REFUSES, "nothing that presses for payment, reminders to pay included", _H_NOES, _words(_PAYING)),
    Rule("H10", HUAWEI, Level.REFUSES, "none of the businesses that it does not carry", _H_SPEC, _words(_COMMON, _NOT_AT_HUAWEI)),
    Rule("H11", HUAWEI, Level.REFUSES, "a text variable holds no . 。 ' < > { }", _H_VARIABLES, _marks_in_values),
    Rule("H12", HUAWEI, Level.REFUSES, "a phone as a variable: 4 to 15 of 0-9 + -, a digit last", _H_VARIABLES, _HUAWEI_PHONES),
    Rule("H13", HUAWEI, Level.DOUBTS, "education sends verification codes only", _H_NOES, _words(_EDUCATION)),
    Rule("B1", BAIDU, Level.REFUSES, "at most 600 characters", _B_SPEC, _at_most(600)),
    Rule("B2", BAIDU, Level.REFUSES, "no 【】 and no [ ]", _B_SPEC, _without("【】[]")),
    Rule("B3", BAIDU, Level.REFUSES, "no special symbols: ★ ※ → ●", _B_SPEC, _without("★☆※→←●")),
    Rule("B4", BAIDU, Level.REFUSES, "no template of variables alone", _B_SPEC, _nothing_but_variables),
    Rule("B5", BAIDU, Level.REFUSES, "none of the businesses that it does not carry", _B_SPEC, _words(_COMMON)),
    Rule("B6", BAIDU, Level.DOUBTS, "finance, 逾期 (overdue) included, sends verification codes only", _B_SPEC, _words("逾期")),
)  # fmt: skip
