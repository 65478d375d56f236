"""Where a candidate works: the full legal name, and the 统一社会信用代码 if they give one."""

import re
from typing import Final

from services.registration.domain.people import Wrong

NAME_SHORTEST: Final = 4
NAME_LONGEST: Final = 100

# Ends of a department's name. Left out on purpose, because they end legal names too: 门诊部, 卫生室, 医务室, 诊所,
# 药房 (个体工商户), 中心 (社区卫生服务中心), 办公室 (爱国卫生运动委员会办公室), 卫生院, 站 (急救站).
_DEPARTMENTS: Final = (
    "科",
    "科室",
    "病区",
    "病房",
    "病室",
    "护理部",
    "护理组",
    "护理站",
    "护士站",
    "住院部",
    "急诊部",
    "急诊室",
    "手术室",
    "手术部",
    "监护室",
    "重症监护病房",
    "抢救室",
    "供应室",
    "产房",
    "检验室",
    "药剂室",
    "换药室",
    "化验室",
    "教研室",
    "医务部",
    "人事部",
    "ICU",
)
_NOT_THE_END: Final = re.compile(r"[\s0-9０-９一二三四五六七八九十、,，.。·#()（）\[\]【】-]+$")
_LAST_BRACKET: Final = re.compile(r"[(（\[【]([^()（）\[\]【】]+)[)）\]】]\s*$")
_CHINESE: Final = re.compile(r"[\u3400-\u9fff\U00020000-\U0003fffd]")


def employer(typed: str) -> str:
    """「在填报工作单位名称时务必规范填写单位全称（与组织机构代码证一致），不填写具体的科室（部门）。」"""
    name = typed.strip()
    if not name:
        raise Wrong("请填写工作单位全称。")
    if len(name) > NAME_LONGEST or not name.isprintable():
        raise Wrong(f"工作单位名称不得超过 {NAME_LONGEST} 个字，且不得含有控制字符。")
    if len(name) < NAME_SHORTEST or not _CHINESE.search(name):
        raise Wrong("请填写工作单位全称，须与单位证照上的名称完全一致，不用简称。")
    department = department_in(name)
    if department:
        raise Wrong(f"工作单位只填单位全称，不填具体的科室（部门）：请去掉“{department}”所在的科室名称。")
    return name


def department_in(name: str) -> str | None:
    """The department's word that the name ends in, also when it stands in brackets or is followed by its number."""
    bracket = _LAST_BRACKET.search(name)
    for part in (name[: bracket.start()], bracket[1]) if bracket else (name,):
        end = _NOT_THE_END.sub("", part).upper()
        found = [word for word in _DEPARTMENTS if end.endswith(word)]
        if found:
            return max(found, key=len)
    return None


_ALPHABET: Final = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_CODE: Final = re.compile(f"[{_ALPHABET}]{{18}}")
_WEIGHTS: Final = tuple(pow(3, place, 31) for place in range(17))
_ORGANISATION_WEIGHTS: Final = (3, 7, 9, 10, 5, 8, 4, 2)
_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}


def employer_code(typed: str | None) -> str | None:
    """GB 32100 with its own check character and the one of the organisation code (GB 11714) inside it."""
    code = (typed or "").translate(_FULL_WIDTH).replace(" ", "").upper()
    if not code:
        return None
    if not _CODE.fullmatch(code):
        raise Wrong("统一社会信用代码应为 18 位数字或大写字母（不含 I、O、S、V、Z），不清楚可以不填。")
    if code_check(code[:17]) != code[17] or organisation_check(code[8:16]) != code[16]:
        raise Wrong("统一社会信用代码校验不通过，请对照单位证照逐位核对，不清楚可以不填。")
    return code


def code_check(first_seventeen: str) -> str:
    total = sum(
        weight * _VALUES[character] for weight, character in zip(_WEIGHTS, first_seventeen, strict=True)
    )
    return _ALPHABET[-total % 31]


def organisation_check(first_eight: str) -> str:
    total = sum(
        weight * int(character, 36)
        for weight, character in zip(_ORGANISATION_WEIGHTS, first_eight, strict=True)
    )
    return "0123456789X"[-total % 11]
