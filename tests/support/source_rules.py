"""What may stand in whose source, read from the syntax tree. Each rule returns "file:line what", empty when kept.

Rules take the folder to look at, so that a test can plant a violation in a copy and see the rule report it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

# One file each, in the chassis, may do these things; nothing else in services/ may.
_ONLY_THE_CHASSIS = {
    "now": {"datetime", "dt"},
    "utcnow": {"datetime", "dt"},
    "today": {"datetime", "date"},
    "time": {"time"},
    "time_ns": {"time"},
    "sleep": {"time", "asyncio", "anyio"},
}
_ONLY_THE_CHASSIS_ON_ANYTHING = {
    "commit", "publish", "publish_batch", "publisher", "send_batch", "send_and_wait", "subscriber", "create_all",
}  # fmt: skip
# Made at import, they would be shared by every test and start before anyone said where things run.
_NOT_AT_IMPORT = {
    "create_async_engine", "create_engine", "Database", "KafkaBroker", "AIOKafkaProducer", "AIOKafkaConsumer",
    "SystemClock", "RehearsalClock", "FastAPI", "of_environment", "Settings",
}  # fmt: skip
FILES_OF_A_SERVICE = {
    "README.md", "__init__.py", "__main__.py", "app.py", "settings.py", "domain", "handlers", "api", "consumers", "jobs",
    "ports", "adapters", "repository", "tables", "migrations", "pages", "templates",
}  # fmt: skip
_NAMED_FOR_NOTHING = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "base",
    "manager",
    "service",
    "misc",
    "models",
}
LONGEST_MODULE = 400


def calls_only_the_chassis_may_make(services: Path) -> list[str]:
    """Clocks, sleeps, commits and publishing outside services/chassis."""
    found = []
    for path, tree in _sources(services):
        if path.relative_to(services).parts[0] == "chassis":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (what := _forbidden_call(node)):
                found.append(_at(services, path, node, what))
            if isinstance(node, ast.ImportFrom) and node.module in {"time", "asyncio"}:
                found += [
                    _at(services, path, node, f"from {node.module} import {name.name}")
                    for name in node.names
                    if node.module in _ONLY_THE_CHASSIS.get(name.name, ())
                ]
    return found


def _forbidden_call(node: ast.Call) -> str | None:
    if not isinstance(node.func, ast.Attribute):
        return None
    name, owner = node.func.attr, node.func.value
    last = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    if last in _ONLY_THE_CHASSIS.get(name, ()):
        return f"{last}.{name}()"
    if name in _ONLY_THE_CHASSIS_ON_ANYTHING or (name == "send" and "producer" in last):
        return f".{name}()"
    return None


def things_made_at_import(services: Path) -> list[str]:
    """Engines, brokers, clocks and settings built while a module is imported, the chassis included."""
    found = []
    for path, tree in _sources(services):
        for node in _run_at_import(tree):
            if isinstance(node, ast.Call):
                name = (
                    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                )
                if name in _NOT_AT_IMPORT:
                    found.append(_at(services, path, node, f"{name}(…) at import"))
    return found


def _run_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node but the bodies of functions and what stands under `if __name__ == "__main__"`."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.decorator_list, *node.args.defaults, *(d for d in node.args.kw_defaults if d)]
        elif isinstance(node, ast.If) and "__name__" in ast.dump(node.test):
            waiting += node.orelse
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)


def ends_of_day_written_as_a_second(services: Path) -> list[str]:
    """23:59:59 as text or as time(23, 59, 59): a window is half open, the last second of a day is lost."""
    found = []
    for path, tree in _sources(services):
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and "23:59:59" in str(node.value) and id(node) not in prose:
                found.append(_at(services, path, node, "23:59:59"))
            if isinstance(node, ast.Call):
                numbers = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                if any(numbers[at : at + 3] == [23, 59, 59] for at in range(len(numbers))):
                    found.append(_at(services, path, node, "(…, 23, 59, 59)"))
    return found


def folders_that_are_half_a_service(services: Path) -> list[str]:
    """A folder in services/ is a service if and only if it has app.py; the chassis is the one that is none."""
    found = []
    for folder in _folders(services):
        has_app, is_chassis = (folder / "app.py").exists(), folder.name == "chassis"
        if has_app == is_chassis:
            found.append(f"{folder.name}: " + ("the chassis is no service" if is_chassis else "no app.py"))
    return found


def files_with_names_of_their_own(services: Path) -> list[str]:
    """Every service has the same file names, absent where a stage has none, never renamed."""
    found = []
    for folder in _folders(services):
        if folder.name == "chassis":
            continue
        for entry in folder.iterdir():
            name = (
                entry.stem if entry.suffix == ".py" and entry.name not in FILES_OF_A_SERVICE else entry.name
            )
            if name not in FILES_OF_A_SERVICE and entry.name != "__pycache__":
                found.append(f"{folder.name}/{entry.name}")
            if entry.is_dir() and (folder / f"{entry.name}.py").exists():
                found.append(f"{folder.name}/{entry.name}: a module and a package of one name")
    return sorted(found)


def names_that_say_nothing(root: Path, packages: Sequence[str]) -> list[str]:
    """Modules named for a kind and not for what they hold."""
    paths = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    return [
        str(path.relative_to(root))
        for path in paths
        if path.stem in _NAMED_FOR_NOTHING or path.parent.name == "alembic"
    ]


def modules_too_long(root: Path, packages: Sequence[str]) -> list[str]:
    """A module that outgrows this becomes a package of the same name, split by concept."""
    found = []
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > LONGEST_MODULE:
                found.append(f"{path.relative_to(root)}: {lines} lines")
    return found


def words_of_stages(chassis: Path, words: Sequence[str]) -> list[str]:
    """Names in the chassis' code (not its prose) that belong to a stage: it passes keys along and interprets nothing."""
    pattern = re.compile(rf"(?:^|_)(?:{'|'.join(words)})(?:s?$|s?_)", re.IGNORECASE)
    found = []
    for path, tree in _sources(chassis):
        found += [
            _at(chassis, path, node, name)
            for node in ast.walk(tree)
            for name in _names(node)
            if pattern.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name))
        ]
    return found


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    return []


def _folders(services: Path) -> list[Path]:
    return sorted(path for path in services.iterdir() if path.is_dir() and path.name != "__pycache__")


def _sources(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(root.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _at(root: Path, path: Path, node: ast.AST, what: str) -> str:
    return f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)} {what}"
