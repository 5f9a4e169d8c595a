"""Names of a stand-in that only this process knows, and that it can cease to know.

`with known(standin):` makes `*.standin.test` mean this machine for everybody in this process who asks
the system for an address (the SDKs, asyncio). A name that the stand-in has lost (fault "dns") is
answered as the system answers for one that does not exist.
"""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from voicectl.standin.server import HOST, ZONE, StandIn


@contextmanager
def known(standin: StandIn) -> Generator[None]:
    """Resolve the stand-in's names within the block."""
    asked = socket.getaddrinfo

    def answer(host: Any, *more: Any, **named: Any) -> Any:
        name = host.decode("idna") if isinstance(host, bytes) else host
        if not isinstance(name, str) or not name.endswith(f".{ZONE}"):
            return asked(host, *more, **named)
        if name in standin.unknown:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return asked(HOST, *more, **named)

    socket.getaddrinfo = answer
    try:
        yield
    finally:
        socket.getaddrinfo = asked
