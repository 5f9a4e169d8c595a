"""How a stand-in sounds. 16-bit mono of whatever rate is asked for."""

from __future__ import annotations

from collections.abc import Callable

Voice = Callable[[str, int], bytes]
"""What a text sounds like at a rate."""

_LETTER_S = 0.06


def silence(text: str, rate: int) -> bytes:
    """60 ms of nothing a letter."""
    return bytes(2 * round(_LETTER_S * rate) * len(text))


def in_tones(text: str, rate: int) -> bytes:
    """Words that `tones` hears again; a moment of silence where there are none."""
    from voicectl.standin import tones

    return tones.say(text, rate) or bytes(2 * round(_LETTER_S * rate))
