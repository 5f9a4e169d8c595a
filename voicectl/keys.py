"""Where keys come from: the environment first, then the system's keyring. Nowhere else, and never a file.

The keyring (package `keyring`, service "voicectl", the name of the variable) is imported only when a
variable is missing. Keys are handed to the provider that needs them and shown to nobody.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

from voicectl.errors import MissingExtra, UsageError

SERVICE = "voicectl"

FindKey = Callable[[str], str | None]
"""The key that a variable names; None: there is none."""


def keys_of(env: Mapping[str, str]) -> FindKey:
    """Keys of this environment, or of this user's keyring."""
    return lambda variable: (env.get(variable) or "").strip() or _from_keyring(variable)


def place_of(variable: str, env: Mapping[str, str]) -> str | None:
    """Where that key is: "environment", "keyring", or None."""
    if env.get(variable):
        return "environment"
    return "keyring" if _from_keyring(variable) else None


def set_key(variable: str, key: str) -> None:
    """Put a key into the keyring.

    Raises:
        MissingExtra: there is no package `keyring`.
        UsageError: this system has no keyring that can be used.
    """
    keyring = _keyring()
    if keyring is None:
        raise MissingExtra("keyring", "cloud")
    try:
        keyring.set_password(SERVICE, variable, key)
    except keyring.errors.KeyringError as error:
        raise _unusable(variable, error) from None


def remove_key(variable: str) -> bool:
    """Take it out again. False: there was none.

    Raises:
        MissingExtra, UsageError: as `set_key`.
    """
    keyring = _keyring()
    if keyring is None:
        raise MissingExtra("keyring", "cloud")
    try:
        keyring.delete_password(SERVICE, variable)
    except keyring.errors.PasswordDeleteError:
        return False
    except keyring.errors.KeyringError as error:
        raise _unusable(variable, error) from None
    return True


def _from_keyring(variable: str) -> str | None:
    keyring = _keyring()
    if keyring is None:
        return None
    try:
        return (keyring.get_password(SERVICE, variable) or "").strip() or None
    except keyring.errors.KeyringError:  # none here, or locked: as if it held nothing
        return None


def _keyring() -> Any:
    if importlib.util.find_spec("keyring") is None:
        return None
    keyring = importlib.import_module("keyring")
    importlib.import_module("keyring.errors")
    return keyring


def _unusable(variable: str, error: Exception) -> UsageError:
    # Only the kind of error: its text may repeat what was to be kept.
    why = f"the system's keyring cannot be used ({type(error).__name__})"
    return UsageError(why, hint=f"Set the environment variable {variable} instead")
