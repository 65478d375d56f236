"""Who a candidate is and how to reach them: name, paper of identity, phone, mail.

Each check takes what was typed and gives what is stored, or raises Wrong with the sentence the candidate reads.
Knows nothing of storage: what is encrypted, indexed or masked for whom is decided by the callers.
"""

import re
import unicodedata
from datetime import date
from enum import StrEnum
from typing import Final


class Wrong(ValueError):
    """One field cannot be accepted; the text is the candidate's and never repeats what they typed."""


class Paper(StrEnum):
    RESIDENT_ID = "resident-id"  # 居民身份证
    HMT_RESIDENCE = "hk-macao-taiwan-residence"  # 港澳台居民居住证
    HK_MACAO_PERMIT = "hk-macao-permit"  # 港澳居民来往内地通行证
    TAIWAN_PERMIT = "taiwan-permit"  # 台湾居民来往大陆通行证（台胞证）
    FOREIGN_PERMANENT = "foreign-permanent"  # 外国人永久居留身份证
    OFFICER = "officer"  # 军官证


PAPER_NAMES: Final = {
    Paper.RESIDENT_ID: "居民身份证",
    Paper.HMT_RESIDENCE: "港澳台居民居住证",
    Paper.HK_MACAO_PERMIT: "港澳居民来往内地通行证",
    Paper.TAIWAN_PERMIT: "台湾居民来往大陆通行证",
    Paper.FOREIGN_PERMANENT: "外国人永久居留身份证",
    Paper.OFFICER: "军官证",
}

NAME_LONGEST: Final = 50
OFFICER_LONGEST: Final = 30

# Input methods give seven different dots for the one between the parts of an Yi, Tibetan or Uyghur name.
# U+00B7 is the one that GB 18030 and the police register have.
MIDDLE_DOT: Final = "\u00b7"
_DOTS: Final = dict.fromkeys(map(ord, "•‧・･∙⋅"), MIDDLE_DOT)

# Characters that old office systems typed at private-use places before Unicode had them (GB 18030-2000 → later).
# A name with one of them would not match the same person's name on any other paper.
_PRIVATE_USE: Final = {
    0xE816: "\U00020087",
    0xE817: "\U00020089",
    0xE818: "\U000200cc",
    0xE81E: "\u9fb4",
    0xE826: "\u9fb5",
    0xE82B: "\u9fb6",
    0xE82C: "\u9fb7",
    0xE831: "\U000215d7",
    0xE832: "\u9fb8",
    0xE83B: "\U0002298f",
    0xE843: "\u9fb9",
    0xE854: "\u9fba",
    0xE855: "\U000241fe",
    0xE863: "\u4dae",
    0xE864: "\u9fbb",
}
# Blocks newer than the Unicode tables of the Python that runs us are letters all the same (extensions B to J).
_IDEOGRAPHIC_PLANES: Final = range(0x20000, 0x3FFFE)
_NAME_PUNCTUATION: Final = frozenset(MIDDLE_DOT + " .-'’")


def name(typed: str) -> str:
    """What was typed, except the outer blanks and the kind of middle dot.

    No Unicode normalisation: NFC and NFKC turn compatibility ideographs such as U+F9DC into another character,
    and the name would no longer be the one on the paper.
    """
    kept = typed.strip().translate(_DOTS).translate(_PRIVATE_USE)
    if not kept:
        raise Wrong("请填写姓名。")
    if len(kept) > NAME_LONGEST:
        raise Wrong(f"姓名不得超过 {NAME_LONGEST} 个字。")
    if not all(_belongs_in_a_name(character) for character in kept):
        raise Wrong("姓名中有不能使用的字符（数字、表情或符号），请按身份证件上的姓名填写。")
    if not any(character not in _NAME_PUNCTUATION for character in kept):
        raise Wrong("请按身份证件上的姓名填写。")
    return kept


def has_private_use(kept: str) -> bool:
    """True for a name with a character that only one old system can show: the desk has to look at the paper."""
    return any(unicodedata.category(character) == "Co" for character in kept)


def _belongs_in_a_name(character: str) -> bool:
    return (
        unicodedata.category(character)[0] in "LM"
        or ord(character) in _IDEOGRAPHIC_PLANES
        or character in _NAME_PUNCTUATION
        or character == "〇"  # a numeral to Unicode, a given name to people
        or unicodedata.category(character) == "Co"
    )


_FULL_WIDTH: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_BLANKS: Final = re.compile(r"\s+")
_WEIGHTS: Final = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_DIGITS: Final = "10X98765432"
_EIGHTEEN: Final = re.compile(r"[0-9]{17}[0-9X]")
_HK_MACAO: Final = re.compile(r"[HM][0-9]{8}(?:[0-9]{2})?")
_TAIWAN: Final = re.compile(r"[0-9]{8}|[0-9]{10}(?:\(?[A-Z]\)?)?")
_FOREIGN_OLD: Final = re.compile(r"[A-Z]{3}[0-9]{12}")


def check_digit(first_seventeen: str) -> str:
    """GB 11643, which is ISO 7064 MOD 11-2."""
    total = sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, first_seventeen, strict=True))
    return _CHECK_DIGITS[total % 11]


def paper(typed: str) -> Paper:
    try:
        return Paper(typed)
    except ValueError:
        raise Wrong("请选择证件类型：" + "、".join(PAPER_NAMES.values()) + "。") from None


def paper_number(kind: Paper, typed: str, today: date) -> str:
    number = typed.translate(_FULL_WIDTH)
    if kind is Paper.OFFICER:
        number = _BLANKS.sub(" ", number.strip())
        if not number:
            raise Wrong("请填写军官证号码。")
        if len(number) > OFFICER_LONGEST or not number.isprintable():
            raise Wrong(f"军官证号码不得超过 {OFFICER_LONGEST} 个字，且不得含有控制字符。")
        return number
    number = _BLANKS.sub("", number).upper()
    if not number:
        raise Wrong(f"请填写{PAPER_NAMES[kind]}号码。")
    match kind:
        case Paper.RESIDENT_ID | Paper.HMT_RESIDENCE:
            _eighteen_digits(kind, number, today)
        case Paper.HK_MACAO_PERMIT:
            if not _HK_MACAO.fullmatch(number):
                raise Wrong("港澳居民来往内地通行证号码应为字母 H 或 M 加 8 位数字（旧证为 10 位数字）。")
        case Paper.TAIWAN_PERMIT:
            if not _TAIWAN.fullmatch(number):
                raise Wrong("台湾居民来往大陆通行证号码应为 8 位数字（旧证为 10 位数字加括号内字母）。")
        case Paper.FOREIGN_PERMANENT:
            if number.startswith("9") and len(number) == 18:
                _eighteen_digits(kind, number, today)
            elif not _FOREIGN_OLD.fullmatch(number):
                raise Wrong("外国人永久居留身份证号码应为 9 开头的 18 位（旧证为 3 位字母加 12 位数字）。")
    return number


def _eighteen_digits(kind: Paper, number: str, today: date) -> None:
    """Region codes are not looked at: withdrawn ones stay valid for life and new ones appear every year."""
    if not _EIGHTEEN.fullmatch(number):
        raise Wrong(f"{PAPER_NAMES[kind]}号码应为 18 位数字，末位可以是 X。")
    try:
        born = date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        raise Wrong(f"{PAPER_NAMES[kind]}号码中的出生日期不存在，请核对第 7 至 14 位。") from None
    if born >= today or born.year < 1900:
        raise Wrong(f"{PAPER_NAMES[kind]}号码中的出生日期不可能，请核对第 7 至 14 位。")
    if check_digit(number[:17]) != number[17]:
        raise Wrong(f"{PAPER_NAMES[kind]}号码校验不通过，请逐位核对。")


def identity_key(kind: Paper, number: str) -> str:
    """The text whose keyed hash is unique per cycle: one person, one key, whichever edition of the card they hold.

    The last two digits of the older permits count the editions of the same person's card.
    """
    match kind:
        case Paper.HK_MACAO_PERMIT:
            number = number[:9]
        case Paper.TAIWAN_PERMIT:
            number = number[:8]
        case Paper.OFFICER:
            number = number.replace(" ", "").upper()
        case _:
            pass
    return f"{kind.value}:{number}"


_MOBILE: Final = re.compile(r"1[3-9][0-9]{9}")
_PHONE_FILLING: Final = re.compile(r"[\s\-‐‑–—]+")
_MAIL_LOCAL: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_MAIL_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def phone(typed: str) -> str:
    # 「联系电话务必准确畅通。」
    number = _PHONE_FILLING.sub("", typed.translate(_FULL_WIDTH)).removeprefix("+86")
    if not number:
        raise Wrong("请填写手机号码。")
    if not _MOBILE.fullmatch(number):
        raise Wrong("手机号码应为 1 开头、第二位 3 至 9 的 11 位数字，请填写能接收短信的号码。")
    return number


def email(typed: str) -> str:
    address = typed.strip()
    if not address:
        raise Wrong("请填写电子邮箱。")
    local, at_sign, host = address.rpartition("@")
    labels = host.split(".")
    if (
        not at_sign
        or len(address) > 254
        or len(local) > 64
        or not _MAIL_LOCAL.fullmatch(local)
        or len(labels) < 2
        or not all(_MAIL_LABEL.fullmatch(label) for label in labels)
        or labels[-1].isdigit()
    ):
        raise Wrong("电子邮箱格式不正确，请填写形如 name@example.cn 的地址。")
    return address


def masked_name(kept: str) -> str:
    return kept[0] + "*" * min(max(len(kept) - 1, 1), 2)


def masked_number(number: str) -> str:
    if len(number) < 9:
        return number[:1] + "*" * (len(number) - 2) + number[-1:] if len(number) > 2 else "*" * len(number)
    return number[:3] + "*" * (len(number) - 7) + number[-4:]


def masked_phone(number: str) -> str:
    return f"{number[:3]}****{number[-4:]}"


def masked_email(address: str) -> str:
    local, _, host = address.rpartition("@")
    return f"{local[0]}***@{host}"
