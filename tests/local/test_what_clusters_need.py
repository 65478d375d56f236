"""Where clusters cannot run, or their engine and images cannot be had, it is said what is missing, and nothing is begun.

No container is started here: the scripts run among tools that are planted, each of which says no in its own way.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.local.environment import ROOT

IMAGES = ROOT / "deploy" / "images"
NO = "echo 'it says no' >&2; exit 1"


def planted(directory: Path, tools: Mapping[str, str]) -> dict[str, str]:
    """A PATH of the shell's own tools and these, and a home without any cache."""
    tools_of_the_shell = (
        "sh",
        "dirname",
        "mktemp",
        "rm",
        "mkdir",
        "tail",
        "cat",
        "sed",
        "touch",
        "find",
        "head",
    )
    place = directory / "bin"
    place.mkdir()
    for name in tools_of_the_shell:
        found = shutil.which(name)
        assert found is not None
        (place / name).symlink_to(found)
    for name, body in tools.items():
        (place / name).write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        (place / name).chmod(0o755)
    return {"PATH": str(place), "HOME": str(directory), "XDG_CACHE_HOME": str(directory / "cache")}


def says(script: Path, *arguments: str, environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        [script, *arguments], env=dict(environment), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    return done.stderr


ROOTS = {"id": "echo 0"}
BUILDERS = {**ROOTS, "debootstrap": NO, "tar": NO, "docker": "exit 0"}


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ({"id": "echo 1000"}, "debootstrap needs root"),
        (ROOTS, "debootstrap is not installed (apt-get install debootstrap)"),
        (ROOTS | {"debootstrap": NO, "tar": NO}, "docker is not installed"),
        (BUILDERS | {"docker": NO}, "no Docker engine answers: start one, or set DOCKER_HOST"),
    ],
)
def test_images_are_not_built_without_what_they_are_built_with(
    tmp_path: Path, tools: Mapping[str, str], words: str
) -> None:
    said = says(IMAGES / "build", environment=planted(tmp_path, tools))
    assert f"deploy/images/build: {words}" in said
    assert said.count("\n") == 1, "one line, and nothing was begun"


def test_images_are_not_built_where_no_mirror_is_in_reach(tmp_path: Path) -> None:
    """A checkout of its own: the one we are in must not be asked to fetch anything."""
    place = tmp_path / "checkout" / "deploy" / "images"
    shutil.copytree(IMAGES, place)
    virtual = tmp_path / "checkout" / ".venv" / "bin"
    virtual.mkdir(parents=True)
    for name in ("kaowu", "python"):
        (virtual / name).write_text("#!/bin/sh\necho /nowhere\n", encoding="utf-8")
        (virtual / name).chmod(0o755)
    said = says(place / "build", environment=planted(tmp_path, BUILDERS))
    assert "it says no" in said, "its own last words"
    assert "debootstrap needs a mirror in reach" in said


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ({"id": "echo 1000"}, "an engine needs root"),
        (ROOTS, "it can be fetched on Debian only (apt-get, dpkg-deb): install Docker"),
        (ROOTS | {"apt-get": NO, "dpkg-deb": NO}, "apt needs a mirror in reach"),
    ],
)
def test_an_engine_is_not_started_without_what_it_is_made_of(
    tmp_path: Path, tools: Mapping[str, str], words: str
) -> None:
    said = says(IMAGES / "engine", "start", environment=planted(tmp_path, tools))
    assert words in said


def test_without_an_engine_the_run_of_clusters_ends_and_says_what_it_needs(tmp_path: Path) -> None:
    nowhere = f"unix://{tmp_path}/docker.sock"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/cluster"],
        env={**os.environ, "DOCKER_HOST": nowhere},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stdout
    said = " ".join(done.stdout.split())
    assert "make test-cluster cannot run here" in said
    for what in (
        nowhere,
        "as root on Debian with a mirror in reach",
        "deploy/images/engine start",
        "debootstrap",
    ):
        assert what in said
    assert " passed" not in said
    assert " failed" not in said


def test_without_images_the_run_of_clusters_says_how_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import docker  # noqa: PLC0415  its import costs half a second

    from deploy.local import containers  # noqa: PLC0415
    from deploy.local.kafka import Missing  # noqa: PLC0415

    class Images:
        """An engine that answers, has nothing, and reaches no registry."""

        def list(self) -> list[object]:
            return []

        def pull(self, _name: str) -> None:
            raise docker.errors.APIError("no route to host")

    class Client:
        images = Images()
        containers = type("Containers", (), {"list": staticmethod(lambda **_: [])})()

        def close(self) -> None: ...

    monkeypatch.setattr(containers, "engine_answers", lambda: True)
    monkeypatch.setattr(docker, "from_env", Client)
    with pytest.raises(Missing, match=r"cannot be pulled .*make one with deploy/images/build"):
        containers.find_image(["somewhere/kafka:1"], tmp_path)
