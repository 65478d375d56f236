"""One template's file: its place, its head, and what a text must not ask for, must say, and may not leave open."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contracts.reasons import Carrier
from services.notification.domain.occasions import CONTENTS, FORBIDDEN, VARIABLES, Contents, Kind, Occasion
from services.notification.domain.phrases import Phrases
from services.notification.templates.layout import as_html

Key: TypeAlias = tuple[Carrier, Occasion, str, str]  # channel, occasion, variant, language

VARIABLE: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_FILE: Final = re.compile(r"(?P<channel>[a-z]+)(?:\.(?P<variant>[a-z]+))?\.(?P<language>[a-z]{2})\.txt")
_HEAD: Final = re.compile(r"(?P<key>[a-z]+): (?P<value>\S.*)")
# How each carrier of SMS names a text that it approved. The second one's name is there once it has approved.
_CARRIER_CODES: Final = {"aliyun": re.compile(r"SMS_[0-9]{4,}"), "tencent": re.compile(r"[0-9]{4,}")}
_KEYS: Final = {Carrier.SMS: {"version", "aliyun"}, Carrier.EMAIL: {"version", "subject"}}
_MAY: Final = {Carrier.SMS: {"tencent"}, Carrier.EMAIL: set[str]()}
_LONGEST_SMS: Final = 500  # of an approved text, carrier's limit
_DEADLINES: Final = {name for name, of in VARIABLES.items() if of.kind is Kind.DEADLINE}
_LISTS: Final = {name for name, of in VARIABLES.items() if of.kind is Kind.LIST}
# An ID number or a mobile phone's, written into a text that everybody gets.
_SOMEBODYS: Final = re.compile(r"(?<!\d)(?:\d{17}[\dXx]|\d{15}|1[3-9]\d{9})(?!\d)")


class Refused(Exception):
    """What is wrong with one file."""


@dataclass(frozen=True, slots=True)
class Form:
    """A template, checked and compiled."""

    codes: Mapping[str, str]
    version: int
    subject: Template
    body: Template
    html: Template | None
    source: str
    names: tuple[str, ...]  # of an SMS in the order of its text


def place(path: Path) -> Key:
    """Which text this file is. Raises Refused."""
    match = _FILE.fullmatch(path.name)
    if match is None or match["channel"] not in {str(c) for c in Carrier}:
        raise Refused("not named <sms|email>[.<variant>].<language>.txt")
    variant = match["variant"] or ""
    known = {str(occasion): occasion for occasion in Occasion}
    if path.parent.name not in known:
        raise Refused("its folder is no occasion")
    occasion = known[path.parent.name]
    if (occasion, variant) not in CONTENTS:
        raise Refused(f"{occasion} has no variant {variant!r}")
    return Carrier(match["channel"]), occasion, variant, match["language"]


def read(path: Path, channel: Carrier, contents: Contents, phrases: Phrases) -> Form:
    """The file's template, compiled for letters and, of an email, for HTML. Raises Refused."""
    head, body = _split(path.read_text(encoding="utf-8"), channel)
    subject = head.get("subject", "")
    used: set[str] = set()
    try:
        for source in (subject, body):
            used |= _used(source, channel)
    except TemplateSyntaxError as error:
        raise Refused(f"line {error.lineno} of the text: {error.message}") from None
    _check_variables(used, contents, channel)
    if used & _DEADLINES and phrases.consequence not in body:
        raise Refused(f"names a deadline but not what happens if it is missed ({phrases.consequence}…)")
    if found := _SOMEBODYS.search(f"{subject}\n{body}"):
        raise Refused(f"says a number of {len(found[0])} digits that may be somebody's own")
    if channel is Carrier.SMS:
        _check_sms(body, phrases)
        names = tuple(dict.fromkeys(VARIABLE.findall(body)))
    else:
        names = tuple(sorted(used))
    return Form(
        codes={carrier: head[carrier] for carrier in _CARRIER_CODES if carrier in head},
        version=int(head["version"]),
        subject=_compiled(subject),
        body=_compiled(body),
        html=_compiled(as_html(subject, body, phrases), escape=True) if channel is Carrier.EMAIL else None,
        source=body,
        names=names,
    )


def _split(content: str, channel: Carrier) -> tuple[dict[str, str], str]:
    top, _, body = content.partition("\n\n")
    head: dict[str, str] = {}
    for line in top.splitlines():
        match = _HEAD.fullmatch(line)
        if match is None or match["key"] not in _KEYS[channel] | _MAY[channel]:
            raise Refused(f"the head knows {sorted(_KEYS[channel])}, not {line.partition(':')[0]!r}")
        head[match["key"]] = match["value"].strip()
    if lacking := _KEYS[channel] - set(head):
        raise Refused(f"the head lacks {sorted(lacking)}")
    if not head["version"].isdigit() or int(head["version"]) < 1:
        raise Refused("version is not 1, 2, 3, …")
    for carrier, form in _CARRIER_CODES.items():
        if carrier in head and not form.fullmatch(head[carrier]):
            raise Refused(f"{carrier} is not a template code ({form.pattern})")
    if not body.strip():
        raise Refused("there is no text after the head")
    return head, body.rstrip("\n")


def _environment(*, escape: bool) -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=escape, trim_blocks=True, lstrip_blocks=True
    )


_LETTERS, _HTML = _environment(escape=False), _environment(escape=True)


# The same text once a process: whoever loads all of them again would wait a tenth of a second for it.
@lru_cache(1024)
def _compiled(source: str, *, escape: bool = False) -> Template:
    return (_HTML if escape else _LETTERS).from_string(source)


@lru_cache(1024)
def _used(source: str, channel: Carrier) -> frozenset[str]:
    """Names that the text asks for. Text and names only, and in an email a loop over sentences."""
    tree = _LETTERS.parse(source)
    plain = (nodes.Output, nodes.TemplateData, nodes.Name)
    loops = {loop.target.name for loop in tree.find_all(nodes.For) if isinstance(loop.target, nodes.Name)}
    names: set[str] = set()
    for node in tree.find_all(nodes.Node):
        if isinstance(node, nodes.For):
            if (
                channel is Carrier.SMS
                or not isinstance(node.iter, nodes.Name)
                or node.iter.name not in _LISTS
            ):
                raise Refused("a loop is for an email, over a list")
        elif not isinstance(node, plain):
            raise Refused(f"only {{{{ variable }}}} may stand in a text, no {type(node).__name__.lower()}")
        elif isinstance(node, nodes.Name) and node.name not in loops:
            names.add(node.name)
    said = {n.name for out in tree.find_all(nodes.Output) for n in out.nodes if isinstance(n, nodes.Name)}
    if lists := said & _LISTS:
        raise Refused(f"{sorted(lists)} is a list: loop over it")
    return frozenset(names)


def _check_variables(used: set[str], contents: Contents, channel: Carrier) -> None:
    if personal := used & FORBIDDEN:
        raise Refused(f"{sorted(personal)} is personal: no message may say it")
    if unknown := used - (contents.must | contents.may):
        raise Refused(f"{sorted(unknown)} is not known of this occasion")
    if missing := contents.must - used:
        raise Refused(f"{sorted(missing)} must be said")
    if channel is Carrier.SMS and (lists := used & _LISTS):
        raise Refused(f"{sorted(lists)} is a list: for an email only")


def _check_sms(body: str, phrases: Phrases) -> None:
    if "\n" in body:
        raise Refused("an SMS is one line")
    if {"【", "】"} & set(body):
        raise Refused("the carrier adds the signature in 【】 itself")
    if len(body) > _LONGEST_SMS:
        raise Refused(f"longer than {_LONGEST_SMS} characters")
    if not body.startswith(phrases.opening):
        raise Refused(f"an SMS begins with {phrases.opening!r}: the last four of the registration number")
