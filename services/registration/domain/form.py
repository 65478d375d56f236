"""The registration form: every field checked at once, so that nobody corrects one mistake only to be told the next."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypeVar

from contracts.cycle import Cycle, PhotoRules, Specialty
from contracts.refusals import Code, FieldError, Refused
from services.registration.domain import employers, people
from services.registration.domain.people import Paper, Wrong
from services.registration.domain.photo import Photo, photo, too_many_bytes

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """What somebody sent, unchecked; None where nothing stands."""

    name: str | None = None
    id_type: str | None = None
    id_number: str | None = None
    phone: str | None = None
    email: str | None = None
    employer: str | None = None
    employer_code: str | None = None
    site_id: str | None = None
    specialty_code: str | None = None
    subjects: Sequence[int] | None = None
    returning: bool | None = None
    photo: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Person:
    name: str
    id_type: Paper
    id_number: str
    phone: str
    email: str
    employer: str
    employer_code: str | None

    def __repr__(self) -> str:
        return "Person(…)"  # may stand in a traceback


@dataclass(frozen=True, slots=True)
class Choice:
    """What is applied for, and at which desk it will be confirmed."""

    site_id: str
    specialty_code: str
    level: str
    subjects: tuple[int, ...]
    returning: bool


@dataclass(frozen=True, slots=True)
class Form:
    person: Person
    choice: Choice
    photo: Photo


@dataclass(frozen=True, slots=True, repr=False)
class Changes:
    """What an amendment changes; None where it says nothing. `fields` are their names, for the event."""

    fields: tuple[str, ...]
    choice: Choice
    name: str | None
    phone: str | None
    email: str | None
    employer: str | None
    employer_code: str | None
    photo: Photo | None

    def __repr__(self) -> str:
        return f"Changes({', '.join(self.fields)})"

    @property
    def touch_contact(self) -> bool:
        return "phone" in self.fields or "email" in self.fields


REMARKS: Final = {
    "photo-grey": "照片为黑白，公告要求彩色证件照，请报名点核对。",
    "name-private-use": "姓名中有系统造字，请报名点对照身份证件核对。",
}


def remarks(name: str | None, picture: Photo | None, before: Collection[str] = ()) -> list[str]:
    """What a desk has to look at itself; what is not given stays as it was remarked before."""
    found = set(before)
    if name is not None:
        found.discard("name-private-use")
        found |= {"name-private-use"} if people.has_private_use(name) else set()
    if picture is not None:
        found.discard("photo-grey")
        found |= {"photo-grey"} if picture.grey else set()
    return sorted(found)


# What a candidate may change without registering anew, in the order of the form.
CHANGEABLE: Final = (
    "name",
    "phone",
    "email",
    "employer",
    "employer_code",
    "site_id",
    "specialty_code",
    "subjects",
    "photo",
)
_WRONG: Final = "填写的内容有误，请按提示逐项修改后重新提交。"
_NOT_CHANGEABLE: Final = "提交后不能修改，如填写有误，请撤回本次报名后重新预报名。"


class _Checked:
    """Runs checks and keeps what they say against each field."""

    def __init__(self, unreadable: Mapping[str, str]) -> None:
        self.wrong = dict(unreadable)

    def field(self, name: str, check: Callable[[], T]) -> T | None:
        if name in self.wrong:
            return None
        try:
            return check()
        except Wrong as wrong:
            self.wrong[name] = str(wrong)
            return None

    def refuse(self) -> None:
        if self.wrong:
            errors = tuple(FieldError(field, reason) for field, reason in self.wrong.items())
            raise Refused(Code.INVALID, _WRONG, fields=errors)


def photo_of_any_size(rules: PhotoRules) -> Refused:
    """What is said to a form too big to be read: nothing but a photo makes one so big."""
    return Refused(Code.INVALID, _WRONG, fields=(FieldError("photo", too_many_bytes(rules)),))


def fill_in(typed: Typed, unreadable: Mapping[str, str], cycle: Cycle, at: datetime) -> Form:
    """A whole form. `unreadable` names fields that were sent but could not be read at all, with the reason.

    Raises Refused with every wrong field at once.
    """
    checked = _Checked(unreadable)
    name = checked.field("name", lambda: people.name(typed.name or ""))
    id_type = checked.field("id_type", lambda: people.paper(typed.id_type or ""))
    id_number = None
    if id_type is not None:
        kind, today = id_type, at.astimezone(cycle.zone).date()
        id_number = checked.field(
            "id_number", lambda: people.paper_number(kind, typed.id_number or "", today)
        )
    phone = checked.field("phone", lambda: people.phone(typed.phone or ""))
    email = checked.field("email", lambda: people.email(typed.email or ""))
    employer = checked.field("employer", lambda: employers.employer(typed.employer or ""))
    employer_code = checked.field("employer_code", lambda: employers.employer_code(typed.employer_code))
    choice = _choice(checked, typed, cycle)
    picture = checked.field("photo", lambda: photo(typed.photo or "", cycle.photo))
    checked.refuse()
    if (
        name is None
        or id_type is None
        or id_number is None
        or phone is None
        or email is None
        or employer is None
        or choice is None
        or picture is None
    ):
        raise AssertionError("a field was neither accepted nor refused")
    person = Person(name, id_type, id_number, phone, email, employer, employer_code)
    return Form(person, choice, picture)


def amend(
    typed: Typed, given: Collection[str], unreadable: Mapping[str, str], current: Choice, cycle: Cycle
) -> Changes:
    """The fields that are given, checked against what stays. Raises Refused with every wrong field at once."""
    checked = _Checked(
        {name: reason for name, reason in unreadable.items() if name in CHANGEABLE}
        | {name: _NOT_CHANGEABLE for name in given if name not in CHANGEABLE}
    )
    if not given:
        raise Refused(Code.INVALID, "没有收到要修改的内容，申报表未变，仍然有效。")

    def optional(field: str, check: Callable[[], T]) -> T | None:
        return checked.field(field, check) if field in given else None

    name = optional("name", lambda: people.name(typed.name or ""))
    phone = optional("phone", lambda: people.phone(typed.phone or ""))
    email = optional("email", lambda: people.email(typed.email or ""))
    employer = optional("employer", lambda: employers.employer(typed.employer or ""))
    employer_code = optional("employer_code", lambda: employers.employer_code(typed.employer_code))
    wanted = replace(
        typed,
        site_id=typed.site_id if "site_id" in given else current.site_id,
        specialty_code=typed.specialty_code if "specialty_code" in given else current.specialty_code,
        subjects=typed.subjects if "subjects" in given else current.subjects,
        returning=current.returning,
    )
    choice = _choice(checked, wanted, cycle)
    picture = optional("photo", lambda: photo(typed.photo or "", cycle.photo))
    checked.refuse()
    if choice is None:
        raise AssertionError("a choice was neither accepted nor refused")
    fields = tuple(field for field in CHANGEABLE if field in given)
    return Changes(fields, choice, name, phone, email, employer, employer_code, picture)


def _choice(checked: _Checked, typed: Typed, cycle: Cycle) -> Choice | None:
    site_id = checked.field("site_id", lambda: _site(typed.site_id, cycle))
    specialty = checked.field("specialty_code", lambda: _specialty(typed.specialty_code, cycle))
    returning = checked.field("returning", lambda: _returning(typed.returning))
    subjects = checked.field("subjects", lambda: _subjects(typed.subjects, cycle))
    if subjects is not None and specialty is not None and returning is not None:
        kind, again, numbers = specialty, returning, subjects
        checked.field("subjects", lambda: _enough(numbers, kind, again, cycle))
    if site_id is None or specialty is None or subjects is None or returning is None:
        return None
    return Choice(site_id, specialty.code, specialty.level, subjects, returning)


def _site(typed: str | None, cycle: Cycle) -> str:
    try:
        return cycle.site(typed or "").id
    except KeyError:
        names = "、".join(site.name for site in cycle.sites)
        raise Wrong(f"请按所属机构选择报名点：{names}。") from None


def _specialty(typed: str | None, cycle: Cycle) -> Specialty:
    try:
        return cycle.specialty(typed or "")
    except KeyError:
        raise Wrong("没有这个专业代码，请从本年度专业目录中选择报考专业。") from None


def _returning(typed: bool | None) -> bool:
    if typed is None:
        raise Wrong("请选择是否为上年度已报考同专业同级别的考生。")
    return typed


def _subjects(typed: Sequence[int] | None, cycle: Cycle) -> tuple[int, ...]:
    if not typed:
        raise Wrong("请选择报考科目。")
    numbers = tuple(sorted(typed))
    if len(set(numbers)) != len(numbers):
        raise Wrong("报考科目重复，每个科目只选一次。")
    offered = {subject.number: subject.name for subject in cycle.subjects}
    if not offered.keys() >= set(numbers):
        names = "、".join(f"{number} {name}" for number, name in offered.items())
        raise Wrong(f"报考科目只能从以下科目中选择：{names}。")
    return numbers


def _enough(numbers: tuple[int, ...], specialty: Specialty, returning: bool, cycle: Cycle) -> None:
    """A first-timer takes every subject; who returns may take the rest, where results of the level roll over."""
    if len(numbers) == len(cycle.subjects):
        return
    try:
        rule = cycle.returning_rule(specialty.level)
    except KeyError:
        raise Wrong(f"该级别的成绩不滚动，须报考全部 {len(cycle.subjects)} 个科目。") from None
    if rule.first_time_takes_all and not returning:
        raise Wrong(f"首次报考须报考全部 {len(cycle.subjects)} 个科目。")
