"""`expect.yaml`: every problem with its place, what is not met, and what accepting writes."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from voicectl.errors import SpecError
from voicectl.replay.check import Options, Outcome, check
from voicectl.replay.expect import load_expectation


def expect(folder: Path, text: str) -> Path:
    (folder / "expect.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def problems(outcome: Outcome) -> list[str]:
    """The problems, without the folder."""
    return [str(problem).split("/")[-1] for problem in outcome.problems]


def accept(folder: Path, *overrides: str) -> Outcome:
    """What `--accept` does."""
    acceptance = check(folder, Options(accept=True, overrides=overrides)).acceptance
    assert acceptance
    for name, text in (("expect.yaml", acceptance.expect), ("expect.jsonl", acceptance.trace)):
        if text is not None:
            (folder / name).write_text(text, encoding="utf-8")
    return check(folder, Options(overrides=overrides))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trase: exact", "expect.yaml:1:1: unknown key 'trase'. Did you mean 'trace'?"),
        ("trace: precise", "expect.yaml:1:8: 'trace' must be exact, recorded or any, not 'precise'"),
        ("thresholds: [max(voice_to_voice) < 900]", "expect.yaml:1:14: unknown metric 'voice_to_voice'. Did you mean"),
        ("exchanges: [{heard: latte}]", "expect.yaml:1:13: missing key 'turn'. Which one"),
        ("exchanges:\n  - turn: 1\n    heard: {matches: '('}", "expect.yaml:3:22: '(' is not a regular expression"),
        ("events: {must: [TurnEnd]}", "expect.yaml:1:17: unknown event 'TurnEnd'. Did you mean 'TurnEnded'?"),
        ("events:\n  must: [{event: TurnEnded, tun: 1}]", "2:10: TurnEnded has no field 'tun'. Did you mean 'turn'?"),
        ("events:\n  must_not: [{event: TurnEnded, count: 1}]", "expect.yaml:2:13: 'count' is for events that must"),
    ],
)
def test_a_mistake_is_told_with_its_place(order: Path, text: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_expectation(expect(order, text))
    assert problem in str(caught.value)
    outcome = check(order, Options())
    assert outcome.state == "refused"
    assert problem in str(outcome.problems[0])


def test_what_holds_is_ok(order: Path) -> None:
    expect(
        order,
        """\
        thresholds: [max(voice_to_voice_ms) < 2000, count(no_answer) <= 0]
        exchanges:
          - turn: 1
            outcome: answered
            heard: {contains: [large, latte], matches: "(?i)latte", wer: 0%}
            said: {contains: one large latte}
          - turn: 2
            heard: with OAT milk
        events:
          must: [TurnEnded, {event: TurnEnded, turn: 2}, {event: SpeechStarted, count: 3}]
          must_not: [AgentInterrupted, ProviderFailed]
        """,
    )
    assert check(order, Options()) == check(order, Options())
    assert (check(order, Options()).state, problems(check(order, Options()))) == ("ok", [])


def test_what_does_not_hold_is_told_with_its_place(order: Path) -> None:
    expect(
        order,
        """\
        thresholds: [max(voice_to_voice_ms) < 100, p95(voice_to_voice_ms) < 2000]
        exchanges:
          - turn: 1
            outcome: early
            heard: {contains: [latte, large]}
            said: Good morning.
          - turn: 2
            heard: {text: With soy milk., wer: 10%}
          - turn: 9
            heard: anything
        events:
          must: [AgentInterrupted, {event: SpeechStarted, count: 1}]
          must_not: [{event: TurnEnded, turn: 2}]
        """,
    )
    outcome = check(order, Options())
    assert outcome.state == "differs"
    assert problems(outcome) == [
        "expect.yaml:4:14: turn 1 was to be 'early' and is 'answered'",
        "expect.yaml:5:12: turn 1: the STT heard “A large latte, please.”, without “large” where it belongs",
        "expect.yaml:6:11: turn 1: the agent said “Sure, one large latte with oat milk. Anything else for you today?”, "
        "not “Good morning.”",
        "expect.yaml:8:12: turn 2: the STT heard “With oat milk.”, 33% of the words of “With soy milk.” are wrong, "
        "10% may be",
        "expect.yaml:9:5: there is no turn 9: the call has 3",
        "expect.yaml:12:10: AgentInterrupted must happen, and did not",
        "expect.yaml:12:28: SpeechStarted must happen once, and happened 3 times",
        "expect.yaml:13:14: TurnEnded (turn 2) must not happen, and happened once",
        f"expect.yaml:1:14: max(voice_to_voice_ms) < 100 fails: it is {_slowest(outcome)}",
    ]
    assert outcome.undecided == ("p95(voice_to_voice_ms) < 2000 takes 20 turns",)


def _slowest(outcome: Outcome) -> str:
    assert outcome.call
    return f"{max(exchange.wait for exchange in outcome.call.measures.exchanges) / 1000:.0f}"


def test_a_threshold_that_so_few_turns_cannot_decide_is_undecided(order: Path) -> None:
    assert check(expect(order, "thresholds: [p95(voice_to_voice_ms) < 2000]"), Options()).state == "undecided"


def test_with_any_trace_only_what_is_said_counts(order: Path) -> None:
    expect(order, "trace: any\nexchanges: [{turn: 1, heard: {contains: latte}}]")
    assert check(order, Options(overrides=("turn.endpointing.silence_ms=700",))).state == "ok"


def test_an_exact_trace_that_is_missing_is_one_clear_line(order: Path) -> None:
    outcome = check(expect(order, "trace: exact"), Options())
    assert outcome.state == "refused"
    assert "expect.jsonl: is missing. Write it with: voicectl replay --accept" in str(outcome.problems[0])


def test_what_was_accepted_holds_and_another_rule_does_not(hasty: Path) -> None:
    first = accept(hasty)
    assert (first.state, first.against) == ("ok", "expect.jsonl")
    expected = load_expectation(hasty)
    assert expected
    assert expected.spec.trace == "exact"
    assert expected.spec.exchanges[0].heard
    again = check(hasty, Options(accept=True)).acceptance
    assert again
    assert (again.expect, again.trace) == (None, None)

    silence = "turn.endpointing.silence_ms=600"
    assert check(hasty, Options(overrides=(silence,))).state == "differs"
    assert accept(hasty, silence).state == "ok"
    assert check(hasty, Options()).state == "differs"


def test_accepting_leaves_a_persons_decisions_alone(order: Path) -> None:
    expect(
        order,
        """\
        thresholds: [max(voice_to_voice_ms) < 100]
        exchanges:
          - {turn: 1, heard: {contains: latte}, said: Good morning.}
          - {turn: 2, outcome: answered}
        events: {must: [AgentInterrupted]}
        """,
    )
    outcome = accept(order)
    assert sorted(text.split(": ", 1)[1].split(" ")[0] for text in problems(outcome)) == [
        "AgentInterrupted",
        "max(voice_to_voice_ms)",
    ]
    expected = load_expectation(order)
    assert expected
    one, two = expected.spec.exchanges
    assert one.heard and one.heard.contains == ("latte",)
    assert one.said and one.said.text and one.said.text.startswith("Sure, one large latte")
    assert two.model_dump(exclude_defaults=True) == {"turn": 2, "outcome": "answered"}
