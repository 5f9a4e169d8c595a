"""ElevenLabs' streamed speech over HTTP. Its list of models is where OpenAI's is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from voicectl.standin.wire import Refused

if TYPE_CHECKING:
    from voicectl.standin.server import StandIn

_WORDS = {
    401: "invalid_api_key",
    404: "voice_not_found",
    429: "too_many_concurrent_requests",
    500: "internal_server_error",
}


def routes(standin: StandIn) -> list[web.RouteDef]:
    async def speak(http: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await http.json()
        coding, _, rate = http.query.get("output_format", "").partition("_")
        standin.got.append("speak")
        with standin.request("elevenlabs-tts") as asked:
            try:
                await asked.begin()
                if standin.does.says:
                    raise Refused(400, standin.does.says)
                if coding != "pcm" or not rate.isdigit():
                    raise Refused(400, "the stand-in speaks pcm_<rate> only")
            except Refused as no:
                return no.response(_error(no))
            pieces = list(standin.pieces(standin.voice(body["text"], int(rate)), int(rate)))
            response = web.StreamResponse(headers={"content-type": "audio/pcm"})
            for number, piece in enumerate(pieces):
                await standin.delay("tts-gap" if number else "tts")
                if not number:
                    await response.prepare(http)
                piece = await asked.piece(piece, last=number == len(pieces) - 1, spoilt=b"")
                if piece:
                    await response.write(piece)
                elif http.transport:
                    http.transport.write(b"no chunk\r\n")  # of samples nobody can tell what is nonsense
            if not pieces:
                await response.prepare(http)
            await response.write_eof()
        standin.got.append("spoken")
        return response

    return [web.post("/v1/text-to-speech/{voice}/stream", speak)]


def _error(no: Refused) -> dict[str, Any]:
    return {"detail": {"status": _WORDS.get(no.status, "invalid_request"), "message": no.message}}
