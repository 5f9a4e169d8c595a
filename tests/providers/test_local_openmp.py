"""The language model's engine finds an OpenMP runtime on a system that has none."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
from voicectl.providers.local_llm import _lend_libgomp
assert _lend_libgomp()
import xllamacpp
mapped = {line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line and "(deleted)" not in line}
lent = {line.split()[-2] for line in open("/proc/self/maps") if "libgomp" in line and "(deleted)" in line}
assert lent and not mapped, (lent, mapped)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux leaves the OpenMP runtime to the system")
def test_the_engine_uses_the_runtime_that_is_lent_to_it() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
