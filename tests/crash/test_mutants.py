"""Whether the tests would notice: every seeded mutant of the library makes some of them fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from .mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 240


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of package and tests, to be mutated."""
    folder = tmp_path_factory.mktemp("mutants")
    for name in ("asyncjobs", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def mutated(mutant: Mutant) -> str:
    """The file's text with the mutant's change; the original must be there exactly once."""
    text = (ROOT / "asyncjobs" / mutant.file).read_text()
    assert text.count(mutant.old) == 1, f"{mutant.old!r} stands {text.count(mutant.old)} times"
    return text.replace(mutant.old, mutant.new)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_mutant_can_be_made(mutant: Mutant) -> None:
    assert mutated(mutant) != (ROOT / "asyncjobs" / mutant.file).read_text()


def run(tests: Iterable[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run tests against the copy, which comes first on the path."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", *tests],
        cwd=folder, env={**os.environ, "ASYNCJOBS_NO_SHRINK": "1"},
        capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.proof
def test_the_copy_passes_as_long_as_nothing_is_changed(copy: Path) -> None:
    """Else every mutant would seem to be caught."""
    ended = run(sorted({test for mutant in MUTANTS for test in mutant.tests}), copy)
    assert ended.returncode == 0, ended.stdout


@pytest.mark.proof
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "_"))
def test_a_mutant_is_caught(mutant: Mutant, copy: Path) -> None:
    target = copy / "asyncjobs" / mutant.file
    original = target.read_text()
    target.write_text(mutated(mutant))
    try:
        ended = run(mutant.tests, copy)
        caught = ended.returncode != 0
        assert "no tests ran" not in ended.stdout
    except subprocess.TimeoutExpired:
        caught = True  # it hangs: the suite would not stay green either
    finally:
        target.write_text(original)
    assert caught, f"{mutant.name}: nobody noticed"
