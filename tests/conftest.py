"""For all tests: Ctrl-C reaches the processes they start, also where the suite itself runs in the background,
and no property fails for being slow on a busy machine."""

from __future__ import annotations

import signal

from hypothesis import settings

# A shell without job control starts background jobs with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("voicectl", deadline=None)
settings.load_profile("voicectl")
