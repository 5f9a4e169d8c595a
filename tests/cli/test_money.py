"""Money on the command line: what a run costs, what it may cost, and where it stops."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from tests.cli.conftest import AGENTS, Voicectl
from tests.cli.test_bench import CALLER, tone
from voicectl.analysis.cost import total_of
from voicectl.bench.budget import Quote
from voicectl.cli import console
from voicectl.events import ProviderUsed
from voicectl.ledger import Ledger
from voicectl.prices import load_prices
from voicectl.recording import open_recording

PRICES = """\
as_of: 2026-11-21
prices:
  - {provider: scripted, stage: stt, models: [default], minute: 0.06}
  - {provider: scripted, stage: llm, models: [default], prompt: 100, completion: 1000}
  - {provider: scripted, stage: tts, models: [default], characters: 300}
"""


@pytest.fixture
def shop(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose scripted agent costs money, on the virtual clock, and one caller."""
    caller = project / "recordings" / "guest"
    caller.mkdir(parents=True)
    tone(caller / "01.wav")
    tone(caller / "02.wav", 0.8, 44_100)
    (caller / "caller.yaml").write_text(CALLER)
    (project / "own.yaml").write_text(PRICES)
    monkeypatch.setenv("VOICECTL_STATE", str(project / "state"))
    return project


def bench(voicectl: Voicectl, *more: str) -> tuple[int, str, str]:
    done = voicectl(
        "bench", "-p", "quick", "-q", "--out", "run", "--json", "report.json", "--prices", "own.yaml", *more
    )
    return done.code, done.out, done.err


def spent(shop: Path) -> tuple[Decimal, int]:
    """What the traces of a run come to, and how many calls there are."""
    table = load_prices(shop / "own.yaml")
    calls = [open_recording(path.parent) for path in sorted((shop / "run").glob("*/trace.jsonl"))]
    return sum((total_of(call.events, table) for call in calls), Decimal(0)), len(calls)


def budget(shop: Path, text: str) -> None:
    (shop / "agents.yaml").write_text(AGENTS + f"    budget: {text}\n")


def test_the_report_says_what_a_run_costs_by_ones_own_prices(shop: Path, voicectl: Voicectl) -> None:
    assert bench(voicectl, "--calls", "12")[0] == 0
    cost = json.loads((shop / "report.json").read_text())["cost"]
    total, calls = spent(shop)
    assert (cost["total"], calls) == (float(total), 12)
    assert total > 0
    call = open_recording(shop / "run" / "0001-guest")
    said = [event for event in call.events if isinstance(event, ProviderUsed) and event.stage == "tts"]
    assert said[0].characters == len("Hi!")
    # Reported again, it costs the same, by the prices that were kept with it; or by others.
    assert json.loads(voicectl("report", "run", "--json").out)["cost"]["total"] == cost["total"]
    (shop / "dear.yaml").write_text(PRICES.replace("0.06", "0.12").replace("100", "200").replace("300", "600"))
    dear = json.loads(voicectl("report", "run", "--json", "--prices", "dear.yaml").out)["cost"]
    assert dear["total"] == pytest.approx(2 * cost["total"])


def test_without_prices_scripted_providers_cost_nothing_and_leave_no_trace_of_money(
    shop: Path, voicectl: Voicectl
) -> None:
    assert voicectl("bench", "-p", "quick", "-q", "--out", "run", "--budget", "0").code == 4  # two turns carry no P95
    assert "ProviderUsed" not in (shop / "run" / "0001-guest" / "trace.jsonl").read_text()


# Quotes ------------------------------------------------------------------------------------------


def test_a_quote_above_the_budget_refuses_the_run_with_one_line(shop: Path, voicectl: Voicectl) -> None:
    code, out, err = bench(voicectl, "--calls", "20", "--budget", "0.10")
    assert (code, out) == (2, "")
    assert err.startswith("voicectl: error: 20 calls will about cost $4.86")
    assert "more than the budget of $0.1 (supposing answers of 120 characters" in err
    assert len(err.splitlines()) == 1
    assert not (shop / "run").exists()


def test_a_model_without_a_price_refuses_a_budget(shop: Path, voicectl: Voicectl) -> None:
    agents = shop / "agents.yaml"
    agents.write_text(AGENTS.replace("llm: {provider: scripted}", "llm: {provider: openai, model: some-model}"))
    code, _, err = bench(voicectl, "--budget", "10")
    line = "voicectl: error: a budget cannot be kept: llm openai some-model has no price. Give it one in a file: "
    assert (code, err) == (2, f"{line}--prices FILE\n")


def test_earlier_runs_make_a_better_quote(shop: Path, voicectl: Voicectl) -> None:
    voicectl("bench", "-p", "quick", "-q", "--prices", "own.yaml")  # one call, kept in runs/
    done = voicectl("bench", "-p", "quick", "--out", "run", "--prices", "own.yaml", "--budget", "10", "--calls", "5")
    total, _ = spent(shop)
    quote = done.err.splitlines()[0]
    assert quote.endswith("as earlier runs did, and a fifth more")
    assert float(quote.partition("$")[2].partition(",")[0]) == pytest.approx(float(total) * 1.2, abs=0.001)


@pytest.mark.parametrize("amount", ["-1", "nan", "much"])
def test_what_is_no_amount_is_refused(shop: Path, voicectl: Voicectl, amount: str) -> None:
    code, _, err = bench(voicectl, "--budget", amount)
    assert (code, len(err.splitlines())) == (2, 1)


# Stopping in time --------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", ["1", "3"])
@pytest.mark.parametrize("amount", ["0.50", "0.85", "1.30"])
def test_a_budget_stops_a_run_before_it_is_exceeded(
    shop: Path, voicectl: Voicectl, amount: str, at_once: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A quote far too low lets it begin; what calls really cost must stop it.
    _cheap_quotes(monkeypatch)
    code, out, err = bench(voicectl, "--calls", "50", "--budget", amount, "--concurrency", at_once)
    total, calls = spent(shop)
    assert total <= Decimal(amount)
    assert total > Decimal(amount) / 3, "and not long before either"
    assert 0 < calls < 50
    assert code == 4, "the thresholds hold, but only of what was measured"
    assert f"stopped, because the budget of ${float(amount)} would be exceeded: ${total:.4f} spent" in err
    report = json.loads((shop / "report.json").read_text())
    assert report["interrupted"] is True
    assert report["cost"]["total"] == float(total)
    assert f"{calls} call" in out


def _cheap_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    def cheap(*args: object) -> Quote:
        return Quote({"guest": Decimal("0.001")}, {})

    monkeypatch.setattr("voicectl.bench.budget.quote", cheap)


@pytest.mark.parametrize("in_profile", [False, True])
def test_a_call_that_costs_too_much_is_cut_and_the_next_is_made(
    shop: Path, voicectl: Voicectl, in_profile: bool
) -> None:
    budget(shop, "{per_call: 100}" if in_profile else "{per_call: 0.20}")
    if in_profile:
        (shop / "profiles" / "quick.yaml").write_text("clock: virtual\nbudget: {per_call: 0.20}\n")
    code, _, err = bench(voicectl, "--calls", "3")
    assert "voicectl: 3 calls cut, having come to cost too much" in err
    report = json.loads((shop / "report.json").read_text())
    assert [call["cost"] <= 0.20 for call in report["calls"]] == [True] * 3
    assert [call["ended"] for call in report["calls"]] == ["interrupted"] * 3
    assert json.loads(voicectl("report", "run", "--json").out)["cost"] == report["cost"]
    assert code == 4


def test_a_day_never_costs_more_than_its_cap_over_several_runs(
    shop: Path, voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    monkeypatch.setattr(console, "now", lambda: noon)
    budget(shop, "{per_day: 0.60}")
    codes: list[int] = []
    for number in range(4):
        done = voicectl("bench", "-p", "quick", "-q", "--calls", "4", "--out", f"run-{number}", "--prices", "own.yaml")
        codes.append(done.code)
        if number == 3:
            assert "what 'coffee' may spend in a day, $0.6, would be exceeded" in done.err
    table = load_prices(shop / "own.yaml")
    traces = [open_recording(path.parent).events for path in shop.glob("run-*/*/trace.jsonl")]
    total = sum((total_of(events, table) for events in traces), Decimal(0))
    assert Decimal("0.30") < total <= Decimal("0.60")
    assert Ledger(shop / "state").spent("coffee", noon.date()) == total
    assert set(codes) == {4}


@pytest.mark.wall
def test_ctrl_c_ends_a_run_with_a_budget_like_any_other(shop: Path) -> None:
    (shop / "profiles" / "real-time.yaml").write_text("clock: wall\n")
    command = [sys.executable, "-m", "voicectl", "bench", "-p", "real-time", "--calls", "50", "--out", "run"]
    command += ["--prices", "own.yaml", "--budget", "100"]
    running = subprocess.Popen(command, cwd=shop, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr
    said = ""
    while "call 1 of 50" not in said:  # the first call is under way, or just over
        line = running.stderr.readline()
        assert line, "the run ended by itself"
        said += line
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    assert "Traceback" not in err and "stopped, because" not in err
    assert re.search(r"· [12] calls? ·", out)
    for path in (shop / "run").glob("*/trace.jsonl"):
        assert type(open_recording(path.parent).events[-1]).__name__ == "CallEnded"


# Providers and keys ------------------------------------------------------------------------------


def test_providers_check_says_in_one_line_what_each_lacks(voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPGRAM_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    done = voicectl("providers", "--check")
    lines = done.out.splitlines()
    assert "no  stt deepgram: needs a key. Set DEEPGRAM_API_KEY, or: voicectl keys set DEEPGRAM_API_KEY" in lines
    assert "ok  llm openai" in lines
    assert "no  llm local: needs weights. Run: voicectl models pull qwen2.5-coder-0.5b smollm2-135m" in lines
    assert "ok  llm scripted" in lines
    assert "sk-canary" not in done.out + done.err
    assert done.code == 0
    assert voicectl("providers", "deepgram", "--check").code == 3
    assert voicectl("providers", "scripted", "--check").code == 0
    assert voicectl("providers", "deepgrm").err.endswith("Did you mean 'deepgram'?\n")


def test_a_missing_package_is_named_with_the_pip_line(voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch) -> None:
    from voicectl.providers import ProviderCatalog

    monkeypatch.setattr(ProviderCatalog, "missing_packages", lambda self, stage, name: ("anthropic",))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    lines = voicectl("providers", "anthropic", "--check").out.splitlines()
    assert lines == ["no  llm anthropic: needs anthropic. Run: pip install 'voicectl[cloud]'"]


def test_keys_are_set_from_stdin_and_never_shown(voicectl: Voicectl, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, str] = {}

    def keep(name: str, key: str) -> None:
        kept[name] = key

    monkeypatch.setattr("voicectl.keys.set_key", keep)
    monkeypatch.setattr(console, "secret", lambda prompt: "sk-canary\n")  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    done = voicectl("keys", "set", "openai")
    assert (done.code, done.out, done.err) == (0, "", "OPENAI_API_KEY is in the keyring\n")
    assert kept == {"OPENAI_API_KEY": "sk-canary"}
    assert voicectl("keys", "set", "OPENAI_KEY").err.endswith("Did you mean 'OPENAI_API_KEY'?\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    listed = voicectl("keys", "list").out
    assert "sk-canary" not in listed and "environment" in listed


def test_check_warns_of_models_that_end_and_does_not_fail(shop: Path, voicectl: Voicectl) -> None:
    agents = shop / "agents.yaml"
    agents.write_text(AGENTS.replace("llm: {provider: scripted}", "llm: {provider: openai, model: gpt-4-turbo}"))
    done = voicectl("check", "agents.yaml")
    assert done.code == 0
    line = "agents.yaml:9:36: warning: the model 'gpt-4-turbo' of openai was shut down on 2026-10-23. Use 'gpt-5.6-sol'"
    assert done.err.splitlines() == [line]
    [warning] = json.loads(voicectl("check", "agents.yaml", "--json").out)["warnings"]
    assert warning["where"] == "agents.yaml:9:36"
