"""On which line of a TOML file each key stands. tomllib does not say, and an error without one is half an error.

The text has been read by tomllib before, so this only follows its structure and never judges it.
"""

from collections.abc import Mapping

Path = tuple[str | int, ...]


def lines_of(text: str) -> Mapping[Path, int]:
    """Line of every key, array element and table header, by its path as Pydantic writes it."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


def nearest(lines: Mapping[Path, int], path: Path) -> int:
    """The line of the path, or of what it would stand in; a key that is missing is missed at its table."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}

    def scan(self) -> Mapping[Path, int]:
        table: Path = ()
        while self._skip(" \t\n"):
            if self._text.startswith("[[", self._at):
                self._move(2)
                table = self._element(self._key())
                self._move(2)
            elif self._peek() == "[":
                self._move(1)
                table = self._through_arrays(self._key())
                self._move(1)
                self._seen(table)
            else:
                self._pair(table)
        return self._lines

    def _element(self, key: Path) -> Path:
        """The next element of an array of tables."""
        array = (*self._through_arrays(key[:-1]), key[-1])
        index = self._counts.get(array, 0)
        self._counts[array] = index + 1
        self._seen((*array, index))
        return (*array, index)

    def _seen(self, path: Path) -> None:
        """A header also makes the tables above it, if nothing did before."""
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], self._line)

    def _through_arrays(self, key: Path) -> Path:
        """[a.b] after [[a]] speaks of the last a."""
        path: Path = ()
        for part in key:
            path = (*path, part)
            if path in self._counts:
                path = (*path, self._counts[path] - 1)
        return path

    def _pair(self, table: Path) -> None:
        line = self._line
        path = table
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._skip(" \t")
        self._move(1)  # =
        self._skip(" \t")
        self._value(path)

    def _key(self) -> Path:
        parts: list[str] = []
        while True:
            self._skip(" \t")
            if self._peek() in "\"'":
                start = self._at + 1
                self._string()
                # Escapes stay as spelled: such a key is unknown anyway, and its table's line will do.
                parts.append(self._text[start : self._at - 1])
            else:
                start = self._at
                while self._peek() not in " \t.=]\n":
                    self._move(1)
                parts.append(self._text[start : self._at])
            self._skip(" \t")
            if self._peek() != ".":
                return tuple(parts)
            self._move(1)

    def _value(self, path: Path) -> None:
        first = self._peek()
        if first in "\"'":
            self._string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            while self._peek() not in ",]}#\n":
                self._move(1)

    def _array(self, path: Path) -> None:
        self._move(1)
        index = 0
        while self._skip(" \t\n") and self._peek() != "]":
            if self._peek() == ",":
                self._move(1)
                continue
            self._lines[(*path, index)] = self._line
            self._value((*path, index))
            index += 1
        self._move(1)

    def _inline_table(self, path: Path) -> None:
        self._move(1)
        while self._skip(" \t\n") and self._peek() != "}":
            if self._peek() == ",":
                self._move(1)
                continue
            self._pair(path)
        self._move(1)

    def _string(self) -> None:
        quote = self._peek()
        delimiter = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._move(len(delimiter))
        while self._at < len(self._text) and not self._text.startswith(delimiter, self._at):
            self._move(2 if quote == '"' and self._peek() == "\\" else 1)
        self._move(len(delimiter))
        while len(delimiter) == 3 and self._peek() == quote:
            self._move(1)  # """a""""" ends with quotes of its own

    def _peek(self) -> str:
        # "\n" past the end: every loop above stops at a line's end
        return self._text[self._at] if self._at < len(self._text) else "\n"

    def _move(self, by: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + by)
        self._at += by

    def _skip(self, blanks: str) -> bool:
        """Over blanks and, where lines may end, over comments. False at the end of the text."""
        while self._at < len(self._text):
            if self._text[self._at] in blanks:
                self._move(1)
            elif self._text[self._at] == "#" and "\n" in blanks:
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                return True
        return False
