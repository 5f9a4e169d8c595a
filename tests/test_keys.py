"""Keys: the environment first, then the keyring, which is not touched before."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from voicectl import keys
from voicectl.errors import MissingExtra, UsageError
from voicectl.keys import keys_of, place_of, remove_key, set_key


class KeyringError(Exception): ...


class PasswordDeleteError(KeyringError): ...


class Keyring(ModuleType):
    """The package `keyring`, with a backend in memory; `broken` raises what the real one does."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__("keyring")
        self.__spec__ = ModuleSpec("keyring", None)
        self.kept: dict[tuple[str, str], str] = {}
        self.broken = broken
        self.errors = ModuleType("keyring.errors")
        vars(self.errors).update(KeyringError=KeyringError, PasswordDeleteError=PasswordDeleteError)

    def _work(self) -> None:
        if self.broken:
            raise KeyringError("no backend for s3cret")

    def get_password(self, service: str, name: str) -> str | None:
        self._work()
        return self.kept.get((service, name))

    def set_password(self, service: str, name: str, key: str) -> None:
        self._work()
        self.kept[service, name] = key

    def delete_password(self, service: str, name: str) -> None:
        self._work()
        if self.kept.pop((service, name), None) is None:
            raise PasswordDeleteError(name)


def use(monkeypatch: pytest.MonkeyPatch, keyring: Keyring | None) -> None:
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    if keyring:
        monkeypatch.setitem(sys.modules, "keyring.errors", keyring.errors)


def test_the_environment_goes_first_and_the_keyring_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_keyring", lambda: pytest.fail("nobody needs it"))
    assert keys_of({"OPENAI_API_KEY": "a"})("OPENAI_API_KEY") == "a"
    assert place_of("OPENAI_API_KEY", {"OPENAI_API_KEY": "a"}) == "environment"


def test_a_missing_variable_is_looked_for_in_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = Keyring()
    use(monkeypatch, keyring)
    find = keys_of({"OPENAI_API_KEY": ""})
    assert find("OPENAI_API_KEY") is None
    set_key("OPENAI_API_KEY", "b")
    assert keyring.kept == {("voicectl", "OPENAI_API_KEY"): "b"}
    assert find("OPENAI_API_KEY") == "b"
    assert place_of("OPENAI_API_KEY", {}) == "keyring"
    assert remove_key("OPENAI_API_KEY") and not remove_key("OPENAI_API_KEY")
    assert find("OPENAI_API_KEY") is None


def test_without_the_package_there_is_no_key_and_setting_one_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, None)
    assert keys_of({})("OPENAI_API_KEY") is None
    with pytest.raises(MissingExtra, match=r"pip install 'voicectl\[cloud\]'"):
        set_key("OPENAI_API_KEY", "b")


def test_a_keyring_that_cannot_be_used_is_as_if_it_were_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Keyring(broken=True))
    assert keys_of({})("OPENAI_API_KEY") is None
    with pytest.raises(UsageError, match="Set the environment variable OPENAI_API_KEY instead") as caught:
        set_key("OPENAI_API_KEY", "s3cret")
    assert "s3cret" not in str(caught.value)
