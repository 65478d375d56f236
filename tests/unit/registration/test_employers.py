"""Employers: full legal names pass, departments do not; codes are checked by both of their check characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registration.domain import employers
from services.registration.domain.people import Wrong

REAL_FORM = "91350100M000100Y43"  # the standard's own example


@pytest.mark.parametrize(
    "typed",
    [
        "云溪镇中心卫生院",
        " 青屏街道社区卫生服务中心 ",
        "临江骨科医院",
        "三江口腔门诊部",
        "清水溪村卫生室",
        "虹桥学校医务室",
        "双河口大药房有限公司",
        "白岩中医诊所",
        "武警四川省总队医院",
        "解放军第42医院",
        "松林坝疾病预防控制中心（卫生监督所）",
        "竹园医学检验中心",
        "石板滩医院（北院区）",
        "市爱国卫生运动委员会办公室",
        "急救站中心医院急救站",
        "𠮷水县中医医院",
    ],
)
def test_a_full_legal_name_is_taken(typed: str) -> None:
    assert employers.employer(typed) == typed.strip()


@pytest.mark.parametrize(
    "department",
    [
        "内科",
        "骨外科",
        "检验科",
        "人事科",
        "药剂科室",
        "科室",
        "三病区",
        "妇产科病房",
        "护理部",
        "护士站",
        "手术室",
        "重症监护室",
        "ICU",
        "icu",
        "住院部",
        "急诊部",
        "供应室",
        "产房",
        "内科（一）",
        "骨科2",
        "骨科 二",
        "（内科）",
        "[护理部]",
        "【ICU】",
        "内科。",
    ],
)
def test_a_department_is_refused_with_the_reason(department: str) -> None:
    with pytest.raises(Wrong, match=r"不填具体的科室（部门）"):
        employers.employer("云溪镇中心卫生院" + department)


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "请填写工作单位全称"),
        ("  ", "请填写工作单位全称"),
        ("医院", "全称"),
        ("无", "全称"),
        ("ABCD Hospital", "全称"),
        ("12345", "全称"),
        ("院" * 101, "不得超过 100 个字"),
        ("云溪镇\n卫生院", "控制字符"),
    ],
)
def test_a_name_that_is_none_is_refused(typed: str, reason: str) -> None:
    with pytest.raises(Wrong, match=reason):
        employers.employer(typed)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (None, None),
        ("", None),
        ("   ", None),
        (REAL_FORM, REAL_FORM),
        (REAL_FORM.lower(), REAL_FORM),
        (" 91350100 M000100Y43 ", REAL_FORM),
        ("９１３５０１００Ｍ０００１００Ｙ４３", REAL_FORM),
    ],
)
def test_a_credit_code_may_be_left_out_and_is_kept_in_one_spelling(
    typed: str | None, kept: str | None
) -> None:
    assert employers.employer_code(typed) == kept


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("91350100M000100Y4", "18 位"),
        ("91350100M000100Y433", "18 位"),
        ("91350100O000100Y43", "18 位"),
        ("91350100I000100Y43", "18 位"),
        ("91350100S000100Y43", "18 位"),
        ("91350100V000100Y43", "18 位"),
        ("91350100Z000100Y43", "18 位"),
        ("91350100M000100Y44", "校验不通过"),
        ("19350100M000100Y43", "校验不通过"),
    ],
)
def test_a_credit_code_that_cannot_be_is_refused(typed: str, reason: str) -> None:
    with pytest.raises(Wrong, match=reason):
        employers.employer_code(typed)


_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"


@given(
    st.text(_ALPHABET, min_size=8, max_size=8),
    st.text(_ALPHABET, min_size=8, max_size=8),
    st.integers(0, 17),
    st.sampled_from(_ALPHABET),
)
def test_one_wrong_character_is_always_noticed(head: str, organisation: str, place: int, other: str) -> None:
    first = head + organisation + employers.organisation_check(organisation)
    code = first + employers.code_check(first)
    assert employers.employer_code(code) == code
    if code[place] == other:
        return
    with pytest.raises(Wrong):
        employers.employer_code(code[:place] + other + code[place + 1 :])


def test_a_code_whose_inner_check_alone_is_wrong_is_noticed() -> None:
    first = "91350100" + "M000100Y" + "5"  # right would be 4
    with pytest.raises(Wrong, match="校验不通过"):
        employers.employer_code(first + employers.code_check(first))
