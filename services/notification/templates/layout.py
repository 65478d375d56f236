"""An email's text as HTML: one layout, made from the same words, without a picture, a script or anything remote.

The styles stand at each element, because many mail readers throw a style sheet away; the small sheet in the head is for
dark screens only. What is in colour is also bold, and each pair of colours has a contrast of 4.5 or more.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Final

from services.notification.domain.occasions import VARIABLES, Kind
from services.notification.domain.phrases import Phrases

LANGUAGES: Final = {"zh": "zh-CN"}  # as HTML names them; others by their two letters
# (on light, on dark): background of the page, of the card, then text, quiet text, a deadline.
PAGE: Final = ("#f2f3f5", "#15171a")
CARD: Final = ("#ffffff", "#212429")
INK: Final = ("#1f2329", "#e8eaed")
QUIET: Final = ("#5c6370", "#aeb4bd")
URGENT: Final = ("#b42318", "#ff9d8f")

_PIECE: Final = re.compile(r"(\{\{.*?\}\}|\{%.*?%\})")
_NAME: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_LABELLED: Final = re.compile(r"(?P<label>[^：:{}。，（(]{1,40})[：:] ?(?P<value>\{\{\s*\w+\s*\}\}\S{0,4})")
_FONT: Final = "-apple-system,'PingFang SC','Microsoft YaHei','Noto Sans CJK SC',Roboto,Arial,sans-serif"
_DARK: Final = "".join(
    f".{name}{{{what}:{colours[1]}!important}}"
    for name, what, colours in (
        ("page", "background", PAGE),
        ("card", "background", CARD),
        ("card", "color", INK),
        ("quiet", "color", QUIET),
        ("urgent", "color", URGENT),
    )
)


def as_html(subject: str, body: str, phrases: Phrases) -> str:
    """The template of the HTML form, whose variables are escaped when they are filled in."""
    title = _inline(subject)
    blocks = "".join(_block(block, phrases) for block in body.split("\n\n"))
    return (
        f'<!doctype html>\n<html lang="{LANGUAGES.get(phrases.language, phrases.language)}">\n<head>\n'
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_inline(subject, emphasis=False)}</title>\n"
        f"<style>:root{{color-scheme:light dark}}@media (prefers-color-scheme:dark){{{_DARK} }}</style>\n"
        f'</head>\n<body class="page" style="margin:0;padding:0;background:{PAGE[0]}">\n'
        f'<div class="card" style="box-sizing:border-box;max-width:36rem;margin:0 auto;padding:24px 20px;'
        f"background:{CARD[0]};color:{INK[0]};font-family:{_FONT};font-size:16px;line-height:1.7;"
        'overflow-wrap:anywhere">\n'
        f'<h1 style="margin:0 0 16px;font-size:20px;line-height:1.45">{title}</h1>\n'
        f"{blocks}</div>\n</body>\n</html>\n"
    )


def _block(block: str, phrases: Phrases) -> str:
    """One paragraph of the text, which may hold facts, one a line, and a list."""
    quiet = block.startswith(phrases.no_reply)
    look = f"font-size:14px;color:{QUIET[0]}" if quiet else ""
    css = ' class="quiet"' if quiet else ""
    out: list[str] = []
    for kind, lines in _runs(block.splitlines()):
        if kind == "facts":
            out.append(_facts(lines))
        elif kind == "list":
            out.append(f'<ul style="margin:0 0 16px;padding-left:20px">\n{"".join(map(_item, lines))}</ul>\n')
        else:
            text = "<br>\n".join(map(_inline, lines))
            out.append(f'<p{css} style="margin:0 0 16px;{look}">{text}</p>\n')
    return "".join(out)


def _runs(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    run: list[str] = []
    kind = ""
    for line in lines:
        of = "list" if line.startswith(("{%", "- ")) else "facts" if _LABELLED.fullmatch(line) else "text"
        if of != kind and run:
            yield kind, run
            run = []
        kind = of
        run.append(line)
    if run:
        yield kind, run


def _facts(lines: list[str]) -> str:
    """Label above value on a narrow screen, beside it on a wide one: both fit without a rule for either."""
    rows = []
    for line in lines:
        match = _LABELLED.fullmatch(line)
        assert match is not None
        rows.append(
            '<div style="margin:0 0 4px">'
            f'<span class="quiet" style="display:inline-block;min-width:6em;color:{QUIET[0]}">'
            f"{html.escape(match['label'])}</span> {_inline(match['value'])}</div>\n"
        )
    return f'<div style="margin:0 0 16px">\n{"".join(rows)}</div>\n'


def _item(line: str) -> str:
    return f"{line}\n" if line.startswith("{%") else f"<li>{_inline(line[2:])}</li>\n"


def _inline(text: str, *, emphasis: bool = True) -> str:
    """Static words escaped, variables left to be filled; a deadline and what is owed stand out."""
    return "".join(
        _variable(piece, emphasis) if piece.startswith("{{") else html.escape(piece)
        for piece in _PIECE.split(text)
        if piece
    )


def _variable(piece: str, emphasis: bool) -> str:
    match = _NAME.fullmatch(piece)
    of = VARIABLES.get(match[1]) if match else None
    if emphasis and of is not None and of.kind is Kind.DEADLINE:
        return f'<strong class="urgent" style="color:{URGENT[0]}">{piece}</strong>'
    if emphasis and of is not None and of.kind is Kind.MONEY:
        return f"<strong>{piece}</strong>"
    return piece
