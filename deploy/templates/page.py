"""Every text as one page that needs no network: an SMS as a phone shows it, an email as a mail reader does."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Final

from contracts.cycle import Cycle
from contracts.reasons import Carrier
from deploy.templates.samples import TAIL, facts_of
from services.notification.domain.occasions import CONTENTS, Occasion
from services.notification.domain.parts import parts, parts_abroad
from services.notification.domain.words import variables
from services.notification.templates.linting import SIGNATURE, Judged
from services.notification.templates.rules import CARRIERS, Level
from services.notification.templates.wording import Text, Wording

_NAMES: Final = {"zh": "中文", "en": "English"}
_VERDICTS: Final = {None: ("ok", "通过"), Level.DOUBTS: ("doubt", "存疑"), Level.REFUSES: ("no", "拒绝")}
_STYLE: Final = """
:root{color-scheme:light dark;--page:#f2f3f5;--card:#fff;--ink:#1f2329;--quiet:#5c6370;--line:#d8dbe0;--bubble:#e3f4e1;
--ok:#1b6e2d;--doubt:#7a4b00;--no:#b42318}
@media (prefers-color-scheme:dark){:root{--page:#15171a;--card:#212429;--ink:#e8eaed;--quiet:#aeb4bd;--line:#3a3f47;
--bubble:#23402a;--ok:#7fd492;--doubt:#f0b860;--no:#ff9d8f}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);font:16px/1.6 -apple-system,'PingFang SC',
'Microsoft YaHei','Noto Sans CJK SC',Roboto,Arial,sans-serif;overflow-wrap:anywhere}
main{max-width:80rem;margin:0 auto;padding:1rem}h1{font-size:1.5rem;line-height:1.3}h2{font-size:1.15rem;margin:2.5rem 0 .75rem}
nav{columns:14rem;margin:1rem 0}nav a{display:block;color:inherit}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1rem;align-items:start}
article{background:var(--card);border:1px solid var(--line);border-radius:.75rem;padding:1rem;min-width:0}
h3{margin:0 0 .75rem;font-size:1rem;font-weight:600}
.bubble{background:var(--bubble);border-radius:1rem 1rem 1rem .25rem;padding:.75rem 1rem;max-width:24rem;margin:0 0 .5rem}
.quiet{color:var(--quiet);font-size:.875rem;margin:.25rem 0}
ul{margin:.5rem 0 0;padding:0;list-style:none;font-size:.875rem}li{padding:.15rem 0}
.ok{color:var(--ok)}.doubt{color:var(--doubt)}.no{color:var(--no)}li b{display:inline-block;min-width:9.5em}
iframe{width:100%;height:40rem;border:1px solid var(--line);border-radius:.5rem;margin-top:.75rem;background:#fff}
details{margin-top:.5rem}pre{white-space:pre-wrap;font:inherit;font-size:.9rem;margin:.5rem 0 0}
"""


def preview(wording: Wording, judged: list[Judged], cycle: Cycle, signature: str = SIGNATURE) -> str:
    """The page."""
    verdicts = {one.key: one for one in judged}
    sections, entries = [], []
    for occasion, variant in CONTENTS:
        name = f"{occasion}{'.' if variant else ''}{variant}"
        entries.append(f'<a href="#{name}">{name}</a>')
        texts = "".join(_texts(wording, verdicts, occasion, variant, cycle, signature))
        sections.append(f'<section id="{name}"><h2>{name}</h2><div class="pair">{texts}</div></section>')
    refused = sum(any(v.rule.level is Level.REFUSES for v in one.verdicts) for one in judged)
    return (
        '<!doctype html>\n<html lang="zh-CN"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>通知预览 · {html.escape(cycle.name)}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1>通知预览 · {html.escape(cycle.name)}</h1>"
        f'<p class="quiet">{len(wording.languages)} 种语言，{len(CONTENTS)} 种场合；{len(judged)} 条短信模板中'
        f" {refused} 条至少会被一家运营商平台拒绝。人物、金额和时间均为示例。</p>"
        f"<nav>{''.join(entries)}</nav>{''.join(sections)}</main></body></html>\n"
    )


def _texts(
    wording: Wording,
    judged: dict[tuple[Carrier, Occasion, str, str], Judged],
    occasion: Occasion,
    variant: str,
    cycle: Cycle,
    signature: str,
) -> Iterator[str]:
    facts = facts_of(occasion, variant, cycle)
    for language in wording.languages:
        for channel in (Carrier.SMS, Carrier.EMAIL):
            if (channel, occasion, variant, language) not in set(wording):
                continue
            phrases = wording.languages[language]
            said = variables(occasion, facts, TAIL, cycle, phrases)
            text = wording.render(channel, occasion, variant, said, language)
            title = _NAMES.get(language, language)
            if channel is Carrier.SMS:
                yield _sms(text, judged[channel, occasion, variant, language], title, signature)
            else:
                yield _email(text, title)


def _sms(text: Text, judged: Judged, title: str, signature: str) -> str:
    whole = signature + text.body
    abroad = parts_abroad(text.body)
    said = f"，境外号码 {abroad} 条" if abroad != parts(whole) else ""
    return (
        f'<article lang="{text.language}"><h3>短信 · {title}</h3><p class="bubble">{html.escape(whole)}</p>'
        f'<p class="quiet">{len(whole)} 字，{parts(whole)} 条{said}；最长时 {judged.parts} 条 · 第 {text.version} 版 · '
        f"{html.escape(' · '.join(text.codes.values()))}</p><ul>{''.join(_verdicts(judged))}</ul></article>"
    )


def _verdicts(judged: Judged) -> Iterator[str]:
    for carrier in CARRIERS:
        found = judged.of(carrier)
        worst = max((verdict.rule.level for verdict in found), key=list(Level)[::-1].index, default=None)
        name, word = _VERDICTS[worst]
        why = "；".join(f"{verdict.rule.id} {verdict.why}" for verdict in found)
        yield f'<li class="{name}"><b>{carrier} · {word}</b> {html.escape(why)}</li>'


def _email(text: Text, title: str) -> str:
    assert text.html is not None
    return (
        f'<article lang="{text.language}"><h3>邮件 · {title}</h3><p class="quiet">{html.escape(text.subject)} · '
        f"第 {text.version} 版 · {len(text.html.encode())} 字节</p>"
        # No script, no form, no request: what is shown is all there is.
        f'<iframe sandbox title="{html.escape(text.subject)}" loading="lazy" srcdoc="{html.escape(text.html)}"></iframe>'
        f"<details><summary>纯文本</summary><pre>{html.escape(text.body)}</pre></details></article>"
    )
