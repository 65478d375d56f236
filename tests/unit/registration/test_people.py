"""Names, papers, phones and mail: what is taken, how it is kept, and why not."""

from __future__ import annotations

import unicodedata
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registration.domain import people
from services.registration.domain.people import Paper, Wrong
from tests.unit.registration.samples import id_number

TODAY = date(2023, 12, 5)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("张三丰", "张三丰"),
        ("  欧阳娜娜 ", "欧阳娜娜"),
        ("吉克·阿呷", "吉克·阿呷"),
        ("吉克•阿呷", "吉克·阿呷"),
        ("吉克‧阿呷", "吉克·阿呷"),
        ("吉克・阿呷", "吉克·阿呷"),
        ("吉克･阿呷", "吉克·阿呷"),
        ("吉克∙阿呷", "吉克·阿呷"),
        ("吉克⋅阿呷", "吉克·阿呷"),
        ("李㛃", "李㛃"),  # extension A
        ("陈𠮷", "陈𠮷"),  # extension B
        ("王𪩘", "王𪩘"),  # extension C
        ("刘𫝀", "刘𫝀"),  # extension D
        ("赵𫠠", "赵𫠠"),  # extension E
        ("周𬱖", "周𬱖"),  # extension F
        ("吴\U00030000", "吴\U00030000"),  # extension G
        ("郑\U00031350", "郑\U00031350"),  # extension H
        ("孙\U0002ebf0", "孙\U0002ebf0"),  # extension I, newer than this Python's tables
        ("孙\U000323b0", "孙\U000323b0"),  # extension J, newer still
        ("刘䶮", "刘䶮"),
        ("刘\ue863", "刘䶮"),  # as old office systems typed it
        ("石〇", "石〇"),
        ("Anna-Maria O’Neill", "Anna-Maria O’Neill"),
        ("José Núñez", "José Núñez"),
        ("ئالىم", "ئالىم"),
        ("一", "一"),
        ("字" * 50, "字" * 50),
    ],
)
def test_a_name_is_kept_as_typed_with_one_kind_of_middle_dot(typed: str, kept: str) -> None:
    assert people.name(typed) == kept


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "请填写姓名"),
        ("   ", "请填写姓名"),
        ("字" * 51, "不得超过 50 个字"),
        ("张3", "不能使用的字符"),
        ("张三１", "不能使用的字符"),
        ("张三😀", "不能使用的字符"),
        ("张\x00三", "不能使用的字符"),
        ("张\n三", "不能使用的字符"),
        ("张\u200b三", "不能使用的字符"),
        ("张\u202e三", "不能使用的字符"),
        ("张三<script>", "不能使用的字符"),
        ("张三（女）", "不能使用的字符"),
        ("··", "按身份证件上的姓名"),
        ("-", "按身份证件上的姓名"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_reason(typed: str, reason: str) -> None:
    with pytest.raises(Wrong, match=reason):
        people.name(typed)


def test_a_compatibility_ideograph_stays_the_character_on_the_paper() -> None:
    typed = "李\uf9dc"
    assert unicodedata.normalize("NFC", typed) != typed, "the trap is real"
    assert people.name(typed) == typed


def test_decomposed_letters_stay_as_typed() -> None:
    assert people.name("Jose\u0301") == "Jose\u0301"


@given(st.text(alphabet=st.characters(min_codepoint=0x4E00, max_codepoint=0x9FA5), min_size=1, max_size=50))
def test_every_name_of_common_characters_is_taken_unchanged(name: str) -> None:
    assert people.name(name) == name


@given(st.text(max_size=60))
def test_whatever_is_typed_is_a_name_or_wrong_and_a_kept_name_stays_itself(typed: str) -> None:
    try:
        kept = people.name(typed)
    except Wrong:
        return
    assert 1 <= len(kept) <= 50
    assert people.name(kept) == kept


def test_only_characters_of_one_old_system_are_remarked() -> None:
    assert people.has_private_use(people.name("刘\ue900"))
    assert not people.has_private_use(people.name("刘\ue863"))


@pytest.mark.parametrize("number", ["11010519491231002X", "440524188001010014"])
def test_the_check_digit_of_the_standards_own_examples(number: str) -> None:
    assert people.check_digit(number[:17]) == number[17]


@pytest.mark.parametrize(
    ("kind", "typed", "kept"),
    [
        (Paper.RESIDENT_ID, id_number(), id_number()),
        (Paper.RESIDENT_ID, "99900119900307019x", "99900119900307019X"),
        (Paper.RESIDENT_ID, "9990 0119 9003 0701 9X", "99900119900307019X"),
        (Paper.RESIDENT_ID, "９９９００１１９９００３０７０１９ｘ", "99900119900307019X"),
        (Paper.RESIDENT_ID, id_number(region="000000"), id_number(region="000000")),
        (Paper.RESIDENT_ID, id_number(date(2000, 2, 29)), id_number(date(2000, 2, 29))),
        (Paper.RESIDENT_ID, id_number(TODAY - timedelta(days=1)), id_number(TODAY - timedelta(days=1))),
        (Paper.HMT_RESIDENCE, id_number(region="999081"), id_number(region="999081")),
        (Paper.HK_MACAO_PERMIT, "h99900011", "H99900011"),
        (Paper.HK_MACAO_PERMIT, "M9990001102", "M9990001102"),
        (Paper.TAIWAN_PERMIT, "99900011", "99900011"),
        (Paper.TAIWAN_PERMIT, "9990001102(B)", "9990001102(B)"),
        (Paper.TAIWAN_PERMIT, "9990001102（b）", "9990001102(B)"),
        (Paper.TAIWAN_PERMIT, "9990001102", "9990001102"),
        (Paper.FOREIGN_PERMANENT, id_number(region="999156"), id_number(region="999156")),
        (Paper.FOREIGN_PERMANENT, "usa999900000001", "USA999900000001"),
        (Paper.OFFICER, " 军字第  9990001号 ", "军字第 9990001号"),
        (Paper.OFFICER, "南字第（99）号", "南字第(99)号"),
    ],
)
def test_a_paper_number_is_kept_in_one_spelling(kind: Paper, typed: str, kept: str) -> None:
    assert people.paper_number(kind, typed, TODAY) == kept


@pytest.mark.parametrize(
    ("kind", "typed", "reason"),
    [
        (Paper.RESIDENT_ID, "", "请填写居民身份证号码"),
        (Paper.RESIDENT_ID, "9990011990030700", "应为 18 位"),
        (Paper.RESIDENT_ID, "99900119900307019XX", "应为 18 位"),
        (Paper.RESIDENT_ID, "X9900119900307001X", "应为 18 位"),
        (Paper.RESIDENT_ID, "99900119900307001A", "应为 18 位"),
        (Paper.RESIDENT_ID, "९९९००११९९००३०७००१X", "应为 18 位"),
        (Paper.RESIDENT_ID, "999001900307001", "应为 18 位"),  # first generation, 15 digits
        (Paper.RESIDENT_ID, "999001199013070011", "出生日期不存在"),
        (Paper.RESIDENT_ID, "999001199002300011", "出生日期不存在"),
        (Paper.RESIDENT_ID, "999001190002290011", "出生日期不存在"),  # 1900 was no leap year
        (Paper.RESIDENT_ID, "999001000001010011", "出生日期不存在"),
        (Paper.RESIDENT_ID, id_number(TODAY), "出生日期不可能"),
        (Paper.RESIDENT_ID, id_number(date(2077, 1, 1)), "出生日期不可能"),
        (Paper.RESIDENT_ID, id_number(date(1899, 12, 31)), "出生日期不可能"),
        (Paper.RESIDENT_ID, "999001199003070011", "校验不通过"),
        (Paper.HMT_RESIDENCE, "999081199003070011", "校验不通过"),
        (Paper.HK_MACAO_PERMIT, "A99900011", "字母 H 或 M"),
        (Paper.HK_MACAO_PERMIT, "H9990001", "字母 H 或 M"),
        (Paper.HK_MACAO_PERMIT, "H999000110", "字母 H 或 M"),
        (Paper.TAIWAN_PERMIT, "9990001", "8 位数字"),
        (Paper.TAIWAN_PERMIT, "999000110", "8 位数字"),
        (Paper.TAIWAN_PERMIT, "T99900011", "8 位数字"),
        (Paper.FOREIGN_PERMANENT, "99915619900307001A", "应为 18 位"),
        (Paper.FOREIGN_PERMANENT, "899156199003070011", "9 开头"),
        (Paper.FOREIGN_PERMANENT, "US9999900000001", "9 开头"),
        (Paper.OFFICER, "  ", "请填写军官证号码"),
        (Paper.OFFICER, "军" * 31, "不得超过 30 个字"),
        (Paper.OFFICER, "军字\x07第1号", "控制字符"),
    ],
)
def test_a_paper_number_that_cannot_be_is_refused_with_the_reason(
    kind: Paper, typed: str, reason: str
) -> None:
    with pytest.raises(Wrong, match=reason) as refusal:
        people.paper_number(kind, typed, TODAY)
    assert not typed.strip() or typed.strip() not in str(refusal.value)


@given(
    st.dates(date(1900, 1, 1), TODAY - timedelta(days=1)),
    st.integers(0, 999),
    st.integers(0, 16),
    st.integers(1, 9),
)
def test_one_wrong_digit_is_always_noticed(born: date, order: int, place: int, by: int) -> None:
    number = id_number(born, order)
    assert people.paper_number(Paper.RESIDENT_ID, number, TODAY) == number
    digit = str((int(number[place]) + by) % 10)
    with pytest.raises(Wrong):
        people.paper_number(Paper.RESIDENT_ID, number[:place] + digit + number[place + 1 :], TODAY)


def test_an_unknown_kind_of_paper_is_answered_with_those_there_are() -> None:
    with pytest.raises(Wrong, match=r"居民身份证.*港澳台居民居住证.*军官证"):
        people.paper("passport")


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (Paper.RESIDENT_ID, "99900119900307019x", "99900119900307019X"),
        (Paper.HK_MACAO_PERMIT, "H99900011", "H9990001102"),
        (Paper.TAIWAN_PERMIT, "99900011", "9990001102(B)"),
        (Paper.OFFICER, "军字第 999号", "军字第999号"),
    ],
)
def test_two_editions_of_one_card_are_one_person(kind: Paper, one: str, other: str) -> None:
    keys = {people.identity_key(kind, people.paper_number(kind, typed, TODAY)) for typed in (one, other)}
    assert len(keys) == 1


def test_the_same_digits_on_different_papers_are_different_people() -> None:
    number = id_number()
    assert people.identity_key(Paper.RESIDENT_ID, number) != people.identity_key(Paper.HMT_RESIDENCE, number)


@pytest.mark.parametrize(
    "typed",
    [
        "13912340001",
        "+8613912340001",
        "+86 139 1234 0001",
        "139-1234-0001",
        " 139 1234 0001 ",
        "＋８６１３９１２３４０００１",
        "139–1234–0001",
    ],
)
def test_a_mobile_number_is_stored_as_eleven_digits(typed: str) -> None:
    assert people.phone(typed) == "13912340001"


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "请填写手机号码"),
        ("+86", "请填写手机号码"),
        ("12912340001", "11 位数字"),
        ("10912340001", "11 位数字"),
        ("1391234000", "11 位数字"),
        ("139123400011", "11 位数字"),
        ("0833-2495079", "11 位数字"),
        ("+85291234567", "11 位数字"),
        ("8613912340001", "11 位数字"),
        ("1391234000a", "11 位数字"),
        ("१३९१२३४०००१", "11 位数字"),
        ("13912340001,13912340002", "11 位数字"),
    ],
)
def test_what_is_no_mobile_number_is_refused(typed: str, reason: str) -> None:
    with pytest.raises(Wrong, match=reason):
        people.phone(typed)


@given(st.integers(3, 9), st.integers(0, 10**9 - 1))
def test_every_mobile_prefix_from_13_to_19_is_taken(second: int, rest: int) -> None:
    number = f"1{second}{rest:09d}"
    assert people.phone("+86 " + number) == number


@pytest.mark.parametrize(
    "typed",
    ["a@example.cn", " zhang.san+ks@mail.example.cn ", "zhang_san-1@example.test", "o'neill@example.cn"],
)
def test_a_mailbox_is_kept_as_typed_without_outer_blanks(typed: str) -> None:
    assert people.email(typed) == typed.strip()


@pytest.mark.parametrize(
    ("typed", "reason"),
    [
        ("", "请填写电子邮箱"),
        ("example.cn", "格式不正确"),
        ("@example.cn", "格式不正确"),
        ("a@", "格式不正确"),
        ("a@example", "格式不正确"),
        ("a@@example.cn", "格式不正确"),
        ("a b@example.cn", "格式不正确"),
        ("a@exa mple.cn", "格式不正确"),
        (".a@example.cn", "格式不正确"),
        ("a.@example.cn", "格式不正确"),
        ("a..b@example.cn", "格式不正确"),
        ("a@-example.cn", "格式不正确"),
        ("a@example..cn", "格式不正确"),
        ("a@127.0.0.1", "格式不正确"),
        ("张三@example.cn", "格式不正确"),
        ("a@example.cn\r\nBcc: b@example.cn", "格式不正确"),
        ("a" * 65 + "@example.cn", "格式不正确"),
        ("a@" + "b" * 64 + ".cn", "格式不正确"),
        ("a@" + ".".join(["b" * 60] * 5), "格式不正确"),
    ],
)
def test_what_is_no_mailbox_is_refused(typed: str, reason: str) -> None:
    with pytest.raises(Wrong, match=reason):
        people.email(typed)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (people.masked_name("张三"), "张*"),
        (people.masked_name("张三丰"), "张**"),
        (people.masked_name("阿依古丽·艾山"), "阿**"),
        (people.masked_name("一"), "一*"),
        (people.masked_number("99900119900307019X"), "999***********019X"),
        (people.masked_number("H99900011"), "H99**0011"),
        (people.masked_number("99900011"), "9******1"),
        (people.masked_number("99"), "**"),
        (people.masked_phone("13912341234"), "139****1234"),
        (people.masked_email("zhang@example.cn"), "z***@example.cn"),
    ],
)
def test_what_is_shown_does_not_give_the_person_away(shown: str, expected: str) -> None:
    assert shown == expected
