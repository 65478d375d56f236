"""A bad template stops the start; each rule is seen refusing once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from contracts.reasons import Carrier
from services.notification.domain.occasions import FORBIDDEN, VARIABLES, Occasion
from services.notification.domain.phrases import ZH
from services.notification.domain.words import fit, variables
from services.notification.templates.wording import TEMPLATES, TemplatesInvalid, Wording
from tests.unit.notification.stories import CYCLE

PAID_AT = "2024-02-01T02:00:00+00:00"

SMS = "version: 1\naliyun: SMS_310240118\n\n"
EMAIL = "version: 1\nsubject: 未按时缴费\n\n"
GOOD = "考生{{ tail }}：截至{{ closed }}未缴费，视为自动放弃考试，电话{{ contact }}。"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(TEMPLATES, tmp_path / "templates")
    return tmp_path / "templates"


def problem(root: Path) -> str:
    with pytest.raises(TemplatesInvalid) as caught:
        Wording.load(root)
    return str(caught.value)


def test_the_committed_templates_load(root: Path) -> None:
    assert len(list(Wording.load(root))) == len(list(root.glob("*/*.txt")))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (SMS + GOOD.replace("{{ closed }}", "{{ deadline }}"), "not known of this occasion"),
        (SMS + GOOD.replace("{{ closed }}", "{{ clsoed }}"), "not known of this occasion"),
        (SMS + GOOD.replace("{{ contact }}", "0833"), "['contact'] must be said"),
        (SMS + GOOD.replace("考生", "{{ name }}"), "['name'] is personal"),
        (SMS + GOOD + "{{ id_number }}", "['id_number'] is personal"),
        (SMS + GOOD.replace("考生", "您好，考生"), "begins with '考生{{ tail }}：'"),
        (SMS + "【卫考】" + GOOD, "adds the signature"),
        (SMS + GOOD + "\n第二行", "one line"),
        (SMS + GOOD + "字" * 500, "longer than 500"),
        (SMS + GOOD + "{% if tail %}有{% endif %}", "no if"),
        (SMS + GOOD + "{{ tail|upper }}", "no filter"),
        (SMS + GOOD + "{{ tail.__class__ }}", "no getattr"),
        (SMS + GOOD + "{{ 1 + 1 }}", "no add"),
        (SMS + GOOD + "{{ tail", "line 1 of the text"),
        (SMS + GOOD + "{% for x in remedies %}{{ x }}{% endfor %}", "a loop is for an email"),
        ("version: 1\n\n" + GOOD, "lacks ['aliyun']"),
        ("version: 0\naliyun: SMS_310240118\n\n" + GOOD, "version is not"),
        ("version: 1\naliyun: 310240118\n\n" + GOOD, "not a template code"),
        ("version: 1\naliyun: SMS_310240117\n\n" + GOOD, "the code of another text"),
        ("version: 1\nsubject: x\naliyun: SMS_310240118\n\n" + GOOD, "the head knows"),
        (SMS, "no text after the head"),
    ],
)
def test_a_bad_sms_is_refused(root: Path, content: str, says: str) -> None:
    (root / "expired/sms.zh.txt").write_text(content, encoding="utf-8")
    assert says in problem(root)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (EMAIL + GOOD + "{{ name }}", "is personal"),
        (EMAIL + GOOD + "{{ reasons }}", "not known of this occasion"),
        (EMAIL + GOOD + "{% for x in contact %}{{ x }}{% endfor %}", "over a list"),
        ("version: 1\n\n" + GOOD, "lacks ['subject']"),
    ],
)
def test_a_bad_email_is_refused(root: Path, content: str, says: str) -> None:
    (root / "expired/email.zh.txt").write_text(content, encoding="utf-8")
    assert says in problem(root)


def test_a_list_is_not_written_as_it_is(root: Path) -> None:
    path = root / "returned/email.zh.txt"
    path.write_text(path.read_text(encoding="utf-8") + "{{ remedies }}", encoding="utf-8")
    assert "is a list" in problem(root)


@pytest.mark.parametrize("channel", Carrier)
def test_a_deadline_without_its_consequence_is_refused(root: Path, channel: Carrier) -> None:
    path = root / f"due/{channel}.zh.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("逾期", "过后"), encoding="utf-8")
    assert "what happens if it is missed" in problem(root)


def test_a_missing_file_is_named(root: Path) -> None:
    (root / "lapsed/sms.again.zh.txt").unlink()
    assert "lapsed/sms.again.zh.txt: missing" in problem(root)


def test_a_file_that_is_refused_is_not_missing_as_well(root: Path) -> None:
    (root / "lapsed/sms.zh.txt").write_text(SMS + GOOD + "{{ name }}", encoding="utf-8")
    assert problem(root) == "lapsed/sms.zh.txt: ['name'] is personal: no message may say it"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lapsed/fax.zh.txt", "not named"),
        ("lapsed/sms.maybe.zh.txt", "no variant 'maybe'"),
        ("forfeited/sms.zh.txt", "no occasion"),
    ],
)
def test_a_file_nobody_would_ever_send_is_refused(root: Path, name: str, says: str) -> None:
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(SMS + GOOD, encoding="utf-8")
    assert says in problem(root)


def test_what_a_language_lacks_is_said_and_sent_in_chinese(root: Path) -> None:
    (root / "lapsed/sms.en.txt").unlink()
    wording = Wording.load(root)
    assert wording.lacking("en") == ["lapsed/sms.en.txt"]
    assert wording.lacking("zh") == []
    assert wording.phrases(Carrier.SMS, Occasion.LAPSED, "", "en").language == "zh"
    assert wording.phrases(Carrier.SMS, Occasion.LAPSED, "", "ii").language == "zh"
    assert wording.phrases(Carrier.EMAIL, Occasion.LAPSED, "", "en").language == "en"


def test_a_language_is_its_words_and_its_texts(root: Path) -> None:
    """Yi, say: a file of words and one text are enough to begin with."""
    words = (root / "words.en.toml").read_text(encoding="utf-8")
    (root / "words.ii.toml").write_text(
        words.replace('"Candidate {{ tail }}: "', '"ꀋꂯ{{ tail }}："'), encoding="utf-8"
    )
    (root / "paid/sms.ii.txt").write_text(
        "version: 1\naliyun: SMS_310249999\n\nꀋꂯ{{ tail }}：{{ amount }} {{ paid }}", encoding="utf-8"
    )
    wording = Wording.load(root)
    said = variables(
        Occasion.PAID, {"amount_fen": 28_000, "paid_at": PAID_AT}, "4321", CYCLE, wording.languages["ii"]
    )
    text = wording.render(Carrier.SMS, Occasion.PAID, "", said, "ii")
    assert (text.body, text.language) == ("ꀋꂯ4321：CNY 280 10:00 Thu 1 Feb 2024 Beijing time", "ii")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[zones]", "[zone]"), "not the words that are needed: ['zone', 'zones']"),
        (('"unpaid"', '"unpaid'), "words.en.toml: "),
        (('photo = "photo"\n', ""), "words.en.toml: reasons.photo"),
        (('"Sat", "Sun"', '"Weekend"'), "weekdays are seven"),
    ],
)
def test_words_that_are_wrong_are_refused(root: Path, change: tuple[str, str], says: str) -> None:
    path = root / "words.en.toml"
    content = path.read_text(encoding="utf-8")
    # One of the two keys only: the other is a value.
    before, after = ('unpaid = "the', "unpaid = the") if change[0] == '"unpaid"' else change
    assert before in content
    path.write_text(content.replace(before, after, 1), encoding="utf-8")
    assert says in problem(root)


def test_a_text_in_a_language_without_words_is_refused(root: Path) -> None:
    (root / "words.en.toml").unlink()
    assert "paid/sms.en.txt: there is no words.en.toml" in problem(root)


@pytest.mark.parametrize(
    "number", ["990101199001011234", "99010119900101123X", "13912345678", "990101900101123"]
)
@pytest.mark.parametrize("channel", Carrier)
def test_somebodys_number_in_a_text_is_refused(root: Path, channel: Carrier, number: str) -> None:
    path = root / f"expired/{channel}.zh.txt"
    path.write_text(path.read_text(encoding="utf-8").rstrip() + f"问{number}", encoding="utf-8")
    assert "may be somebody's own" in problem(root)


def test_a_long_name_is_cut_short_in_an_sms_at_its_last_whole_member() -> None:
    desk = CYCLE.site("municipal").name
    assert len(desk) > VARIABLES["desk"].longest
    assert fit(desk, 35, ZH) == "武警四川省总队医院，解放军第42医院，乐山市精神病医院等"
    assert fit(desk, len(desk), ZH) == desk
    assert fit("字" * 40, 35, ZH) == "字" * 34 + "等"
    assert fit("one, two, three", 14, Wording.load().languages["en"]) == "one and more"


def test_all_problems_are_said_at_once(root: Path) -> None:
    (root / "paid/sms.zh.txt").unlink()
    (root / "due/email.zh.txt").write_text("", encoding="utf-8")
    assert {line.partition("/")[0] for line in problem(root).splitlines()} == {"paid", "due"}


def test_facts_that_lack_what_the_text_says_are_an_error() -> None:
    with pytest.raises(UndefinedError):
        Wording.load().render(Carrier.SMS, Occasion.PAID, "", {"tail": "4321"})


def test_nothing_personal_has_a_variable() -> None:
    assert not FORBIDDEN & set(VARIABLES)
