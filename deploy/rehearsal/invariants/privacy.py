"""I16: no name, ID number, phone or mailbox of anybody in any topic, log line, metric or report.

Long texts are not searched once per secret: what could be a secret is cut out of them and looked up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from deploy.rehearsal.identity import Identity, check_digit
from deploy.rehearsal.invariants.evidence import Evidence, Finding

_DIGITS: Final = re.compile(rb"[0-9]{11,}[0-9Xx]?")
_RUN: Final = re.compile(rb"(?<![0-9A-Za-z.-])(?:[0-9]{17}[0-9Xx]|[0-9]{11})(?![0-9A-Za-z.-])")
_MAILS: Final = re.compile(rb"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+")
_WORDS: Final = re.compile("[\u3400-\u9fff\U00020000-\U000323af·]{2,}")
_ESCAPED: Final = re.compile(rb"(?:\\u[0-9a-fA-F]{4})+")
_PHOTO: Final = b"/9j/4AAQSkZJRg"  # how every JPEG begins in base64
_DOTS: Final = dict.fromkeys(map(ord, "•‧・･∙⋅"), "·")
_LENGTHS: Final = (11, 18)  # of a mobile number and of an ID number
_SHORTEST: Final = (
    8  # of plain letters and digits: fewer stand anywhere by chance, as numbers of partitions do
)
SHOWN: Final = 50


class Canaries:
    """The secrets of a rehearsal's people, ready to be searched for."""

    def __init__(self, identities: Mapping[str, Identity], more: Iterable[tuple[str, str]] = ()) -> None:
        self._whose: dict[str, str] = {}
        theirs = (
            (secret, f"{what} of {person}")
            for person, identity in identities.items()
            for what, secret in identity.secrets().items()
            if isinstance(secret, str)
        )
        for typed, whose in (*theirs, *more):
            for secret in _as_typed_and_as_kept(typed):
                if _tells_somebody(secret):
                    self._whose.setdefault(secret, whose)
        self._lengths = sorted({len(secret) for secret in self._whose if _WORDS.fullmatch(secret)})
        self._other = {secret: _whole(secret) for secret in self._whose if not self._is_cut_out(secret)}

    def __len__(self) -> int:
        return len(self._whose)

    @staticmethod
    def _is_cut_out(secret: str) -> bool:
        raw = secret.encode()
        if _DIGITS.fullmatch(raw):
            return len(secret) in _LENGTHS
        return bool(_MAILS.fullmatch(raw) or _WORDS.fullmatch(secret))

    def found_in(self, data: bytes) -> set[str]:
        """Whose secrets stand in these bytes, as UTF-8 or in JSON's escapes."""
        found = {self._whose[candidate] for candidate in self._candidates(data) if candidate in self._whose}
        found |= {self._whose[secret] for secret, pattern in self._other.items() if pattern.search(data)}
        if not self._whose:
            found |= set(_suspects(data))
        if _PHOTO in data:
            found.add("a photo")
        return found

    def _candidates(self, data: bytes) -> Iterator[str]:
        for match in _DIGITS.finditer(data):
            run = match[0].decode()
            for length in _LENGTHS:
                yield from (run[start : start + length] for start in range(len(run) - length + 1))
        if b"@" in data:
            for match in _MAILS.finditer(data):
                yield match[0].decode().rstrip(".")
        # Names have no ASCII letter: most of what is searched can hold none but in JSON's escapes.
        texts = [] if data.isascii() else [data.decode("utf-8", "ignore")]
        if b"\\u" in data:
            texts.extend(_unescaped(match[0]) for match in _ESCAPED.finditer(data))
        for text in texts:
            for word in _WORDS.finditer(text):
                yield from self._parts(word[0])

    def _parts(self, run: str) -> Iterator[str]:
        for length in self._lengths:
            yield from (run[start : start + length] for start in range(len(run) - length + 1))


def _as_typed_and_as_kept(typed: str) -> set[str]:
    """Numbers are kept without blanks and in capitals, names with one kind of dot: a leak may show either."""
    return {typed, typed.translate(_DOTS), "".join(typed.split()).upper()}


def _tells_somebody(secret: str) -> bool:
    """Whether finding it says anything. People files try wrong values too: a blank, `123`, `nobody`."""
    kept = secret.strip()
    return len(kept) >= (2 if "@" in kept or not kept.isascii() else _SHORTEST)


def _whole(secret: str) -> re.Pattern[bytes]:
    """The secret as a word of its own: `12345678` is a permit's number, and stands inside many a hash."""
    return re.compile(rb"(?<![0-9A-Za-z])" + re.escape(secret.strip().encode()) + rb"(?![0-9A-Za-z])")


def _suspects(data: bytes) -> Iterator[str]:
    """Where nobody's secrets are known: what has the form of an ID number, a mobile number or a mailbox."""
    for match in _RUN.finditer(data):
        run = match[0].decode()
        if len(run) == 18 and check_digit(run[:17]) == run[17].upper():
            yield "form of an ID number"
        elif len(run) == 11 and run[0] == "1" and run[1] in "3456789":
            yield "form of a mobile number"
    if _MAILS.search(data):
        yield "form of a mailbox"


def _unescaped(escaped: bytes) -> str:
    units = bytes.fromhex(escaped.decode().replace("\\u", ""))
    return units.decode("utf-16-be", "ignore")


def search(evidence: Evidence, canaries: Canaries, where: str, pieces: Iterable[tuple[str, bytes]]) -> None:
    """Look through the pieces of one place, (name, bytes) each, and note what is found."""
    looked = evidence.searched.get(where, 0)
    for name, data in pieces:
        looked += len(data)
        evidence.leaks.extend(f"{where} {name}: the {secret}" for secret in sorted(canaries.found_in(data)))
    evidence.searched[where] = looked
    evidence.canaries = len(canaries)


def no_personal_data(evidence: Evidence) -> Finding:
    """I16. Nobody's secret in any topic, log, metric or report."""
    mib = sum(evidence.searched.values()) / 2**20
    places = ", ".join(sorted(evidence.searched)) or "nothing"
    checked = f"{evidence.canaries} secrets in {mib:.1f} MiB of {places}"
    wrong = list(dict.fromkeys(evidence.leaks))
    if not evidence.canaries:
        checked = (
            f"nobody's data known here: numbers and mailboxes by their form in {mib:.1f} MiB of {places}"
        )
    more = [f"… and {len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    return Finding(
        "I16", "no personal data in topics, logs, metrics, reports", checked, (*wrong[:SHOWN], *more)
    )
