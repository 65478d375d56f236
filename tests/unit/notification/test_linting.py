"""Which carrier refuses what: table and code say the same, each rule is seen refusing, our texts pass where they are sent."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.templates.app import app
from services.notification.domain.parts import parts, parts_abroad
from services.notification.domain.phrases import ZH
from services.notification.templates.linting import as_carriers_see, judge
from services.notification.templates.rules import CARRIERS, RULES, Level
from services.notification.templates.wording import TEMPLATES, Wording

TABLE = Path(__file__).parents[3] / "docs" / "carrier-rules.md"
ROW = re.compile(r"\| (\w+) \| (\w+) \| (\w+) \| (.+) \| \[page\]\((https://\S+)\) \|")
BY_ID = {rule.id: rule for rule in RULES}
WORDING = Wording.load()
RUN = CliRunner()

# For each rule a text that breaks it, and one that is nearly the same and does not.
BREAKS = {
    "A1": ("字" * 480 + "{{ deadline }}", "字" * 440 + "{{ deadline }}"),
    "A2": ("【通知】到场", "“通知”到场"),
    "A3": ("[通知]到场", "到[场]地"),
    "A4": ("① 带材料", "一、带材料"),
    "A5": ("請帶證件", "请带证件"),
    "A6": (None, "在{{ deadline }}到"),
    "A7": ("{{ phone }}或{{ phone }}", "{{ phone }}或{{ contact }}"),
    "A8": ("到{{ desk }}{{ place }}", "到{{ desk }}的{{ place }}"),
    "A9": ("问13912345678", "问0833-2495079"),
    "A10": ("问{{ phone }}、{{ contact }}、0833-2495079", "问{{ phone }}、{{ contact }}"),
    "A11": (None, "问{{ phone }}"),
    "A12": ("拒收请回复R", "请回复报名点"),
    "A13": ("催款通知", "缴款通知"),
    "A14": ("登录{{ website }}", "登录www.example.cn办理"),
    "A15": (None, "问{{ contact }}"),
    "T1": ("字" * 480 + "{{ deadline }}", "字" * 440 + "{{ deadline }}"),
    "T2": ("【通知】到场", "“通知”到场"),
    "T3": ("应缴¥280", "应缴280元"),
    "T4": ("{{ desk }}，{{ place }}", "在{{ desk }}"),
    "T5": ("登录www.{{ desk }}.cn", "登录www.example.cn"),
    "T6": ("中奖通知", "退回通知"),
    "T7": ("考试通知", "通知"),
    "H1": ("字" * 501, "字" * 400),
    "H2": ("【通知】到场", "“通知”到场"),
    "H3": ("带[材料]", "带材料"),
    "H4": ("，".join(["{{ desk }}"] * 21), "，".join(["{{ desk }}"] * 20)),
    "H5": ("到{{ desk }} {{ place }}", "到{{ desk }}的{{ place }}"),
    "H6": ("到{{ desk }}", "表为{{ form }}"),
    "H7": ("在{{ deadline }}", "还有{{ left }}"),
    "H8": ("登录{{ website }}", "登录www.example.cn"),
    "H9": ("请按时缴费", "请按时到场"),
    "H10": ("医疗通知", "通知"),
    "H11": (None, "原因{{ reasons }}"),
    "H12": (None, "问{{ phone }}"),
    "H13": ("考试通知", "通知"),
    "B1": ("字" * 601, "字" * 500),
    "B2": ("到[场]", "到场"),
    "B3": ("●带材料", "带材料"),
    "B4": ("{{ desk }}，{{ place }}", "在{{ desk }}"),
    "B5": ("贷款通知", "退款通知"),
    "B6": ("逾期作废", "过期作废"),
}
# What no template of ours can hold, because its variables are declared otherwise: tried on a value of another kind.
VALUES = {
    "A6": ("desk", "字" * 36),
    "A11": ("phone", "0833转8"),
    "H11": ("why", "因为。"),
    "H12": ("phone", "0833-242-"),
}


def test_the_table_and_the_code_are_the_same() -> None:
    rows = [
        match.groups()
        for line in TABLE.read_text(encoding="utf-8").splitlines()
        if (match := ROW.fullmatch(line))
    ]
    assert rows == [(rule.id, rule.carrier, str(rule.level), rule.what, rule.source) for rule in RULES]
    assert len(BY_ID) == len(RULES)
    assert {rule.carrier for rule in RULES} == set(CARRIERS)


@pytest.mark.parametrize("name", BY_ID)
def test_each_rule_is_seen_refusing_and_passing(name: str) -> None:
    broken, kept = BREAKS[name]
    check = BY_ID[name].check
    assert check(as_carriers_see(kept, ZH)) is None
    if broken is not None:
        assert check(as_carriers_see(broken, ZH))
    elif name in VALUES:
        variable, value = VALUES[name]
        sms = as_carriers_see(f"在{{{{ {variable} }}}}", ZH)
        assert check(type(sms)(sms.source, {**sms.worst, variable: value}, sms.signature))
    else:
        sms = as_carriers_see("问{{ contact }}", ZH)
        assert check(type(sms)("问{{ mobile }}", sms.worst, sms.signature))


@pytest.mark.parametrize("carrier", ["aliyun", "tencent"])
def test_every_text_of_ours_is_taken_where_it_is_sent(carrier: str) -> None:
    judged = list(judge(WORDING, [carrier]))
    refused = [v for one in judged for v in one.verdicts if v.rule.level is Level.REFUSES]
    assert len(judged) == len(WORDING.approved(carrier))
    assert refused == []


def test_huawei_would_refuse_whatever_asks_for_payment() -> None:
    refused = {
        one.file.partition(".")[0].removesuffix("/sms")
        for one in judge(WORDING, ["huawei"])
        if any(verdict.rule.id == "H9" for verdict in one.verdicts)
    }
    assert {"due", "closing-soon", "approved", "payment-window-moved"} <= refused
    assert "returned" not in refused


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_text_at_its_longest_is_known_in_parts(language: str) -> None:
    longest = {one.file: one.parts for one in judge(WORDING) if one.key[3] == language}
    assert max(longest.values()) <= {"zh": 4, "en": 6}[language], longest


@pytest.mark.parametrize(
    ("text", "here", "abroad"),
    [
        ("x" * 70, 1, 1), ("x" * 71, 2, 1), ("x" * 160, 3, 1), ("x" * 161, 3, 2), ("x" * 306, 5, 2), ("x" * 307, 5, 3),
        ("[" * 80, 2, 1), ("[" * 81, 2, 2), ("x" * 160 + "字", 3, 3), ("字" * 70, 1, 1), ("字" * 71, 2, 2),
    ],
)  # fmt: skip
def test_parts_at_home_and_abroad(text: str, here: int, abroad: int) -> None:
    assert (parts(text), parts_abroad(text)) == (here, abroad)


# --- the command


def test_lint_says_who_refuses_what_and_passes_with_the_carriers_in_use() -> None:
    done = RUN.invoke(app, ["lint"])
    assert done.exit_code == 0, done.output
    assert "due/sms.zh.txt: huawei refuses, H9" in done.output
    assert "aliyun: takes 44 of 44" in done.output


def test_lint_fails_with_a_carrier_that_refuses() -> None:
    done = RUN.invoke(app, ["lint", "--carrier", "huawei"])
    assert done.exit_code == 1
    assert "tencent" not in done.output


def test_lint_fails_with_a_text_that_a_carrier_in_use_refuses(tmp_path: Path) -> None:
    root = tmp_path / "templates"
    shutil.copytree(TEMPLATES, root)
    path = root / "paid/sms.zh.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("报名完成", "報名完成"), encoding="utf-8")
    done = RUN.invoke(app, ["lint", "--templates", str(root)])
    assert done.exit_code == 1
    assert "paid/sms.zh.txt: aliyun refuses, A5: no traditional characters; has 報" in done.output
    path.write_text("version: 1\n\n", encoding="utf-8")
    done = RUN.invoke(app, ["lint", "--templates", str(root)])
    assert done.exit_code == 2
    assert RUN.invoke(app, ["lint", "--carrier", "pigeon"]).exit_code == 2


def test_the_preview_shows_every_text_and_asks_nobody(tmp_path: Path) -> None:
    target = tmp_path / "page" / "texts.html"
    done = RUN.invoke(app, ["preview", "--to", str(target)])
    assert done.exit_code == 0, done.output
    page = target.read_text(encoding="utf-8")
    assert page.count('class="bubble"') == page.count("<iframe sandbox") == 44
    assert page.count("huawei · 拒绝") == 42
    assert "aliyun · 拒绝" not in page
    for word in ("http:", "https:", "<script", "src=", "url(", "@import", "{{"):
        assert word not in page
    # The bubble is what goes out, character by character.
    assert "考生4321：应缴考试费280元。请自2024年1月29日（星期一）0时（北京时间）起" in page


def test_the_preview_of_texts_that_do_not_load_is_none(tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    done = RUN.invoke(
        app, ["preview", "--to", str(tmp_path / "x.html"), "--templates", str(tmp_path / "templates")]
    )
    assert done.exit_code == 2
    assert not (tmp_path / "x.html").exists()
