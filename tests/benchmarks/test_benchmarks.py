"""Each benchmark runs, with sizes that prove nothing else."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.__main__ import NAMES, main
from benchmarks.harness import Bar, Row, percentile

CHILDREN = ["commands", "memory", "idle", "recovery", "processes", "workers", "seeing", "startup"]
FAST = [name for name in NAMES if name not in CHILDREN]
WITH_CHILDREN = [name for name in NAMES if name not in FAST]


def test_every_benchmark_inside_this_process_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--smoke", "--json", "--dir", str(tmp_path), *FAST]) == 0

    found = msgspec.json.decode(capsys.readouterr().out)
    assert [report["name"] for report in found["reports"]] == FAST
    assert all(report["rows"] for report in found["reports"])


@pytest.mark.parametrize("name", WITH_CHILDREN)
def test_a_benchmark_with_children_runs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--smoke", "--dir", str(tmp_path), name]) == 0

    assert f"{name}: " in capsys.readouterr().out


def test_the_command_line_knows_its_benchmarks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "nonsense"], capture_output=True, text=True
    )

    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_a_row_tells_whether_its_bar_is_met() -> None:
    missed = Row(what="x", value=1, unit="s", floor=4, bar=Bar(0.5))

    assert missed.verdict == "missed"
    assert Row(what="x", value=2, unit="s", floor=4, bar=Bar(0.5)).verdict == "met"
    assert Row(what="x", value=1, unit="s", floor=0, bar=Bar(0.5)).verdict == "missed"
    assert Row(what="x", value=2, unit="s", bar=Bar(2, of="value", least=False)).verdict == "met"
    assert Row(what="x", value=2, unit="s").verdict == ""


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(range(1, 101), 99) == 99
    assert percentile([7], 99) == 7
