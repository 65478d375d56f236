"""How a decision of the office is refused: the code for programs, the sentence for whoever reads it."""

from __future__ import annotations

from typing import Final

from contracts.refusals import Code, FieldError, Json, Refused
from services.payment.domain.decision import (
    CloseNotAhead,
    DecidedAlready,
    DecisionPending,
    DeskUnknown,
    NotForfeited,
    NothingMoves,
    OwnDecision,
    TooManyWouldFall,
)
from services.payment.handlers.deciding import NoSuchDecision, NoSuchSite

# What the office is told, in the language it reads: Chinese, or English to whoever asks for that first.
SENTENCES: Final[tuple[tuple[type[Exception], Code, str, str], ...]] = (
    (
        OwnDecision,
        Code.FORBIDDEN,
        "提出人不能自己批准或驳回：请由考试办公室另一人办理。",
        "Whoever asked for it cannot decide it: another person of the office has to.",
    ),
    (
        DecidedAlready,
        Code.NOT_ALLOWED,
        "这项申请已经有人批准或驳回，请刷新后查看。",
        "Somebody has approved or rejected this already; look at it again.",
    ),
    (
        DecisionPending,
        Code.NOT_ALLOWED,
        "同一范围已有一项申请待批准或正在办理，请先办结那一项。",
        "Another request about the same people waits to be decided or carried out: finish that one first.",
    ),
    (
        CloseNotAhead,
        Code.INVALID,
        "新的截止时间必须晚于现在，也必须晚于缴费开始时间。",
        "The new close must lie ahead, and after payment opens.",
    ),
    (
        NothingMoves,
        Code.NOT_ALLOWED,
        "缴费截止时间本来就是这个时刻，没有需要变动的。",
        "Payment closes at that moment as it is; nothing would move.",
    ),
    (
        TooManyWouldFall,
        Code.NOT_ALLOWED,
        "提前截止会使过多尚未缴费的考生失去已公布的缴费时间，不予办理；请核对截止时间。",
        "An earlier close would take the announced time from too many who have not paid: check the moment.",
    ),
    (
        DeskUnknown,
        Code.NOT_ALLOWED,
        (
            "有 {without_site} 位考生在系统记录报名点之前已通过审核，不知道属于哪个报名点，只改一个报名点可能漏掉他们："
            "请改为全部报名点一起办理，或请运维先补记报名点（docs/runbooks/extension.md）再提出。"
        ),
        (
            "{without_site} were approved before desks were noted here, and a decision about one desk could pass over them: "
            "decide for all desks, or have their desks filled in first (docs/runbooks/extension.md)."
        ),
    ),
    (
        NotForfeited,
        Code.NOT_ALLOWED,
        "该考生目前不是“视为自动放弃”状态，没有可以恢复的；请刷新后查看。",
        "This registration is not forfeited now: there is nothing to lift. Look at it again.",
    ),
    (NoSuchSite, Code.NOT_FOUND, "没有这个报名点。", "There is no such desk."),
    (NoSuchDecision, Code.NOT_FOUND, "没有这项申请。", "There is no such request."),
)
RULES: Final = tuple(kind for kind, *_ in SENTENCES)
"""Every way in which a decision is refused."""


def refused(error: Exception, language: str | None) -> Refused:
    """The no to somebody who reads this language first (`Accept-Language`)."""
    fields: tuple[FieldError, ...] = ()
    hints: dict[str, Json] = {}
    if isinstance(error, DecisionPending):
        hints = {"decision_id": str(error.decision_id)}
    if isinstance(error, TooManyWouldFall):
        hints = {"would_fall": error.figures.would_fall, "approved": error.figures.approved}
    if isinstance(error, DeskUnknown):
        hints = {"without_site": error.figures.without_site}
    english = (language or "").lower().startswith("en")
    if isinstance(error, CloseNotAhead):
        fields = (FieldError("closes_at", "must lie ahead" if english else "必须晚于现在"),)
    code, zh, en = next((code, zh, en) for kind, code, zh, en in SENTENCES if isinstance(error, kind))
    return Refused(code, (en if english else zh).format(**hints), fields, hints)
