"""A whole run in figures: recordings in, one frozen `Analysis` out. Pure.

Who is counted where:

- percentiles of voice-to-voice: answered exchanges, and unanswered ones as "at least so long";
- percentiles of the stages: answered exchanges;
- the cold first exchange of the run is in none of them and is shown apart, as early answers and
  greetings are;
- shares (no answer, early answer, slot recall, word error rate): all exchanges but unfinished ones.

All durations are milliseconds from here on, as reports and thresholds spell them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from voicectl.analysis.cost import Cost, Tally, merged, priced, tally
from voicectl.analysis.definitions import ALL_STAGES, Exchange, Measures, Share, measure
from voicectl.analysis.percentiles import Summary, Value, summarise
from voicectl.analysis.verdict import Verdict, judge
from voicectl.errors import RecordingError
from voicectl.prices import NO_PRICES, PriceTable, list_prices
from voicectl.recording import Recording
from voicectl.spec.threshold import Threshold

Times = Literal["measured", "modelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What only the run itself knows.

    Args:
        peak_rss_mb: most resident memory of the run.
        machine: plain facts about it ("cpus": 2), for people.
        busy_cpus: CPUs that other processes kept busy meanwhile, on average.
        interrupted: stopped before all calls were made.
        warm: the first exchange is like the others (a replay), so it counts.
        prices: what vendors charge (None: their list prices).
    """

    agent: str
    profile: str
    peak_rss_mb: float | None = None
    machine: Mapping[str, str | int | float] = field(default_factory=dict[str, str | int | float])
    busy_cpus: float | None = None
    interrupted: bool = False
    warm: bool = False
    prices: PriceTable | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its folder's name, what was measured, where the recording breaks off, and what vendors
    are to be paid for."""

    name: str
    measures: Measures
    cut: str | None = None
    used: tuple[Tally, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.measures.timeline.end / 1_000_000


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange and the call it belongs to. `cold`: the first of the run."""

    call: str
    exchange: Exchange
    cold: bool = False

    @property
    def wait_ms(self) -> float:
        return self.exchange.wait / 1000


@dataclass(frozen=True, slots=True)
class Analysis:
    """A run in figures.

    Args:
        times: "measured" on the wall clock, "modelled" on the virtual one.
        durations: by the metric's name, in milliseconds; of the stages that these agents have.
        shares: ratios and counts, by the metric's name.
        by_stamps: voice-to-voice as the pipeline's own stamps have it.
        stamps_minus_sound: how far each of them is from the sound.
        cost: all calls in money (None: no vendor was asked).
        costs: each call in money, in the order of `calls`.
        money: what calls cost, by the metric's name, in dollars.
    """

    run: Run
    times: Times
    calls: tuple[Call, ...]
    turns: tuple[Turn, ...]
    durations: Mapping[str, Summary]
    shares: Mapping[str, Share]
    by_stamps: Summary
    stamps_minus_sound: Summary
    verdicts: tuple[Verdict, ...]
    cost: Cost | None
    costs: tuple[Cost, ...]
    money: Mapping[str, Summary]

    def of(self, outcome: str) -> list[Turn]:
        """The turns that came out so."""
        return [turn for turn in self.turns if turn.exchange.outcome == outcome]

    @property
    def counted(self) -> list[Turn]:
        """The answered turns of the percentiles, shortest wait first."""
        return sorted((turn for turn in self.of("answered") if not turn.cold), key=lambda turn: turn.wait_ms)

    @property
    def cold(self) -> Turn | None:
        return next((turn for turn in self.turns if turn.cold), None)


def analyse(recordings: Iterable[Recording], run: Run, thresholds: Sequence[Threshold] = ()) -> Analysis:
    """Measure every call of a run and sum it up.

    Args:
        recordings: in the order the calls were started; each is let go before the next is read.

    Raises:
        RecordingError: recordings of the wall clock and of the virtual clock together.
    """
    return sum_up(map(measured, recordings), run, thresholds)


def measured(recording: Recording) -> Call:
    """One call of a run, without its sound."""
    measures = measure(
        recording.events, recording.rate, recording.left, recording.right, broken_off=recording.cut is not None
    )
    return Call(recording.path.name, measures, recording.cut, tally(recording.events))


def sum_up(measured_calls: Iterable[Call], run: Run, thresholds: Sequence[Threshold] = ()) -> Analysis:
    """The figures of a run whose calls have been measured; each has a name of its own.

    Raises:
        RecordingError: calls of the wall clock and of the virtual clock together.
    """
    calls: list[Call] = []
    clocks: set[str] = set()
    for call in measured_calls:
        clocks.add(call.measures.timeline.clock or "wall")
        if len(clocks) > 1:
            raise RecordingError(
                "runs on another clock than the calls before it; measured and modelled times do not go together",
                where=call.name,
            )
        calls.append(call)
    turns = tuple(_turns(calls, cold=not run.warm))
    number = {call.name: index for index, call in enumerate(calls)}
    durations = _durations(calls, turns, number)
    shares = _shares(turns)
    prices = run.prices or (list_prices() if any(call.used for call in calls) else NO_PRICES)
    costs = tuple(priced(call.used, prices, seconds=call.seconds) for call in calls)
    money = _money(costs)
    stamped = [
        (turn, stamps / 1000)
        for turn in turns
        if turn.exchange.outcome == "answered"
        and not turn.cold
        and (stamps := turn.exchange.wait_by_stamps) is not None
    ]
    return Analysis(
        run=run,
        times="modelled" if clocks == {"virtual"} else "measured",
        calls=tuple(calls),
        turns=turns,
        durations=durations,
        shares=shares,
        by_stamps=summarise([Value(stamps, number[turn.call]) for turn, stamps in stamped]),
        stamps_minus_sound=summarise([Value(stamps - turn.wait_ms, number[turn.call]) for turn, stamps in stamped]),
        verdicts=judge(thresholds, {**durations, **money}, shares),
        cost=_sum(calls, prices),
        costs=costs,
        money=money,
    )


def _turns(calls: Iterable[Call], *, cold: bool) -> Iterator[Turn]:
    for call in calls:
        for exchange in call.measures.exchanges:
            yield Turn(call.name, exchange, cold)
            cold = False


def _durations(calls: Sequence[Call], turns: Sequence[Turn], number: Mapping[str, int]) -> dict[str, Summary]:
    warm = [turn for turn in turns if not turn.cold]
    waited = [
        Value(turn.wait_ms, number[turn.call], censored=turn.exchange.outcome == "no answer")
        for turn in warm
        if turn.exchange.outcome in ("answered", "no answer")
    ]
    durations = {"voice_to_voice_ms": summarise(waited)}
    present = {stage for turn in turns for stage in turn.exchange.chain}
    for stage in ALL_STAGES:
        if turns and stage not in present:
            continue
        durations[f"{stage}_ms"] = summarise(
            [
                Value(turn.exchange.stages[stage] / 1000, number[turn.call])
                for turn in warm
                if turn.exchange.outcome == "answered" and stage in turn.exchange.stages
            ]
        )
    durations["barge_in_stop_ms"] = summarise(
        [Value(one.stop / 1000, number[call.name]) for call in calls for one in call.measures.barge_ins]
    )
    return durations


def _sum(calls: Sequence[Call], prices: PriceTable) -> Cost | None:
    used = merged(one for call in calls for one in call.used)
    seconds = sum(call.seconds for call in calls)
    paid = any(prices.bills(one.stage, one.provider) for one in used)
    return priced(used, prices, calls=len(calls), seconds=seconds) if paid else None


def _money(costs: Sequence[Cost]) -> dict[str, Summary]:
    """A call with a model that has no price costs at least so much."""
    minutes = [(number, cost, each) for number, cost in enumerate(costs) if (each := cost.per_minute) is not None]
    return {
        "cost_per_call": summarise(
            [Value(float(cost.total), number, bool(cost.not_priced)) for number, cost in enumerate(costs)]
        ),
        "cost_per_minute": summarise(
            [Value(float(each), number, bool(cost.not_priced)) for number, cost, each in minutes]
        ),
    }


def _shares(turns: Iterable[Turn]) -> dict[str, Share]:
    finished = [turn.exchange for turn in turns if turn.exchange.outcome != "unfinished"]

    def share(of: Callable[[Exchange], bool]) -> Share:
        return Share(sum(of(one) for one in finished), len(finished))

    return {
        "no_answer": share(lambda one: one.outcome == "no answer"),
        "early_answer": share(lambda one: one.outcome == "early"),
        "slot_recall": sum((one.slots for one in finished), Share()),
        "word_error_rate": sum((one.word_errors for one in finished), Share()),
    }
