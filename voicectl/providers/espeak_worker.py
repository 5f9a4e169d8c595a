"""Phonemes from espeak-ng, in a process of its own. A program, not a module: nobody imports it.

What lives here: espeak-ng's library, reached through ctypes. What must not: anything of voicectl;
the library is under the GPL, and it is loaded in this process only. What crosses between the two
is text, a JSON value a line:

    argv: VOICE
    out:  {"ready": true}  or  {"error": "..."}, once
    in:   ["text", ...]
    out:  ["phonemes", ...]     IPA, one for each text

It ends when its input does.
"""

import ctypes
import json
import signal
import sys

_NO_PLAYBACK = 2
_UTF8 = 1
_IPA = 2


def load(voice: str) -> ctypes.CDLL:
    """The library, speaking `voice`.

    Raises:
        ImportError, OSError: there is none, or it cannot be loaded.
    """
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    if library.espeak_Initialize(_NO_PLAYBACK, 0, espeakng_loader.get_data_path().encode(), 0) < 0:
        raise OSError("espeak-ng does not find its data")
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise OSError(f"espeak-ng has no voice '{voice}'")
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    library.espeak_TextToPhonemes.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
    return library


def phonemes(library: ctypes.CDLL, text: str) -> str:
    """The IPA of `text`."""
    buffer = ctypes.create_string_buffer(text.encode())
    pointer = ctypes.c_void_p(ctypes.addressof(buffer))
    pieces: list[str] = []
    while pointer.value:  # moves on by a clause each time, and is null after the last
        piece = library.espeak_TextToPhonemes(ctypes.byref(pointer), _UTF8, _IPA)
        pieces.append((piece or b"").decode("utf-8", errors="ignore"))
    return " ".join(piece for piece in pieces if piece)


def serve(voice: str) -> None:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for voicectl, which then lets us go
    out = sys.stdout
    try:
        library = load(voice)
    except (ImportError, OSError) as error:
        out.write(json.dumps({"error": str(error)}) + "\n")
        return
    out.write(json.dumps({"ready": True}) + "\n")
    out.flush()
    for line in sys.stdin:
        out.write(json.dumps([phonemes(library, text) for text in json.loads(line)]) + "\n")
        out.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
