"""`pytest recordings/`: each recording is a test; a run without any notices nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from replay.support import make_calls

pytest_plugins = "pytester"
# By its module, whether or not it is installed; by its entry point it must not come a second time.
PLUGIN = ("-p", "no:voicectl", "-p", "voicectl.pytest_plugin", "-p", "no:cacheprovider")


def test_a_recording_is_a_test(pytester: pytest.Pytester) -> None:
    make_calls(pytester.path / "recordings")
    result = pytester.runpytest_inprocess(*PLUGIN, "-v", "recordings")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["recordings/0001-order/trace.jsonl::replay PASSED*"])


def test_one_that_diverges_fails_with_the_first_differing_event_and_no_traceback(pytester: pytest.Pytester) -> None:
    first, second = make_calls(pytester.path / "recordings")
    (first / "expect.yaml").write_text("exchanges: [{turn: 1, heard: {contains: espresso}}]\n")
    (second / "call.wav").write_bytes(b"RIFF")
    result = pytester.runpytest_inprocess(*PLUGIN, "recordings")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*replay of 0001-order*",
            "recordings/0001-order: 3 turns*not as expected",
            "*/expect.yaml:1:30: turn 1: the STT heard “A large latte, please.”, without “espresso”",
            "*call.wav: is not what was recorded: its hash differs*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    shutil.rmtree(second)
    (first / "expect.yaml").write_text("thresholds: [p95(voice_to_voice_ms) < 9000]\n")
    pytester.runpytest_inprocess(*PLUGIN, "recordings").assert_outcomes(skipped=1)


def test_an_ordinary_run_imports_nothing_more(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing_of_voicectl_was_imported():
            ours = {name for name in sys.modules if name.startswith("voicectl")}
            assert ours == {"voicectl", "voicectl.pytest_plugin"}
            assert not {"numpy", "pydantic", "yaml", "asyncio.runners"} & set(sys.modules)
        """
    )
    pytester.path.joinpath("trace.jsonl").write_text("not beside any streams\n")
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-m", "pytest", "-q", *PLUGIN, "-p", "no:hypothesispytest", "-p", "no:anyio"]
    env = {"PYTHONPATH": str(root), "PATH": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=pytester.path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
