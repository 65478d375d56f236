"""Why a message told nobody, as the office and the desks read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from contracts.reasons import Carrier
from services.notification.domain.calling import reason_in_words as of_sms
from services.notification.domain.life import ERASED

_OF_MAIL: Final[Mapping[str, str]] = {
    "no-address": "未留邮箱",
    "mailbox-unknown": "邮箱不存在",
    "mailbox-disabled": "邮箱已停用",
    "mailbox-full": "邮箱已满",
    "domain-unknown": "邮箱域名不存在",
    "mail-too-big": "邮件过大被拒",
    "not-reached": "邮件服务器无法送达",
    "too-late": "未能在截止前发出",
    "given-up": "多次发送失败",
}
_ERASED: Final = "本人已要求删除联系方式"


def reason_in_words(channel: Carrier, code: str) -> str:
    """Any word that is not listed is a refusal of the carrier's own."""
    if code == ERASED:
        return _ERASED
    return of_sms(code) if channel is Carrier.SMS else _OF_MAIL.get(code, "邮件被拒收")
