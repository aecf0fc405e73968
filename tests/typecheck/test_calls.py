"""What the type checkers say about right and wrong calls, line by line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CALLS = Path(__file__).resolve().parent / "calls" / "tasks.py"

Findings = tuple[set[int], dict[int, str]]
"""Lines with an error, and what ``reveal_type`` said by line."""


def expected(source: str) -> Findings:
    errors: set[int] = set()
    types: dict[int, str] = {}
    for number, line in enumerate(source.splitlines(), 1):
        code, _, mark = line.partition("  # ")
        if mark == "error":
            errors.add(number)
        elif mark.startswith("type: "):
            types[number] = mark.removeprefix("type: ")
        assert ("reveal_type(" in code) == (number in types), f"line {number}"
    return errors, types


def run(program: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr  # 1: there are findings; 2: it broke
    return done.stdout


def mypy_findings(folder: Path) -> Findings:
    output = run(
        "mypy",
        *("--config-file", str(ROOT / "pyproject.toml")),
        # The cache of ``make test``: without it the whole library would be read anew.
        *("--cache-dir", str(ROOT / ".mypy_cache")),
        *("--no-error-summary", "--no-pretty", "--hide-error-context", "calls.py"),
        cwd=folder,
    )
    errors: set[int] = set()
    types: dict[int, str] = {}
    for line in output.splitlines():
        found = re.match(r"calls\.py:(\d+): (error|note): (.*)", line)
        assert found, line
        if found[2] == "error":
            errors.add(int(found[1]))
        elif found[3].startswith("Revealed type is "):
            full = found[3].removeprefix("Revealed type is ").strip('"')
            types[int(found[1])] = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", full)
    return errors, types


def pyright_findings(folder: Path) -> Findings:
    configuration = {
        "include": ["."],
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
        "typeCheckingMode": "standard",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(configuration))
    output = run("pyright", "--outputjson", "--pythonpath", sys.executable, cwd=folder)
    errors: set[int] = set()
    types: dict[int, str] = {}
    for finding in json.loads(output)["generalDiagnostics"]:
        line = finding["range"]["start"]["line"] + 1
        if finding["severity"] == "error":
            errors.add(line)
        elif finding["severity"] == "information":
            types[line] = re.search(r'" is "(.*)"$', finding["message"])[1]  # type: ignore[index]
    return errors, types


@pytest.mark.parametrize("checker", [mypy_findings, pyright_findings], ids=["mypy", "pyright"])
def test_wrong_calls_are_reported_and_right_ones_have_their_types(
    checker: Callable[[Path], Findings], tmp_path: Path
) -> None:
    source = CALLS.read_text("utf-8")
    (tmp_path / "calls.py").write_text(source, "utf-8")
    errors, types = checker(tmp_path)
    expected_errors, expected_types = expected(source)
    assert len(expected_errors) > 30
    assert len(expected_types) > 25
    assert errors - expected_errors == set(), "right calls are reported"
    assert expected_errors - errors == set(), "wrong calls pass"
    assert types == expected_types
