"""What the simulated carrier approves is what notification sends."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.local.sms_texts import TEMPLATES, approved_texts


def test_every_template_of_notification_is_approved_in_the_carriers_form() -> None:
    texts = approved_texts()
    assert len(texts) == len(list(TEMPLATES.glob("*/sms*.txt"))) > 0
    assert not [text for text in texts.values() if "{{" in text or "${" not in text]


def test_a_text_without_a_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "due").mkdir()
    (tmp_path / "due" / "sms.zh.txt").write_text("version: 1\n\n{{ amount }}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"due/sms\.zh\.txt names no template code"):
        approved_texts(tmp_path)
