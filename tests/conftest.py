"""For all tests: Ctrl-C reaches the processes they start, also where the suite itself runs in the background."""

from __future__ import annotations

import signal

# A shell without job control starts background jobs with SIGINT ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
