"""OpenAI's speech and transcription over HTTP. A request is one POST."""

from __future__ import annotations

import io
import json
import wave
from typing import TYPE_CHECKING, Any

from aiohttp import web

from voicectl.standin.openai import words_of
from voicectl.standin.wire import Refused, form

if TYPE_CHECKING:
    from voicectl.standin.server import StandIn

_RATE = 24_000
_NO_SOUND = b"\xff"  # stands for a piece that breaks the framing of the answer itself: any sound would be allowed


def routes(standin: StandIn) -> list[web.RouteDef]:
    async def speech(http: web.Request) -> web.StreamResponse:
        return await _speak(standin, http)

    async def transcription(http: web.Request) -> web.StreamResponse:
        return await _transcribe(standin, http)

    return [web.post("/v1/audio/speech", speech), web.post("/v1/audio/transcriptions", transcription)]


async def _speak(standin: StandIn, http: web.Request) -> web.StreamResponse:
    body: dict[str, Any] = await http.json()
    standin.got.append("speak")
    with standin.request("openai-tts") as asked:
        await asked.begin()
        if body.get("response_format") != "pcm":
            raise Refused(400, "the stand-in speaks only pcm")
        pieces = list(standin.pieces(standin.voice(body["input"], _RATE), _RATE))
        response = web.StreamResponse(headers={"content-type": "audio/pcm"})
        for number, pcm in enumerate(pieces):
            await standin.delay("tts-gap" if number else "tts")
            data = await asked.piece(pcm, last=number == len(pieces) - 1, spoilt=_NO_SOUND)
            if not response.prepared:
                await response.prepare(http)
            if data == _NO_SOUND and http.transport:
                http.transport.write(b"what is this\r\n")
            await response.write(data)
        if not response.prepared:
            await response.prepare(http)
        await response.write_eof()
        standin.got.append("spoken")
        return response


async def _transcribe(standin: StandIn, http: web.Request) -> web.StreamResponse:
    fields = await form(http)
    standin.got.append("transcribe")
    with standin.request("openai-stt") as asked:
        await asked.begin()
        if "file" not in fields:
            raise Refused(400, "there is no file")
        text, seconds = _heard(standin, fields["file"])
        await standin.delay("stt")
        tokens, words = round(10 * seconds), len(words_of(text))
        usage = {"type": "tokens", "input_tokens": tokens, "output_tokens": words, "total_tokens": tokens + words}
        done = {"type": "transcript.text.done", "text": text, "usage": usage}
        if fields.get("stream") != b"true":
            whole = await asked.piece(json.dumps({"text": text, "usage": usage}), last=True)
            standin.got.append("transcribed")
            return web.Response(text=whole, content_type="application/json")
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(http)
        events: list[dict[str, Any]] = [{"type": "transcript.text.delta", "delta": word} for word in words_of(text)]
        if standin.does.says:
            events.append({"error": {"message": standin.does.says, "type": "stand_in"}})
        for event in events:
            await response.write(f"data: {await asked.piece(json.dumps(event), spoilt='<html>')}\n\n".encode())
        await response.write(f"data: {await asked.piece(json.dumps(done), last=True, spoilt='<html>')}\n\n".encode())
        await response.write_eof()
        standin.got.append("transcribed")
        return response


def _heard(standin: StandIn, data: bytes) -> tuple[str, float]:
    """The words in a WAV, and its seconds."""
    try:
        with wave.open(io.BytesIO(data)) as wav:
            rate, pcm = wav.getframerate(), wav.readframes(wav.getnframes())
    except (wave.Error, EOFError):
        raise Refused(400, "the file is no wav") from None
    if len(pcm) < 0.1 * rate * 2:
        raise Refused(400, "the file is shorter than 0.1 s")
    ear = standin.ear(rate)
    for _ in ear.hear(pcm):
        pass
    ear.flush()
    return ear.take(), len(pcm) / 2 / rate
