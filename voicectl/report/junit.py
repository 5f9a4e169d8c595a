"""JUnit XML and GitHub annotations: what continuous integration shows of a check. Pure: cases in, text out.

The XML is the shape that all readers agree on: `testsuites > testsuite > testcase`, with one
`failure`, `error` or `skipped` in a case that did not pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

CaseOutcome = Literal["passed", "failed", "broken", "skipped"]
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was checked.

    Args:
        name: what, within its group.
        group: a path or a run; `classname` in JUnit.
        outcome: `failed` was checked and is wrong, `broken` could not be checked, `skipped` is undecided.
        message: one line (None where it passed).
        details: all there is to say, lines of text.
    """

    name: str
    group: str
    outcome: CaseOutcome = "passed"
    message: str = ""
    details: str = ""


_TAGS: dict[CaseOutcome, str] = {"failed": "failure", "broken": "error", "skipped": "skipped"}


def junit_xml(suite: str, cases: Sequence[Case]) -> str:
    """The cases as one suite."""
    counts = {
        "tests": str(len(cases)),
        **{tag + "s" * (tag != "skipped"): _count(cases, outcome) for outcome, tag in _TAGS.items()},
    }
    root = ElementTree.Element("testsuites", {"name": "voicectl", **counts})
    inner = ElementTree.SubElement(root, "testsuite", {"name": suite, **counts})
    for case in cases:
        element = ElementTree.SubElement(inner, "testcase", name=_clean(case.name), classname=_clean(case.group))
        if case.outcome != "passed":
            told = ElementTree.SubElement(element, _TAGS[case.outcome], message=_clean(case.message))
            told.text = _clean(case.details)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _count(cases: Sequence[Case], outcome: str) -> str:
    return str(sum(case.outcome == outcome for case in cases))


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub("�", text)


def annotation(level: Literal["error", "warning"], where: str, title: str, message: str) -> str:
    """One line that GitHub shows at its place in the change: `where` is `file`, `file:line` or `file:line:col`."""
    match = re.fullmatch(r"(?P<file>.*?)(?::(?P<line>\d+))?(?::(?P<col>\d+))?", where)
    places = {key: value for key, value in (match.groupdict() if match else {"file": where}).items() if value}
    properties = {**places, "title": title}
    told = ",".join(f"{key}={_escaped(value, in_property=True)}" for key, value in properties.items())
    return f"::{level} {told}::{_escaped(message)}"


def _escaped(text: str, *, in_property: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if in_property else text
