"""Measures voice-to-voice of a run again, without voicectl: numpy over call.wav and the callers' files.

    python tools/check_latency.py RUN --callers recordings [--callers MORE]

For each exchange of RUN/report.json: the utterance's own WAV is found in the caller's channel by
cross-correlation, its last voiced sample is the truth beside it (caller.yaml) or is measured on the
file; the agent's first audible sample after it is found in the other channel. Nothing of the trace is
read. Exits with 1 when a figure is more than 10 ms from the report's.
"""

from __future__ import annotations

import argparse
import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOLERANCE_MS = 10.0
TIMEOUT_S = 10.0
AUDIBLE_DBFS = -50.0
Samples = NDArray[np.float64]


def read(path: Path) -> tuple[int, Samples]:
    """Rate, and the samples of every channel in rows, on the 16-bit scale."""
    raw = path.read_bytes()
    codec = channels = rate = bits = 0
    at = 12
    while at + 8 <= len(raw):
        name, size = struct.unpack_from("<4sI", raw, at)
        if name == b"fmt ":
            codec, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", raw, at + 8)
            if codec == 0xFFFE:
                (codec,) = struct.unpack_from("<H", raw, at + 32)
        if name == b"data":
            data = raw[at + 8 : at + 8 + size]
            break
        at += 8 + size + (size & 1)
    else:
        raise SystemExit(f"{path}: no samples")
    if codec == 7:
        flipped = ~np.frombuffer(data, np.uint8)
        size_of = (((flipped & 15).astype(int) << 3) + 132 << ((flipped >> 4) & 7)) - 132
        x = np.where(flipped & 128, -size_of, size_of).astype(float)
    elif codec == 1 and bits == 16:
        x = np.frombuffer(data, "<i2").astype(float)
    elif codec == 3:
        x = np.frombuffer(data, f"<f{bits // 8}") * 32768.0
    else:
        raise SystemExit(f"{path}: only 16-bit, float and mu-law are read here")
    return rate, x[: len(x) // channels * channels].reshape(-1, channels).T


def sounds(x: Samples, rate: int, dbfs: float = AUDIBLE_DBFS) -> list[tuple[int, int]]:
    """(first, last) sample of each stretch of sound: 10 ms blocks, 200 ms apart, 30 ms long or more."""
    length, hop = round(0.010 * rate), round(0.001 * rate)
    level = levels(x, rate)
    floor = 32768 * 10 ** (dbfs / 20)
    found: list[list[int]] = []
    edges = np.flatnonzero(np.diff(np.concatenate(([0], (level > floor).astype(int), [0]))))
    for rise, fall in edges.reshape(-1, 2):
        head, tail = x[rise * hop : rise * hop + length], x[(fall - 1) * hop : (fall - 1) * hop + length]
        first = rise * hop + int(np.flatnonzero(np.abs(head - np.median(head)) >= floor)[0])
        last = (fall - 1) * hop + int(np.flatnonzero(np.abs(tail - np.median(tail)) >= floor)[-1])
        if found and first - found[-1][1] < 0.2 * rate:
            found[-1][1:] = [last, found[-1][2] + last - first + 1]
        else:
            found.append([first, last, last - first + 1])
    return [(first, last) for first, last, audible in found if audible >= 0.030 * rate]


def levels(x: Samples, rate: int) -> Samples:
    """Standard deviation of the 10 ms that begin at each millisecond."""
    windows = np.lib.stride_tricks.sliding_window_view(x, round(0.010 * rate))[:: round(0.001 * rate)]
    return windows.std(axis=1)


def voiced(x: Samples, rate: int, truth: dict[str, int]) -> tuple[float, float]:
    """First and last voiced second of an utterance: the truth, or else by level."""
    if "last_voiced_sample" in truth:
        return truth.get("first_voiced_sample", 0) / rate, truth["last_voiced_sample"] / rate
    loud = 20 * np.log10(np.sort(levels(x, rate))[-100:][0] / 32768)
    found = sounds(x, rate, min(AUDIBLE_DBFS, max(-70.0, loud - 30.0)))
    return found[0][0] / rate, found[-1][1] / rate


def place(line: Samples, rate: int, x: Samples, own_rate: int, start: int) -> tuple[int, float]:
    """Sample of the line where the utterance begins, at or after `start`, and how alike they are (0..1)."""
    count = int(len(x) * rate / own_rate)
    pattern = np.interp(np.arange(count) / rate, np.arange(len(x)) / own_rate, x)
    searched = line[start:]
    if len(searched) < count:
        return start, 0.0
    size = 1 << (len(searched) + count).bit_length()
    alike = np.fft.irfft(np.fft.rfft(searched, size) * np.fft.rfft(pattern, size).conj(), size)
    alike = alike[: len(searched) - count + 1]
    power = np.concatenate(([0.0], np.cumsum(searched**2)))
    own = float(pattern @ pattern)
    alike /= np.sqrt((power[count:] - power[:-count] + own / 100) * own)  # silence is like nothing
    best = int(np.argmax(alike))
    return start + best, float(alike[best])


def truth_of(path: Path) -> dict[str, int]:
    """The voiced samples that caller.yaml gives for a file, and whether it is said over the agent."""
    script = path.parent / "caller.yaml"
    blocks = re.split(r"^\s*- ", script.read_text("utf-8"), flags=re.MULTILINE) if script.is_file() else []
    own = next((block for block in blocks if re.search(rf"\bfile: *[\"']?{re.escape(path.name)}\b", block)), "")
    return {name: int(value) for name, value in re.findall(r"(\w+_voiced_sample|during_agent_ms): *(\d+)", own)}


def check(run: Path, callers: list[Path]) -> int:
    if not (run / "report.json").is_file():
        raise SystemExit(f"{run}: not a run, it has no report.json")
    report: dict[str, Any] = json.loads((run / "report.json").read_text("utf-8"))
    files = [path for folder in callers for path in ([folder] if folder.is_file() else sorted(folder.rglob("*.wav")))]
    print(f"{'call':32} {'turn':>4} {'here, ms':>9} {'report':>9} {'difference':>10}")
    worst, wrong = 0.0, 0
    for call in report["calls"]:
        rate, (left, right) = read(run / call["call"] / "call.wav")
        agent = [(first / rate, last / rate) for first, last in sounds(right, rate)]
        exchanges = [one for one in report["exchanges"] if one["call"] == call["call"]]
        spans: list[tuple[float, float]] = []
        over: list[bool] = []
        start = 0
        for one in exchanges:
            named = [path for path in files if one["utterance"] in (path.name, path.stem)]
            own = [path for path in named if call["caller"] in (path.parent.name, path.stem)] or named
            if not own:
                raise SystemExit(f"no WAV of the utterance {one['utterance']!r} of {call['caller']!r} in --callers")
            fits = [(*place(left, rate, (heard := read(path))[1].mean(axis=0), heard[0], start), path) for path in own]
            at, alike, path = max(fits, key=lambda fit: fit[1])
            if alike < 0.5:
                raise SystemExit(f"{call['call']} turn {one['turn']}: {path.name} is not in the caller's channel")
            own_rate, x = read(path)
            first, last = voiced(x.mean(axis=0), own_rate, truth_of(path))
            spans.append((at / rate + first, at / rate + last))
            over.append("during_agent_ms" in truth_of(path))
            start = at + int(last * rate)
        for one, (first, last), barge_in, following in zip(exchanges, spans, over, [*spans[1:], None], strict=True):
            until = min(last + TIMEOUT_S, following[0] if following else len(right) / rate)
            # An agent that was speaking when the caller began is not answering yet.
            talking = barge_in or any(begin <= first and end >= first - 0.5 for begin, end in agent)
            answers = [begin for begin, _ in agent if (last if talking else first) < begin < until]
            said = one["voice_to_voice_ms"] if one["outcome"] in ("answered", "early") else None
            here = (answers[0] - last) * 1000 if answers else None
            difference = here - said if here is not None and said is not None else None
            bad = (here is None) != (said is None) or abs(difference or 0.0) > TOLERANCE_MS
            if one["outcome"] == "unfinished":
                bad = False
            wrong += bad
            worst = max(worst, abs(difference or 0.0))
            cells = ["none" if value is None else f"{value:.1f}" for value in (here, said, difference)]
            mark = "  <-- differs" if bad else ""
            print(f"{call['call']:32} {one['turn']:4} {cells[0]:>9} {cells[1]:>9} {cells[2]:>10}{mark}")
    total = len(report["exchanges"])
    print(f"{total - wrong} of {total} turns within {TOLERANCE_MS:.0f} ms; largest difference {worst:.2f} ms")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("run", type=Path, help="folder of a run, with report.json")
    parser.add_argument("--callers", type=Path, action="append", default=[], help="where the callers' WAVs are")
    given = parser.parse_args()
    sys.exit(check(given.run, given.callers or [Path("recordings")]))
