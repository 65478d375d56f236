"""Line numbers of keys in TOML, in every way TOML writes them."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path as File
from typing import Any

import pytest

from contracts.cycle.lines import Path, lines_of, nearest

LESHAN = File(__file__).parents[3] / "deploy" / "cycles" / "2024-health-leshan.toml"

TEXT = '''\
top = 1            # a comment with = and [brackets]
"quoted key" = 2
dotted.inner = 3
text = "a # b = [c] \\" } ]"
literal = 'C:\\'
long = """
not = a key \\
[not.a.table]
""\\"
"""""
after = 1979-05-27 07:32:00Z

array = [
  1, # one
  [2, 3],

  { a = 1, b = [
    4 ] },
]
inline = { x = 1, y = { z = 2 } }

[table]
key = 1
[table.sub]
key = 2

[[rows]]
id = 1
inner = { deep = 1 }

[rows.extra]
k = 1

[[rows]]
id = 2

[[rows.nested]]
n = 1
[[rows.nested]]
n = 2
'''

EXPECTED: dict[Path, int] = {
    ("top",): 1,
    ("quoted key",): 2,
    ("dotted",): 3,
    ("dotted", "inner"): 3,
    ("text",): 4,
    ("literal",): 5,
    ("long",): 6,
    ("after",): 11,
    ("array",): 13,
    ("array", 0): 14,
    ("array", 1): 15,
    ("array", 1, 0): 15,
    ("array", 1, 1): 15,
    ("array", 2): 17,
    ("array", 2, "a"): 17,
    ("array", 2, "b"): 17,
    ("array", 2, "b", 0): 18,
    ("inline",): 20,
    ("inline", "x"): 20,
    ("inline", "y"): 20,
    ("inline", "y", "z"): 20,
    ("table",): 22,
    ("table", "key"): 23,
    ("table", "sub"): 24,
    ("table", "sub", "key"): 25,
    ("rows",): 27,
    ("rows", 0): 27,
    ("rows", 0, "id"): 28,
    ("rows", 0, "inner"): 29,
    ("rows", 0, "inner", "deep"): 29,
    ("rows", 0, "extra"): 31,
    ("rows", 0, "extra", "k"): 32,
    ("rows", 1): 34,
    ("rows", 1, "id"): 35,
    ("rows", 1, "nested"): 37,
    ("rows", 1, "nested", 0): 37,
    ("rows", 1, "nested", 0, "n"): 38,
    ("rows", 1, "nested", 1): 39,
    ("rows", 1, "nested", 1, "n"): 40,
}


def paths(value: object, path: Path = ()) -> Iterator[Path]:
    """Every path that tomllib's answer has: the independent word on what is there."""
    if path:
        yield path
    pairs: Any = ()
    if isinstance(value, Mapping):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, inner in pairs:
        yield from paths(inner, (*path, key))


def test_every_key_has_its_line() -> None:
    assert dict(lines_of(TEXT)) == EXPECTED


@pytest.mark.parametrize("text", [TEXT, TEXT.replace("\n", "\r\n"), LESHAN.read_text(encoding="utf-8")])
def test_the_scanner_and_tomllib_see_the_same_keys(text: str) -> None:
    assert set(lines_of(text)) == set(paths(tomllib.loads(text)))


def test_windows_line_ends_do_not_shift_lines() -> None:
    assert lines_of(TEXT.replace("\n", "\r\n")) == EXPECTED


def test_in_the_leshan_file_the_line_of_a_key_names_it() -> None:
    text = LESHAN.read_text(encoding="utf-8").splitlines()
    for path, line in lines_of("\n".join(text)).items():
        if isinstance(path[-1], str):
            assert path[-1] in text[line - 1]


def test_a_missing_key_is_missed_where_it_would_stand() -> None:
    lines = lines_of(TEXT)
    assert nearest(lines, ("rows", 1, "missing")) == 34
    assert nearest(lines, ("table", "sub", "missing", "deeper")) == 24
    assert nearest(lines, ("nowhere",)) == 1


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", "a = 1", "a = 1 # end", "[t]", "a = 'x'"])
def test_a_text_may_end_anywhere(text: str) -> None:
    assert set(lines_of(text)) == set(paths(tomllib.loads(text)))
