"""The rules that decide over jobs, and the frames of workers, are tested on every branch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = {
    "asyncjobs/states.py": "tests/rules/test_states.py",
    "asyncjobs/rules/outcome.py": "tests/rules/test_outcome.py",
    "asyncjobs/rules/retry.py": "tests/rules/test_retry.py",
    "asyncjobs/running/executors/process/wire.py": "tests/executors/test_wire.py",
}


@pytest.mark.parametrize("module", TESTS)
def test_module_is_covered_by_its_own_tests(module: str, tmp_path: Path) -> None:
    def coverage(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "coverage", *arguments],
            cwd=ROOT,
            env={**os.environ, "COVERAGE_FILE": str(tmp_path / "coverage")},
            capture_output=True,
            text=True,
            check=False,
        )

    ran = coverage("run", "-m", "pytest", "-q", TESTS[module])
    assert ran.returncode == 0, ran.stdout
    report = coverage("report", "--show-missing", f"--include={module}", "--fail-under=100")
    assert report.returncode == 0, report.stdout + report.stderr
