"""The form as a whole: every wrong field is named at once, and what is right is kept in one spelling."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.cycle import Cycle
from contracts.refusals import Code, Refused
from services.registration.domain import form as forms
from services.registration.domain.form import Changes, Choice, Form, Typed
from services.registration.domain.people import Paper
from tests.unit.registration.samples import DURING, cycle, encoded, form, jpeg

CYCLE = cycle()


def fill_in(of: Cycle = CYCLE, /, **changed: Any) -> Form:
    return forms.fill_in(Typed(**form(**changed)), {}, of, DURING)


def wrong_fields(of: Cycle = CYCLE, /, **changed: Any) -> dict[str, str]:
    with pytest.raises(Refused) as refusal:
        fill_in(of, **changed)
    assert refusal.value.code is Code.INVALID
    return {error.field: error.reason for error in refusal.value.fields}


CURRENT = Choice("shizhong", "203", "junior", (1, 2, 3, 4), returning=False)


def amend(current: Choice = CURRENT, /, **given_: Any) -> Changes:
    return forms.amend(Typed(**given_), given_.keys(), {}, current, CYCLE)


def test_a_right_form_is_taken_whole() -> None:
    taken = fill_in(phone="+86 139-1234-0001", name="吉克•阿呷", employer_code="91350100m000100y43")
    assert taken.person.name == "吉克·阿呷"
    assert taken.person.phone == "13912340001"
    assert taken.person.employer_code == "91350100M000100Y43"
    assert taken.person.id_type is Paper.RESIDENT_ID
    assert taken.choice == Choice("shizhong", "203", "junior", (1, 2, 3, 4), returning=False)
    assert taken.photo.width == 413


def test_an_empty_form_is_told_everything_that_is_missing_at_once() -> None:
    with pytest.raises(Refused) as refusal:
        forms.fill_in(Typed(), {}, CYCLE, DURING)
    assert [error.field for error in refusal.value.fields] == [
        "name",
        "id_type",
        "phone",
        "email",
        "employer",
        "site_id",
        "specialty_code",
        "returning",
        "subjects",
        "photo",
    ]


def test_every_wrong_field_has_its_own_reason() -> None:
    wrong = wrong_fields(
        name="张3",
        id_number="1",
        phone="1",
        email="1",
        employer="云溪镇中心卫生院内科",
        employer_code="1",
        site_id="chengdu",
        specialty_code="999",
        subjects=[9],
        photo="AAAA",
    )
    assert set(wrong) == {
        "name",
        "id_number",
        "phone",
        "email",
        "employer",
        "employer_code",
        "site_id",
        "specialty_code",
        "subjects",
        "photo",
    }
    assert len(set(wrong.values())) == len(wrong)
    assert all(reason.endswith("。") for reason in wrong.values())


def test_no_reason_repeats_what_was_typed() -> None:
    wrong = wrong_fields(name="秘密3", id_number="99900119900307000000", phone="1381234", email="mima@geheim")
    for typed in ("秘密3", "99900119900307000000", "1381234", "mima@geheim"):
        assert not any(typed in reason for reason in wrong.values())


def test_a_field_that_could_not_be_read_is_named_beside_those_that_are_wrong() -> None:
    with pytest.raises(Refused) as refusal:
        forms.fill_in(Typed(**form(subjects=None, phone="1")), {"subjects": "应为列表。"}, CYCLE, DURING)
    assert {error.field: error.reason for error in refusal.value.fields}.keys() == {"subjects", "phone"}


@pytest.mark.parametrize(
    ("subjects", "reason"),
    [
        ([], "请选择报考科目"),
        ([1, 1, 2, 3], "科目重复"),
        ([0, 1, 2, 3], "只能从以下科目中选择：1 基础知识"),
        ([1, 2, 3, 5], "只能从以下科目中选择"),
        ([1, 2, 3], "首次报考须报考全部 4 个科目"),
        ([4], "首次报考须报考全部 4 个科目"),
    ],
)
def test_subjects_that_cannot_be_taken_the_first_time(subjects: list[int], reason: str) -> None:
    assert reason in wrong_fields(subjects=subjects)["subjects"]


@given(st.sets(st.integers(1, 4), min_size=1))
def test_who_returns_may_take_any_of_the_subjects_a_first_timer_only_all(subjects: set[int]) -> None:
    typed = sorted(subjects, reverse=True)
    assert fill_in(subjects=typed, returning=True).choice.subjects == tuple(sorted(subjects))
    if len(subjects) < 4:
        assert "subjects" in wrong_fields(subjects=typed, returning=False)
    else:
        assert fill_in(subjects=typed).choice.subjects == (1, 2, 3, 4)


def test_where_results_of_a_level_do_not_roll_over_everybody_takes_all() -> None:
    strict = CYCLE.model_copy(
        update={"returning": tuple(rule for rule in CYCLE.returning if rule.level != "junior")}
    )
    strict.__dict__.pop("_returning", None)  # the copy brought what the original remembered
    assert "不滚动" in wrong_fields(strict, subjects=[1, 2], returning=True)["subjects"]
    assert fill_in(strict, subjects=[1, 2], returning=True, specialty_code="368").choice.subjects == (1, 2)


@pytest.mark.parametrize(
    ("code", "level"), [("101", "junior-assistant"), ("203", "junior"), ("368", "intermediate")]
)
def test_the_specialty_decides_the_level(code: str, level: str) -> None:
    assert fill_in(specialty_code=code).choice.level == level


@pytest.mark.parametrize("code", ["109", "203 ", "", "护理学"])
def test_a_specialty_that_is_not_offered_is_refused(code: str) -> None:
    assert "专业目录" in wrong_fields(specialty_code=code)["specialty_code"]


def test_a_desk_that_does_not_exist_is_answered_with_those_there_are() -> None:
    assert "峨边彝族自治县" in wrong_fields(site_id="chengdu")["site_id"]


def test_an_amendment_keeps_what_it_does_not_name() -> None:
    changes = amend(phone="13912340002")
    assert changes.fields == ("phone",)
    assert changes.phone == "13912340002"
    assert changes.touch_contact
    assert changes.choice == CURRENT
    assert [changes.name, changes.email, changes.employer, changes.photo] == [None] * 4


def test_the_fields_of_an_amendment_are_named_in_the_order_of_the_form() -> None:
    changes = amend(photo=encoded(jpeg()), subjects=[4, 3, 2, 1], name="张三")
    assert changes.fields == ("name", "subjects", "photo")
    assert not changes.touch_contact


def test_an_amendment_to_another_level_takes_its_level() -> None:
    assert amend(specialty_code="368").choice.level == "intermediate"


def test_a_returning_candidate_may_amend_to_fewer_subjects_a_first_timer_may_not() -> None:
    again = Choice("shizhong", "203", "junior", (1, 2, 3, 4), returning=True)
    assert amend(again, subjects=[3]).choice.subjects == (3,)
    with pytest.raises(Refused, match="逐项修改"):
        amend(subjects=[3])


def test_a_credit_code_may_be_taken_back() -> None:
    changes = amend(employer_code=None)
    assert changes.fields == ("employer_code",)
    assert changes.employer_code is None


@pytest.mark.parametrize("field", ["id_type", "id_number", "returning"])
def test_who_somebody_is_cannot_be_amended(field: str) -> None:
    with pytest.raises(Refused) as refusal:
        amend(**{field: form()[field]})
    (error,) = refusal.value.fields
    assert error.field == field
    assert "撤回本次报名后重新预报名" in error.reason


def test_an_amendment_of_nothing_is_refused() -> None:
    with pytest.raises(Refused, match="没有收到要修改的内容") as refusal:
        amend()
    assert refusal.value.code is Code.INVALID


def test_an_amendment_is_told_all_its_mistakes_at_once() -> None:
    with pytest.raises(Refused) as refusal:
        amend(phone="1", email="1", name="1", site_id="1", photo="")
    assert [error.field for error in refusal.value.fields] == ["name", "phone", "email", "site_id", "photo"]


def test_remarks_follow_what_they_are_about() -> None:
    grey = fill_in(photo=encoded(jpeg(mode="L")), name="刘\ue900")
    before = forms.remarks(grey.person.name, grey.photo)
    assert before == ["name-private-use", "photo-grey"]
    assert forms.remarks(None, None, before) == before
    assert forms.remarks("刘三", None, before) == ["photo-grey"]
    assert forms.remarks(None, fill_in().photo, before) == ["name-private-use"]


def test_neither_a_form_nor_a_change_shows_its_person_when_printed() -> None:
    taken = fill_in()
    shown = repr(taken) + repr(taken.person) + repr(amend(phone="13912340002", name="张三"))
    for secret in (taken.person.name, taken.person.id_number, taken.person.phone, "13912340002", "张三"):
        assert secret not in shown
