"""The texts that are sent: files in this folder, checked when they are loaded, filled when a message goes out.

`<occasion>/<channel>[.<variant>].<language>.txt` is a head (`version: 1`, and `aliyun: SMS_…`, the carrier's
code of the approved text, or `subject: …`), an empty line, and the text. A text that asks for what it must not know,
leaves out what it must say, or names a deadline without its consequence stops the service from starting. Chinese is
whole; any other language is `words.<language>.toml` and as many of the texts as there are: what it lacks is sent in Chinese.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Final, Self

from jinja2 import Template

from contracts.reasons import Carrier
from services.notification.domain.occasions import CONTENTS, VARIABLES, Occasion
from services.notification.domain.phrases import CHINESE, ZH, Phrases
from services.notification.domain.words import Variables, fit
from services.notification.templates import reading
from services.notification.templates.reading import VARIABLE, Form, Key, Refused

TEMPLATES: Final = Path(__file__).parent


class TemplatesInvalid(ValueError):
    """Everything that is wrong with the files, one line each."""


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
    language: str = CHINESE


class Wording:
    """Every template, checked and compiled."""

    def __init__(self, forms: Mapping[Key, Form], languages: Mapping[str, Phrases]) -> None:
        self._forms = dict(forms)
        self.languages = dict(languages)

    @classmethod
    def load(cls, root: Path = TEMPLATES) -> Self:
        """Raises TemplatesInvalid with all that is wrong."""
        languages, problems = _languages(root)
        forms: dict[Key, Form] = {}
        for path in sorted(root.glob("*/*.txt")):
            try:
                key = reading.place(path)
                if key[3] not in languages:
                    raise Refused(f"there is no words.{key[3]}.toml")
                forms[key] = reading.read(path, key[0], CONTENTS[key[1], key[2]], languages[key[3]])
            except Refused as refused:
                problems.append(f"{path.parent.name}/{path.name}: {refused}")
        named = {problem.partition(":")[0] for problem in problems}
        problems += [
            f"{name}: missing" for name in cls(forms, languages).lacking(CHINESE) if name not in named
        ]
        codes: dict[tuple[str, str], Key] = {}
        for key, form in forms.items():
            for carrier, code in form.codes.items():
                if codes.setdefault((carrier, code), key) != key:
                    problems.append(f"{key[1]}: {code} is the code of another text too")
        if problems:
            raise TemplatesInvalid("\n".join(problems))
        return cls(forms, languages)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._forms)

    def lacking(self, language: str) -> list[str]:
        """The files that a language has not; of any but Chinese they are sent in Chinese."""
        return [
            f"{occasion}/{channel}{'.' if variant else ''}{variant}.{language}.txt"
            for occasion, variant in CONTENTS
            for channel in Carrier
            if (channel, occasion, variant, language) not in self._forms
        ]

    def version(self, channel: Carrier, occasion: Occasion, variant: str, language: str = CHINESE) -> int:
        """Which edition of a text is sent now."""
        return self._form(channel, occasion, variant, language)[0].version

    def source(self, key: Key) -> str:
        """A text as it stands in its file."""
        return self._forms[key].source

    def phrases(self, channel: Carrier, occasion: Occasion, variant: str, language: str) -> Phrases:
        """The words in which this text is filled: its own language's, which may not be the one asked for."""
        return self._form(channel, occasion, variant, language)[1]

    def render(
        self, channel: Carrier, occasion: Occasion, variant: str, said: Variables, language: str = CHINESE
    ) -> Text:
        """Fill a text. Raises jinja2.UndefinedError when the facts lack what it says."""
        form, phrases = self._form(channel, occasion, variant, language)
        if channel is Carrier.SMS:
            said = {
                name: fit(value, VARIABLES[name].longest, phrases) if isinstance(value, str) else value
                for name, value in said.items()
            }
        body = _filled(form.body, said)
        return Text(
            form.codes.get("aliyun", ""),
            form.version,
            _filled(form.subject, said) if channel is Carrier.EMAIL else "",
            body,
            {name: value for name in form.names if isinstance(value := said[name], str)},
            form.codes,
            _filled(form.html, said) if form.html else None,
            phrases.language,
        )

    def approved(self, carrier: str = "aliyun") -> dict[str, str]:
        """What a carrier of SMS has to approve: code → text in its notation, `${tail}` or `{1}`."""
        return {
            code: _noted(form, carrier)
            for form in self._forms.values()
            if (code := form.codes.get(carrier)) is not None
        }

    def _form(
        self, channel: Carrier, occasion: Occasion, variant: str, language: str
    ) -> tuple[Form, Phrases]:
        form = self._forms.get((channel, occasion, variant, language))
        if form is not None:
            return form, self.languages[language]
        return self._forms[channel, occasion, variant, CHINESE], ZH


def _filled(template: Template, said: Variables) -> str:
    """As `template.render`, without the globals, which no text may use (reading.py): copying them is most of its time."""
    return "".join(template.root_render_func(template.new_context(said, shared=True)))


def _noted(form: Form, carrier: str) -> str:
    numbers = {name: number for number, name in enumerate(form.names, 1)}
    return VARIABLE.sub(
        lambda match: f"{{{numbers[match[1]]}}}" if carrier == "tencent" else f"${{{match[1]}}}", form.source
    )


def _languages(root: Path) -> tuple[dict[str, Phrases], list[str]]:
    """Each language's words, and what is wrong with the files that hold them."""
    found, problems = {CHINESE: ZH}, []
    known = {one.name for one in fields(Phrases)} - {"language"}
    for path in sorted(root.glob("words.*.toml")):
        language = path.name.split(".")[1]
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            problems.append(f"{path.name}: {error}")
            continue
        if set(content) != known:
            problems.append(f"{path.name}: not the words that are needed: {sorted(set(content) ^ known)}")
            continue
        lists = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
        phrases = Phrases(language=language, **{**content, **lists})
        problems += [f"{path.name}: {problem}" for problem in phrases.problems()]
        found[language] = phrases
    return found, problems
