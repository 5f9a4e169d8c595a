"""What continuous integration is shown."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicectl.report.junit import Case, annotation, junit_xml

CASES = (
    Case("0001", "recordings"),
    Case("0002", "recordings", "failed", "was: 5.08 s; is: 4.88 s", "- <one>\n+ & another"),
    Case("0003", "recordings", "broken", "its hash differs"),
    Case("0004", "recordings", "skipped", "takes 20 turns"),
)
ATTRIBUTES = {
    "testsuites": {"name", "tests", "failures", "errors", "skipped"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped"},
    "testcase": {"name", "classname"},
    "failure": {"message"},
    "error": {"message"},
    "skipped": {"message"},
}
CHILDREN = {"testsuites": {"testsuite"}, "testsuite": {"testcase"}, "testcase": {"failure", "error", "skipped"}}


def check_shape(element: ElementTree.Element) -> None:
    """The part of the JUnit schema that every reader agrees on."""
    assert set(element.attrib) == ATTRIBUTES[element.tag]
    for child in element:
        assert child.tag in CHILDREN.get(element.tag, set())
        check_shape(child)


def test_the_xml_has_the_shape_that_readers_know() -> None:
    root = ElementTree.fromstring(junit_xml("replay", CASES))
    check_shape(root)
    (suite,) = root
    counts = {key: suite.attrib[key] for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "4", "failures": "1", "errors": "1", "skipped": "1"}
    assert [case.attrib["name"] for case in suite] == ["0001", "0002", "0003", "0004"]
    failure = suite[1][0]
    assert (failure.tag, failure.attrib["message"], failure.text) == ("failure", CASES[1].message, CASES[1].details)


@given(st.text(), st.text(), st.text())
def test_any_text_can_be_told(name: str, message: str, details: str) -> None:
    root = ElementTree.fromstring(junit_xml("replay", [Case(name, "a", "failed", message, details)]).encode())
    check_shape(root)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("a/expect.yaml:9:5", "file=a/expect.yaml,line=9,col=5,"),
        ("a/trace.jsonl:9", "file=a/trace.jsonl,line=9,"),
        ("a", "file=a,"),
        ("a,b:c", "file=a%2Cb%3Ac,"),
    ],
)
def test_an_annotation_is_one_line_at_its_place(where: str, told: str) -> None:
    assert (
        annotation("error", where, "replay of a", "50%\nmore: yes")
        == f"::error {told}title=replay of a::50%25%0Amore: yes"
    )
