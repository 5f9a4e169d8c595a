"""Money before and during a run: a quote, and a purse that is closed in time.

The quote supposes what `Assumptions` says; no vendor is asked. A purse then lets a call begin only
when it can still be paid for together with all calls under way: each counts as what it was quoted
at, or as the dearest call of that caller so far. Until then it waits; the purse is closed when nothing
is under way that could leave more. What calls use is counted as it is noted. Should
they use more than was thought, those under way are cut while what they may still owe for the
requests they have open is left: twice the dearest one so far or quoted, whichever is more. So as long
as no request costs more than that, what is noted in the end is within the budget, however wrong the
quote of a call.

An agent's own caps (`budget:` in its spec) work alike: one call never costs more than `per_call`,
all calls of a day that went through a purse (`voicectl.ledger`) never more than `per_day`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path

from voicectl.analysis.cost import NOTHING, Amounts, amounts_of, money
from voicectl.bench.run import MakeCall
from voicectl.clock import Clock
from voicectl.errors import UsageError
from voicectl.events import Event, ProviderUsed
from voicectl.ledger import Ledger
from voicectl.prices import PriceTable
from voicectl.spec import ResolvedAgent, Stage
from voicectl.trace import Trace
from voicectl.transports.caller import Caller

_OPEN_REQUESTS = 2
"""So many of each stage may be open in a call, each as dear as the dearest so far."""
_DEARER = Decimal("1.2")  # a call may cost so much more than the dearest one before


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a quote supposes of every turn of a caller."""

    heard_more_s: float = 1.0
    """Audio that the STT gets besides the words: pauses before and after."""
    characters_a_second: float = 15.0
    """Of a caller whose words nobody wrote down."""
    answer_characters: int = 120
    characters_a_token: int = 4
    asked: int = 2
    """Times the LLM is asked, where it thinks ahead."""
    spoken: Decimal = Decimal("1.5")
    """Characters spoken to those of the answers, where it thinks ahead."""
    answer_s: float = 8.0
    """An answer of a speech-to-speech model ..."""
    audio_tokens_in: int = 10
    """... whose tokens are so many a second of audio that goes in ..."""
    audio_tokens_out: int = 20
    """... and that comes out."""

    def __str__(self) -> str:
        return (
            f"answers of {self.answer_characters} characters, {self.characters_a_token} characters a token, "
            f"the LLM asked {self.asked} times a turn where it thinks ahead"
        )


@dataclass(frozen=True, slots=True)
class Quote:
    """What each caller's call is thought to cost, and the dearest request of each stage in it."""

    calls: Mapping[str, Decimal]
    requests: Mapping[str, Decimal]

    def knowing(self, earlier: Mapping[str, Sequence[Decimal]]) -> Quote:
        """The same, better informed: by what calls of a caller cost before, the dearest and a little more."""
        known = {name: max(costs) * _DEARER for name, costs in earlier.items() if name in self.calls and costs}
        return Quote({**self.calls, **known}, self.requests)

    def of(self, callers: Sequence[Caller]) -> Decimal:
        """A call from each of these."""
        return sum((self.calls[caller.name] for caller in callers), NOTHING)


# Before ------------------------------------------------------------------------------------------


def quote(
    agent: ResolvedAgent, callers: Sequence[Caller], table: PriceTable, suppose: Assumptions | None = None
) -> Quote:
    """What calls of these callers will about cost.

    Raises:
        UsageError: a model of the agent has no price.
    """
    check_priced(agent, table)
    suppose = suppose or Assumptions()
    calls: dict[str, Decimal] = {}
    dearest: dict[str, Decimal] = {}
    for caller in callers:
        for stage, requests in _requests(agent, caller, suppose).items():
            choice = _paid_stages(agent)[stage]
            price = table.find(stage, choice.provider, choice.model)
            paid = [(money(price, each) if price else None) or NOTHING for each in requests]
            calls[caller.name] = calls.get(caller.name, NOTHING) + sum(paid, NOTHING)
            dearest[stage] = max([dearest.get(stage, NOTHING), *paid])
        calls.setdefault(caller.name, NOTHING)
    return Quote(calls, dearest)


def check_priced(agent: ResolvedAgent, table: PriceTable) -> None:
    """A budget can be kept only where everything has a price.

    Raises:
        UsageError: a model, also one that only takes over, has none.
    """
    for stage, first in _paid_stages(agent).items():
        for choice in (first, *first.fallback):
            if not table.bills(stage, choice.provider):
                continue
            if table.find(stage, choice.provider, choice.model) is None:
                name = f"{stage} {choice.provider} {choice.model or 'default'}"
                raise UsageError(
                    f"a budget cannot be kept: {name} has no price", hint="Give it one in a file: --prices FILE"
                )


def _paid_stages(agent: ResolvedAgent) -> dict[str, Stage]:
    return {str(stage): choice for stage, choice in agent.stages().items() if stage not in ("vad", "turn_model")}


def _requests(agent: ResolvedAgent, caller: Caller, suppose: Assumptions) -> dict[str, list[Amounts]]:
    """By stage: what will be asked for in a call."""
    asked = suppose.asked if agent.turn.speculation else 1
    spoken = suppose.spoken if agent.turn.speculation else Decimal(1)
    opening = f"{agent.notice or ''}{agent.greeting or ''}"
    prompt = len(agent.instructions) + len(opening)
    heard_s = said_s = 0.0
    stt: list[Amounts] = []
    llm: list[Amounts] = []
    tts: list[Amounts] = [Amounts(characters=len(opening), audio_us=_us(len(opening) / suppose.characters_a_second))]
    s2s: list[Amounts] = []
    for one in caller.utterances:
        seconds = one.voiced_until_s - one.voiced_from_s
        heard_s += seconds + suppose.heard_more_s
        stt.append(Amounts(audio_us=_us(seconds + suppose.heard_more_s)))
        if one.backchannel:
            continue
        prompt += len(one.text) if one.text else round(seconds * suppose.characters_a_second)
        tokens = Amounts(
            prompt=-(-prompt // suppose.characters_a_token),
            completion=-(-suppose.answer_characters // suppose.characters_a_token),
        )
        llm += [tokens] * asked
        characters = round(suppose.answer_characters * spoken)
        tts.append(Amounts(characters=characters, audio_us=_us(characters / suppose.characters_a_second)))
        s2s.append(
            Amounts(
                audio_us=_us(seconds + suppose.answer_s),
                prompt=tokens.prompt,
                completion=tokens.completion,
                audio_in=round(suppose.audio_tokens_in * heard_s + suppose.audio_tokens_out * said_s),
                audio_out=round(suppose.audio_tokens_out * suppose.answer_s),
            )
        )
        said_s += suppose.answer_s
        prompt += suppose.answer_characters
    known = {"stt": stt, "llm": llm, "tts": tts, "s2s": s2s}
    return {stage: known[stage] for stage in _paid_stages(agent)}


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


# During ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _UnderWay:
    """A call that costs money now. `set_aside` is what the ledger holds for it, under `reserved`."""

    caller: str
    expected: Decimal
    day: date
    spent: Decimal = NOTHING
    set_aside: Decimal = NOTHING
    reserved: list[str] = field(default_factory=list[str])
    task: asyncio.Task[Trace] | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Caps:
    """What may be spent: by this run, by one call, by this agent in a day. None: any amount."""

    run: Decimal | None = None
    per_call: Decimal | None = None
    per_day: Decimal | None = None


Answer = Callable[[Caller, Path, Callable[[Event], None]], Coroutine[None, None, Trace]]
"""Make a call, keep it in that folder, and tell every event of it as it happens."""


class Purse:
    """Pays for the calls of one run. `why` says, once it is closed, what would have been exceeded.

    Args:
        answer: makes a call.
        today: asked before each call.
    """

    def __init__(
        self,
        agent: str,
        caps: Caps,
        quoted: Quote,
        table: PriceTable,
        clock: Clock,
        ledger: Ledger,
        today: Callable[[], date],
        answer: Answer,
    ) -> None:
        self._agent = agent
        self._caps = caps
        self._expected = dict(quoted.calls)
        self._dearest = dict(quoted.requests)  # request of each stage, so far or quoted
        self._seen: set[str] = set()
        self._table = table
        self._clock = clock
        self._ledger = ledger
        self._today = today
        self._answer = answer
        self._under_way: list[_UnderWay] = []
        self._settled = asyncio.Event()  # another one for each call that ends
        self.spent = NOTHING
        self.cut = 0  # calls
        self.why: str | None = None

    def admit(self, caller: Caller) -> MakeCall | None:
        """How to make a call from this caller, which is now to be made. None: it cannot be paid for.

        Raises:
            StorageError: what is spent cannot be written down.
        """
        call = self._begin(caller)
        if isinstance(call, _UnderWay):
            return partial(self._pay_for, call)
        if self._under_way and not self.why:
            return self._pay_later
        self._close(call)
        return None

    def _begin(self, caller: Caller) -> _UnderWay | str:
        """The call, from now on under way; or why it cannot be paid for now."""
        if self.why:
            return self.why
        if self._caps.per_call is not None and max(self._dearest.values(), default=NOTHING) > self._caps.per_call:
            return f"what one call may cost, ${self._caps.per_call}, would be exceeded by a single request"
        call = _UnderWay(caller.name, self._expected[caller.name], self._today())
        call.expected = max(call.expected, self._open_in(call))  # it begins with requests, whatever was quoted
        owed = sum((max(one.expected, one.spent + self._open_in(one)) for one in self._under_way), call.expected)
        settled = self.spent - sum((one.spent for one in self._under_way), NOTHING)
        if self._caps.run is not None and settled + owed > self._caps.run:
            return f"the budget of ${self._caps.run} would be exceeded"
        # One call may come to cost as much as it is allowed to, and other processes must know.
        if not self._set_aside(call, max(call.expected, self._caps.per_call or NOTHING)):
            return self._day_is_over
        self._under_way.append(call)
        return call

    async def _pay_later(self, caller: Caller, folder: Path) -> Trace:
        """Make the call as soon as calls that ended have left enough for it."""
        while True:
            await self._settled.wait()
            call = self._begin(caller)
            if isinstance(call, _UnderWay):
                return await self._pay_for(call, caller, folder)
            if not self._under_way:
                self._close(call)
                # It is not made after all. To the run that is an interruption, and hurts no other call now.
                raise asyncio.CancelledError

    async def _pay_for(self, call: _UnderWay, caller: Caller, folder: Path) -> Trace:
        """Make the call; when it comes to cost too much it is cut, and what there is of it is kept."""
        work = self._clock.spawn(
            self._answer(caller, folder, lambda event: self._see(call, event)), name=f"call of {caller.name}"
        )
        call.task = work
        try:
            return await work
        except asyncio.CancelledError:
            us = asyncio.current_task()
            if us and us.cancelling():  # not the call alone is to end: let it close its files first
                work.cancel()
                await asyncio.wait([work])
                raise
            if not call.cut:
                raise
            return Trace()  # nobody reads this one: the call is in its folder
        finally:
            self._under_way.remove(call)
            self._learn(call)
            for name, amount in zip(call.reserved, [call.spent, *[NOTHING] * len(call.reserved)], strict=False):
                self._ledger.settle(name, self._agent, call.day, amount)
            self._settled.set()
            self._settled = asyncio.Event()

    def _see(self, call: _UnderWay, event: Event) -> None:
        if not isinstance(event, ProviderUsed):
            return
        price = self._table.find(event.stage, event.provider, event.model)
        paid = (money(price, amounts_of(event)) if price else None) or NOTHING
        call.spent += paid
        self.spent += paid
        self._dearest[event.stage] = max(self._dearest.get(event.stage, NOTHING), paid)
        caps, may_be = self._caps, call.spent + self._open_in(call)
        if caps.per_call is not None and may_be > caps.per_call:
            self._cut(call)
        if may_be > call.set_aside and not self._set_aside(call, may_be - call.set_aside):
            self._cut(call)
            if len(self._under_way) == 1:  # nobody else will leave any
                self._close(self._day_is_over)
        if caps.run is not None and self.spent + sum(map(self._open_in, self._under_way), NOTHING) > caps.run:
            self._close(f"the budget of ${caps.run} would be exceeded")
            for one in self._under_way:
                self._cut(one)

    def _set_aside(self, call: _UnderWay, amount: Decimal) -> bool:
        """Take it from what the agent may spend today."""
        if self._caps.per_day is None:
            return True
        name = self._ledger.reserve(self._agent, call.day, amount, self._caps.per_day)
        if name is None:
            return False
        call.reserved.append(name)
        call.set_aside += amount
        return True

    @property
    def _day_is_over(self) -> str:
        return f"what '{self._agent}' may spend in a day, ${self._caps.per_day}, would be exceeded"

    def _close(self, why: str) -> None:
        self.why = self.why or why

    def _open_in(self, call: _UnderWay) -> Decimal:
        """What a call may owe for requests that are open."""
        return NOTHING if call.cut else _OPEN_REQUESTS * sum(self._dearest.values(), NOTHING)

    def _cut(self, call: _UnderWay) -> None:
        if call.task and not call.cut:
            call.cut = True
            self.cut += 1
            call.task.cancel()

    def _learn(self, call: _UnderWay) -> None:
        """The next call of this caller costs like the dearest whole one so far, whatever was quoted."""
        known = self._expected[call.caller] if call.cut or call.caller in self._seen else NOTHING
        self._seen.add(call.caller)
        self._expected[call.caller] = max(known, call.spent * _DEARER)
