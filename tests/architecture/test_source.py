"""The rules of the road that a parser can see, each seen failing once on a planted violation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import source_rules as rules

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ROOT / "services"
PACKAGES = ("contracts", "services", "deploy", "tests")
# Of a notice or of a stage; the chassis may say "service", "topic" and "key".
STAGE_WORDS = (
    "pre_registration", "registration", "confirmation", "payment", "notification", "site", "desk", "fee", "candidate",
    "subject_number", "specialty", "forfeit", "obligation", "fen",
)  # fmt: skip

Rule = Callable[[Path], list[str]]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The services' sources where a violation can be planted."""
    target = tmp_path / "services"
    shutil.copytree(SERVICES, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


@pytest.mark.parametrize(
    "rule",
    [
        rules.calls_only_the_chassis_may_make,
        rules.things_made_at_import,
        rules.ends_of_day_written_as_a_second,
        rules.folders_that_are_half_a_service,
        rules.files_with_names_of_their_own,
    ],
)
def test_the_services_keep_the_rule(rule: Rule) -> None:
    assert rule(SERVICES) == []


@pytest.mark.parametrize(
    ("statement", "reported"),
    [
        ("from datetime import datetime\ndef f(): return datetime.now()", "datetime.now()"),
        ("import datetime\ndef f(): return datetime.datetime.utcnow()", "datetime.utcnow()"),
        ("import time\ndef f(): time.sleep(1)", "time.sleep()"),
        ("import asyncio\nasync def f(): await asyncio.sleep(1)", "asyncio.sleep()"),
        ("from asyncio import sleep", "from asyncio import sleep"),
        ("async def f(uow): await uow.session.commit()", ".commit()"),
        ("async def f(broker): await broker.publish(b'')", ".publish()"),
        ("async def f(self): await self.producer.send('t')", ".send()"),
        ("async def f(producer): await producer.send_batch(1, 't', partition=0)", ".send_batch()"),
        ("def f(base, engine): base.metadata.create_all(engine)", ".create_all()"),
    ],
)
def test_what_only_the_chassis_may_do_is_reported_elsewhere(
    copy: Path, statement: str, reported: str
) -> None:
    _plant(copy / "payment" / "planted.py", statement)
    assert [line for line in _new(rules.calls_only_the_chassis_may_make, copy) if line.endswith(reported)]


def test_the_chassis_itself_may_commit(copy: Path) -> None:
    _plant(copy / "chassis" / "planted.py", "async def f(session): await session.commit()")
    assert _new(rules.calls_only_the_chassis_may_make, copy) == []


@pytest.mark.parametrize(
    "statement",
    [
        "engine = create_async_engine('postgresql+asyncpg://x')",
        "class A:\n    clock = SystemClock()",
        "def f(settings=Settings.of_environment()): ...",
        "if True:\n    broker = KafkaBroker('x')",
    ],
)
def test_something_made_at_import_is_reported(copy: Path, statement: str) -> None:
    _plant(copy / "payment" / "planted.py", statement)
    assert len(_new(rules.things_made_at_import, copy)) == 1


def test_something_made_inside_a_function_is_no_violation(copy: Path) -> None:
    _plant(copy / "payment" / "planted.py", "def f():\n    return create_async_engine('x')")
    assert _new(rules.things_made_at_import, copy) == []


@pytest.mark.parametrize("statement", ["END = '2024-02-08T23:59:59+08:00'", "END = time(23, 59, 59)"])
def test_the_last_second_of_a_day_is_reported(copy: Path, statement: str) -> None:
    _plant(copy / "payment" / "planted.py", statement)
    assert len(_new(rules.ends_of_day_written_as_a_second, copy)) == 1


def test_a_folder_without_an_app_is_no_service_and_is_reported(copy: Path) -> None:
    _plant(copy / "examination" / "domain.py", "")
    assert _new(rules.folders_that_are_half_a_service, copy) == ["examination: no app.py"]


def test_a_chassis_that_became_a_service_is_reported(copy: Path) -> None:
    _plant(copy / "chassis" / "app.py", "")
    assert _new(rules.folders_that_are_half_a_service, copy) == ["chassis: the chassis is no service"]


def test_a_file_with_a_name_of_its_own_is_reported(copy: Path) -> None:
    _plant(copy / "payment" / "deadlines.py", "")
    assert _new(rules.files_with_names_of_their_own, copy) == ["payment/deadlines.py"]


def test_the_chassis_names_no_stage(copy: Path) -> None:
    assert rules.words_of_stages(SERVICES / "chassis", STAGE_WORDS) == []
    _plant(copy / "chassis" / "planted.py", "def on_payment(site_id): ...")
    assert len(rules.words_of_stages(copy / "chassis", STAGE_WORDS)) == 2


def test_no_module_is_named_for_a_kind(tmp_path: Path) -> None:
    assert rules.names_that_say_nothing(ROOT, PACKAGES) == []
    _plant(tmp_path / "services" / "utils.py", "")
    assert rules.names_that_say_nothing(tmp_path, PACKAGES) == ["services/utils.py"]


def test_no_module_is_too_long_to_read(tmp_path: Path) -> None:
    assert rules.modules_too_long(ROOT, ("contracts", "services", "deploy")) == []
    _plant(tmp_path / "services" / "long.py", "x = 1\n" * (rules.LONGEST_MODULE + 1))
    assert rules.modules_too_long(tmp_path, PACKAGES) == [
        f"services/long.py: {rules.LONGEST_MODULE + 1} lines"
    ]


def _new(rule: Rule, copy: Path) -> list[str]:
    """What the rule reports of the copy and not of the services as they are."""
    before = set(rule(SERVICES))
    return [line for line in rule(copy) if line not in before]


def _plant(path: Path, source: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
