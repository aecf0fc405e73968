"""The rules that decide over jobs, and the frames of workers, are tested on every branch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[2]
TESTS = {
    "asyncjobs/states.py": "tests/rules/test_states.py",
    "asyncjobs/rules/outcome.py": "tests/rules/test_outcome.py",
    "asyncjobs/rules/retry.py": "tests/rules/test_retry.py",
    "asyncjobs/running/executors/process/wire.py": "tests/executors/test_wire.py",
}
# All in one process: starting pytest costs more than these tests. Each module counts what its own
# tests have run, and what runs when it is imported.
MEASURE = """
import coverage, pytest, sys

data_file, *pairs = sys.argv[1:]
measuring = coverage.Coverage(data_file=data_file)
measuring.start()
measuring.switch_context("import")
import asyncjobs.testing, asyncjobs.running.executors.process.wire
for module, tests in zip(pairs[::2], pairs[1::2]):
    measuring.switch_context(module)
    # Its plugins are there from the time before.
    if pytest.main(["-q", "-W", "ignore::pytest.PytestAssertRewriteWarning", tests]) != 0:
        sys.exit(f"{tests} failed")
measuring.stop()
measuring.save()
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_file = tmp_path_factory.mktemp("coverage") / "data"
    pairs = [word for pair in TESTS.items() for word in pair]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(data_file), *pairs],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return data_file


@pytest.mark.parametrize("module", TESTS)
def test_module_is_covered_by_its_own_tests(
    measured: Path, module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = coverage.Coverage(data_file=str(measured), config_file=str(ROOT / "pyproject.toml"))
    found.load()
    percent = found.report(
        include=[str(ROOT / module)],
        contexts=["^import$", f"^{re.escape(module)}$"],
        show_missing=True,
    )
    assert percent == 100, capsys.readouterr().out
