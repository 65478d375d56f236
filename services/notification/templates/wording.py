"""The texts that are sent: files in this folder, checked when they are loaded, filled when a message goes out.

`<occasion>/<channel>[.<variant>].<language>.txt` is a head (`version: 1`, and `aliyun: SMS_…`, the carrier's
code of the approved text, or `subject: …`), an empty line, and the text. A text that asks for what it must not know,
leaves out what it must say, or names a deadline without its consequence stops the service from starting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from contracts.reasons import Carrier
from services.notification.domain.occasions import CONTENTS, FORBIDDEN, VARIABLES, Contents, Kind, Occasion
from services.notification.domain.parts import parts
from services.notification.domain.words import Variables

TEMPLATES: Final = Path(__file__).parent
LANGUAGE: Final = "zh"
_FILE: Final = re.compile(r"(?P<channel>[a-z]+)(?:\.(?P<variant>[a-z]+))?\.(?P<language>[a-z]{2})\.txt")
_HEAD: Final = re.compile(r"(?P<key>[a-z]+): (?P<value>\S.*)")
# How each carrier of SMS names a text that it approved. The second one's name is there once it has approved.
_CARRIER_CODES: Final = {"aliyun": re.compile(r"SMS_[0-9]{4,}"), "tencent": re.compile(r"[0-9]{4,}")}
_KEYS: Final = {Carrier.SMS: {"version", "aliyun"}, Carrier.EMAIL: {"version", "subject"}}
_MAY: Final = {Carrier.SMS: {"tencent"}, Carrier.EMAIL: set[str]()}
_VARIABLE: Final = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_CONSEQUENCE: Final = "逾期"
_LONGEST_SMS: Final = 500  # of an approved text, carrier's limit
_DEADLINES: Final = {name for name, kind in VARIABLES.items() if kind is Kind.DEADLINE}
_LISTS: Final = {name for name, kind in VARIABLES.items() if kind is Kind.LIST}


class TemplatesInvalid(ValueError):
    """Everything that is wrong with the files, one line each."""


class _Refused(Exception):
    """What is wrong with one file."""


@dataclass(frozen=True, slots=True)
class Text:
    """What goes to one person through one channel."""

    template: str
    version: int
    subject: str
    body: str
    variables: Mapping[str, str]  # in the order of the text: one carrier numbers them
    codes: Mapping[str, str] = field(default_factory=dict)  # carrier → its name of the approved text
    html: str | None = None  # the same text for mail readers that show more than letters
    language: str = "zh"

    @property
    def parts(self) -> int:
        """How many messages it is for a carrier of SMS."""
        return parts(self.body)


@dataclass(frozen=True, slots=True)
class _Form:
    codes: Mapping[str, str]
    version: int
    subject: Template
    body: Template
    source: str
    names: tuple[str, ...]


class Wording:
    """Every template, checked and compiled."""

    def __init__(self, forms: Mapping[tuple[Carrier, Occasion, str], _Form]) -> None:
        self._forms = dict(forms)

    @classmethod
    def load(cls, root: Path = TEMPLATES, language: str = LANGUAGE) -> Self:
        """Raises TemplatesInvalid with all that is wrong."""
        environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined,
            autoescape=False,  # plain text, nothing is HTML
            trim_blocks=True,
            lstrip_blocks=True,
        )
        forms: dict[tuple[Carrier, Occasion, str], _Form] = {}
        problems: list[str] = []
        for path in sorted(root.glob("*/*.txt")):
            try:
                key, of = _place(path)
                if of == language:
                    forms[key] = _read(path, key[0], CONTENTS[key[1:]], environment)
            except _Refused as refused:
                problems.append(f"{path.parent.name}/{path.name}: {refused}")
        problems += _missing(forms, language)
        codes: dict[tuple[str, str], tuple[Carrier, Occasion, str]] = {}
        for key, form in forms.items():
            for carrier, code in form.codes.items():
                if codes.setdefault((carrier, code), key) != key:
                    problems.append(f"{key[1]}: {code} is the code of another text too")
        if problems:
            raise TemplatesInvalid("\n".join(problems))
        return cls(forms)

    def __iter__(self) -> Iterator[tuple[Carrier, Occasion, str]]:
        return iter(self._forms)

    def version(self, channel: Carrier, occasion: Occasion, variant: str) -> int:
        """Which edition of a text is sent now."""
        return self._forms[channel, occasion, variant].version

    def render(self, channel: Carrier, occasion: Occasion, variant: str, said: Variables) -> Text:
        """Fill a text. Raises jinja2.UndefinedError when the facts lack what it says."""
        form = self._forms[channel, occasion, variant]
        return Text(
            form.codes.get("aliyun", ""),
            form.version,
            form.subject.render(said),
            form.body.render(said),
            {name: value for name in form.names if isinstance(value := said[name], str)},
            form.codes,
        )

    def approved(self, carrier: str = "aliyun") -> dict[str, str]:
        """What a carrier of SMS has to approve: code → text in its notation, `${tail}` or `{1}`."""
        return {
            code: _noted(form, carrier)
            for form in self._forms.values()
            if (code := form.codes.get(carrier)) is not None
        }


def _noted(form: _Form, carrier: str) -> str:
    numbers = {name: number for number, name in enumerate(form.names, 1)}
    return _VARIABLE.sub(
        lambda match: f"{{{numbers[match[1]]}}}" if carrier == "tencent" else f"${{{match[1]}}}", form.source
    )


def _place(path: Path) -> tuple[tuple[Carrier, Occasion, str], str]:
    match = _FILE.fullmatch(path.name)
    if match is None or match["channel"] not in {str(c) for c in Carrier}:
        raise _Refused("not named <sms|email>[.<variant>].<language>.txt")
    variant = match["variant"] or ""
    known = {str(occasion): occasion for occasion in Occasion}
    if path.parent.name not in known:
        raise _Refused("its folder is no occasion")
    occasion = known[path.parent.name]
    if (occasion, variant) not in CONTENTS:
        raise _Refused(f"{occasion} has no variant {variant!r}")
    return (Carrier(match["channel"]), occasion, variant), match["language"]


def _missing(forms: Mapping[tuple[Carrier, Occasion, str], _Form], language: str) -> list[str]:
    return [
        f"{occasion}/{channel}{'.' if variant else ''}{variant}.{language}.txt: missing or refused"
        for occasion, variant in CONTENTS
        for channel in Carrier
        if (channel, occasion, variant) not in forms
    ]


def _read(
    path: Path, channel: Carrier, contents: Contents, environment: ImmutableSandboxedEnvironment
) -> _Form:
    head, body = _split(path.read_text(encoding="utf-8"), channel)
    subject = head.get("subject", "")
    used: set[str] = set()
    try:
        for source in (subject, body):
            used |= _used(environment.parse(source), channel)
    except TemplateSyntaxError as error:
        raise _Refused(f"line {error.lineno} of the text: {error.message}") from None
    _check_variables(used, contents, channel)
    if used & _DEADLINES and _CONSEQUENCE not in body:
        raise _Refused(f"names a deadline but not what happens if it is missed ({_CONSEQUENCE}…)")
    if channel is Carrier.SMS:
        _check_sms(body)
    return _Form(
        codes={carrier: head[carrier] for carrier in _CARRIER_CODES if carrier in head},
        version=int(head["version"]),
        subject=environment.from_string(subject),
        body=environment.from_string(body),
        source=body,
        names=tuple(dict.fromkeys(_VARIABLE.findall(body)))
        if channel is Carrier.SMS
        else tuple(sorted(used)),
    )


def _split(content: str, channel: Carrier) -> tuple[dict[str, str], str]:
    top, _, body = content.partition("\n\n")
    head: dict[str, str] = {}
    for line in top.splitlines():
        match = _HEAD.fullmatch(line)
        if match is None or match["key"] not in _KEYS[channel] | _MAY[channel]:
            raise _Refused(f"the head knows {sorted(_KEYS[channel])}, not {line.partition(':')[0]!r}")
        head[match["key"]] = match["value"].strip()
    if lacking := _KEYS[channel] - set(head):
        raise _Refused(f"the head lacks {sorted(lacking)}")
    if not head["version"].isdigit() or int(head["version"]) < 1:
        raise _Refused("version is not 1, 2, 3, …")
    for carrier, form in _CARRIER_CODES.items():
        if carrier in head and not form.fullmatch(head[carrier]):
            raise _Refused(f"{carrier} is not a template code ({form.pattern})")
    if not body.strip():
        raise _Refused("there is no text after the head")
    return head, body.rstrip("\n")


def _used(tree: nodes.Template, channel: Carrier) -> set[str]:
    """Names that the text asks for. Text and names only, and in an email a loop over sentences."""
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
                raise _Refused("a loop is for an email, over a list")
        elif not isinstance(node, plain):
            raise _Refused(f"only {{{{ variable }}}} may stand in a text, no {type(node).__name__.lower()}")
        elif isinstance(node, nodes.Name) and node.name not in loops:
            names.add(node.name)
    said = {n.name for out in tree.find_all(nodes.Output) for n in out.nodes if isinstance(n, nodes.Name)}
    if lists := said & _LISTS:
        raise _Refused(f"{sorted(lists)} is a list: loop over it")
    return names


def _check_variables(used: set[str], contents: Contents, channel: Carrier) -> None:
    if personal := used & FORBIDDEN:
        raise _Refused(f"{sorted(personal)} is personal: no message may say it")
    if unknown := used - (contents.must | contents.may):
        raise _Refused(f"{sorted(unknown)} is not known of this occasion")
    if missing := contents.must - used:
        raise _Refused(f"{sorted(missing)} must be said")
    if channel is Carrier.SMS and (lists := used & _LISTS):
        raise _Refused(f"{sorted(lists)} is a list: for an email only")


def _check_sms(body: str) -> None:
    if "\n" in body:
        raise _Refused("an SMS is one line")
    if {"【", "】"} & set(body):
        raise _Refused("the carrier adds the signature in 【】 itself")
    if len(body) > _LONGEST_SMS:
        raise _Refused(f"longer than {_LONGEST_SMS} characters")
    if not body.startswith("考生{{ tail }}："):
        raise _Refused("an SMS begins with 考生 and the last four of the registration number")
