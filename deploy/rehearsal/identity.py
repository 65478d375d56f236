"""Who a person of the rehearsal is: name, ID number, phone, mail, employer and photo, invented from the seed and the
person's name in the file alone. Region codes 9990xx exist nowhere, so no number here can be anybody's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from typing import Any

from deploy.rehearsal import photos
from deploy.rehearsal.people import People

WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CHECK_DIGITS = "10X98765432"

SURNAMES = (
    "王李张刘陈杨黄赵周吴徐孙朱马胡郭林何罗郑梁谢宋唐许邓韩冯曹彭曾肖田董潘袁蔡蒋余于"
    "杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖石韦贾夏付方邹熊白孟"
)
COMPOUND_SURNAMES = ("欧阳", "上官", "司徒", "诸葛", "尉迟", "令狐")
GIVEN = (
    "婷娜静敏洁萍琳莉薇倩雯颖蓉芸茜霞燕娟艳慧玲桂芬雪梅怡佳欣悦彤萱伟强磊军洋"
    "勇杰涛超鹏辉斌刚健俊帆浩宇轩博睿翔哲楠晨曦昕珂钰铭"
)
RARE_GIVEN = ("䶮", "㛃", "𬭎", "𬱖", "𠅤", "𪩘", "喆", "堃", "犇", "翀", "赟", "淼", "昉", "燚", "頔")
YI_CLANS = ("吉克", "沙马", "阿侯", "曲比", "马海", "吉木", "阿尔", "勒格")
YI_GIVEN = ("阿呷", "拉且", "尔古", "伍果", "木乃", "史布", "子日", "古哈", "阿依", "日洛")
OTHER_GIVEN = ("卓玛·央金", "扎西·顿珠", "阿依古丽·艾山", "买买提·吐尔逊", "古丽娜尔·阿布都热依木")

PLACES = (
    "云溪",
    "青屏",
    "桐坪",
    "清水溪",
    "白岩",
    "双河口",
    "松林坝",
    "石板滩",
    "临江",
    "三江",
    "虹桥",
    "竹园",
)
HOUSES = (
    "镇中心卫生院",
    "乡卫生院",
    "街道社区卫生服务中心",
    "康复医院有限公司",
    "中医医院",
    "妇幼保健院",
    "口腔门诊部有限公司",
    "疾病预防控制中心",
    "骨科医院",
    "护理院",
)
MAIL_HOSTS = ("example.cn", "example.com.cn", "mail.example.cn")


@dataclass(frozen=True, slots=True)
class Identity:
    name: str
    id_type: str
    id_number: str
    phone: str
    email: str
    employer: str
    employer_code: str | None
    photo: str

    def secrets(self) -> dict[str, str]:
        """What may appear in no topic, log line or metric."""
        return {"name": self.name, "id_number": self.id_number, "phone": self.phone, "email": self.email}


GIVEN_FIELDS = frozenset(field.name for field in fields(Identity))


def check_digit(seventeen: str) -> str:
    return CHECK_DIGITS[
        sum(int(digit) * weight for digit, weight in zip(seventeen, WEIGHTS, strict=True)) % 11
    ]


def invent_all(people: People, seed: int) -> dict[str, Identity]:
    """By the person's name in the file. No two invented people share a number, a phone or a mailbox."""
    taken: set[str] = set()
    known: dict[str, Identity] = {}
    for person in people.persons:
        if people.first_of(person) == person.name:
            known[person.name] = _given(_invent(person.name, seed, taken), person.given)
    for person in people.persons:
        first = people.first_of(person)
        if first != person.name:
            known[person.name] = _given(known[first], person.given)
    return known


def varied(identity: Identity, changed: Mapping[str, Any]) -> Identity:
    """The identity as one step gives it: `pre-register` and `amend` may try other values."""
    return _given(identity, changed)


def _given(identity: Identity, given: Mapping[str, Any]) -> Identity:
    return replace(identity, **{key: value for key, value in given.items() if key in GIVEN_FIELDS})


def _invent(person: str, seed: int, taken: set[str]) -> Identity:
    chance = random.Random(f"{seed}:{person}")
    return Identity(
        name=_name(chance),
        id_type="resident-id",
        id_number=_unique(lambda: _id_number(chance), taken),
        phone=_unique(lambda: f"1{chance.choice('3456789')}{chance.randrange(10**9):09d}", taken),
        email=_unique(lambda: f"k{chance.randrange(36**6):x}@{chance.choice(MAIL_HOSTS)}", taken),
        employer=chance.choice(PLACES) + chance.choice(HOUSES),
        employer_code=None,
        photo=photos.album()[chance.randrange(photos.COUNT)],
    )


def _unique(draw: Any, taken: set[str]) -> str:
    while (value := str(draw())) in taken:
        pass
    taken.add(value)
    return value


def _name(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.04:
        return f"{chance.choice(YI_CLANS)}·{chance.choice(YI_GIVEN)}"
    if kind < 0.045:
        return chance.choice(OTHER_GIVEN)
    surname = chance.choice(COMPOUND_SURNAMES) if kind < 0.055 else chance.choice(SURNAMES)
    if kind < 0.08:
        return surname + chance.choice(GIVEN) + chance.choice(RARE_GIVEN)
    if kind < 0.2:
        return surname + chance.choice(GIVEN)
    return surname + chance.choice(GIVEN) + chance.choice(GIVEN)


def _id_number(chance: random.Random) -> str:
    born = date(1966, 1, 1) + timedelta(days=chance.randrange(35 * 365))
    seventeen = f"9990{chance.randint(1, 13):02d}{born:%Y%m%d}{chance.randrange(1000):03d}"
    return seventeen + check_digit(seventeen)
