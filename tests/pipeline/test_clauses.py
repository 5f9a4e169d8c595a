"""Clauses: a stream of text in, what the TTS speaks out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voicectl.pipeline.clauses import ClauseSplitter


def clauses_of(*parts: str, first: int = 0) -> list[str]:
    """All clauses of a text that comes in these parts, without the white space around them."""
    return [clause.strip() for clause in raw(*parts, first=first)]


def raw(*parts: str, first: int = 0) -> list[str]:
    splitter = ClauseSplitter(first)
    return [*(clause for part in parts for clause in splitter.push(part)), *splitter.finish()]


def sentences_of(text: str) -> list[str]:
    """Later clauses: what follows a first one is cut at sentences only."""
    first, *rest = clauses_of("Well yes of course: " + text)
    assert first == "Well yes of course:"
    return rest


# When ---------------------------------------------------------------------------------------


def test_a_clause_is_given_out_as_soon_as_its_end_is_certain() -> None:
    splitter = ClauseSplitter(0)
    tokens = ["Sure", ",", " one", " latte", ".", " Any", "thing", " else", "?"]
    assert [splitter.push(token) for token in tokens] == [
        *([], ["Sure,"], [], [], []),
        *([" one latte."], [], [], []),
    ]
    assert splitter.finish() == [" Anything else?"]


@pytest.mark.parametrize("start", ["1,", "Hi @tom,", "etc.,", "5:30,", "http://a,", '"Sure,'])
def test_a_comma_after_anything_but_a_plain_word_waits_for_what_follows(start: str) -> None:
    splitter = ClauseSplitter(0)
    assert splitter.push(start) == []
    assert splitter.push(" so") == [start]


def test_the_first_clauses_end_at_any_punctuation_and_later_ones_at_sentences() -> None:
    text = "Of course: one latte, with milk; to go. That is five dollars, please. Bye!"
    assert clauses_of(text) == [
        "Of course:",
        "one latte, with milk;",
        "to go.",
        "That is five dollars, please.",
        "Bye!",
    ]


def test_after_a_word_or_two_the_next_clause_is_cut_early_too() -> None:
    text = "Sure, I can make you a large latte with almond milk and two shots. Anything else, with it?"
    assert clauses_of(text, first=5) == [
        "Sure,",
        "I can make you a large",
        "latte with almond milk and two shots.",
        "Anything else, with it?",
    ]
    text = "Sure, a large latte with almond milk and two shots. Anything else, with it?"
    assert clauses_of(text, first=5)[:2] == ["Sure,", "a large latte"]


def test_the_second_clause_is_cut_early_only_as_long_as_little_is_ahead() -> None:
    text = "Okay, one large latte with almond milk. Anything else, with it?"
    for ahead, second in ((1, "one large latte with almond milk."), (4, "one large latte")):
        splitter = ClauseSplitter(5, words_ahead=ahead)
        assert [clause.strip() for clause in splitter.push(text)][1] == second


def test_without_punctuation_the_first_clause_ends_after_a_few_words() -> None:
    text = "Your order should come out at nine dollars and fifty cents altogether today"
    assert clauses_of(text, first=5) == [
        "Your order should come out",
        "at nine dollars and fifty cents altogether today",
    ]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("I can make you a large latte right now", "I can make you a large"),
        ("One latte with the milk you like will be ready soon", "One latte with the milk"),
        ("A cup of the best mocha would be ready", "A cup of the best"),
        ("The total would be about $4 for one", "The total would be about $4 for one"),
        ("Please come at 5 o'clock today if you can", "Please come at 5 o'clock"),
        ("It is a the of to with and or in", "It is a the of to with and"),
    ],
)
def test_the_first_clause_does_not_end_on_a_word_that_leans_on_the_next(text: str, first: str) -> None:
    assert clauses_of(text, first=5)[0] == first


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One latte with milk will be ready soon", "One latte with milk"),
        ("Your large latte with milk is ready", "Your large latte"),
        ("We are open from seven to six", "We are open"),
        ("Your coffee will be ready in five minutes", "Your coffee will be ready"),
    ],
)
def test_the_first_clause_ends_before_a_new_phrase_if_it_can(text: str, first: str) -> None:
    assert clauses_of(text, first=5)[0] == first


def test_a_very_long_sentence_is_cut_at_a_comma() -> None:
    text = (
        "Sure, sir, of course. We have " + "coffee and tea and milk and cake, " * 4 + "and that is all we have today."
    )
    clauses = clauses_of(text)
    assert len(clauses) > 2
    assert all(clause.endswith((",", ".")) for clause in clauses)
    assert max(len(clause.split()) for clause in clauses) <= 25


def test_a_very_long_sentence_without_a_comma_stays_whole() -> None:
    text = "word " * 80 + "end."
    assert len(sentences_of(text)) == 1


def test_no_text_is_no_clause() -> None:
    assert clauses_of("") == clauses_of(" ", "\n", "\t") == clauses_of() == []


# What ends a sentence -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sentence",
    [
        "That is $4.50 with tax.",
        "It costs 1,200 dollars or 1.200,50 euros.",
        "The ratio is 3.14 to 1, version 2.0.1 of it.",
        "Ask Dr. Smith or Mrs. Jones about it.",
        "We open at 7 a.m. on weekdays.",
        "Come at 5 p.m. Monday, please.",
        "Take milk, e.g. oat or soy, i.e. none from a cow.",
        "It was written by J. R. R. Tolkien himself.",
        "Write to me@example.com or to a.b@c.co.uk today.",
        "See www.example.com/menu.html?x=1.2 for more.",
        "Order No. 5 is ready.",
        "It is on Main St. near the bank.",
        "It takes approx. ten minutes vs. twenty.",
        "1. Latte with oat milk",
        "Call 555.123.4567 ext. 12 now.",
    ],
)
def test_a_full_stop_inside_a_sentence_does_not_end_it(sentence: str) -> None:
    assert sentences_of(sentence + " Thanks!") == (
        [sentence, "Thanks!"] if sentence[-1] == "." else [sentence + " Thanks!"]
    )


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It is $4.50. Thanks.", ["It is $4.50.", "Thanks."]),
        ("The total is 5. Anything else?", ["The total is 5.", "Anything else?"]),
        ("We open at 7 a.m. The bar is on the left.", ["We open at 7 a.m.", "The bar is on the left."]),
        ("Milk, sugar, etc. We have it all.", ["Milk, sugar, etc.", "We have it all."]),
        ("No. We are closed.", ["No.", "We are closed."]),
        ("So do I. And you?", ["So do I.", "And you?"]),
        ("Hm... Let me see… There it is.", ["Hm...", "Let me see…", "There it is."]),
        ("Really?! Yes!! Good.", ["Really?!", "Yes!!", "Good."]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("(It is hot.) “Is it?” Yes.", ["(It is hot.)", "“Is it?”", "Yes."]),
        ("Write to me@example.com. Bye.", ["Write to me@example.com.", "Bye."]),
        ("First line.\nSecond line.\n\nThird.", ["First line.", "Second line.", "Third."]),
        ("Grüße aus Köln. Schön! ¿Qué tal? Ça va.", ["Grüße aus Köln.", "Schön!", "¿Qué tal?", "Ça va."]),
        ("I like it 👍. You too?", ["I like it 👍.", "You too?"]),
    ],
)
def test_where_a_sentence_ends(text: str, sentences: list[str]) -> None:
    assert sentences_of(text) == sentences


def test_the_number_of_a_list_stays_with_its_item() -> None:
    text = "We have:\n1. Latte.\n2. Mocha.\n3. Tea."
    assert clauses_of(text) == ["We have:", "1. Latte.", "2. Mocha.", "3. Tea."]


@pytest.mark.parametrize("text", ["Yes — it is.", "Yes - it is.", "Yes – it is."])
def test_a_dash_between_words_ends_the_first_clause(text: str) -> None:
    assert clauses_of(text)[1] == "it is."


def test_a_hyphen_inside_a_word_ends_nothing() -> None:
    assert clauses_of("It is a well-known twenty-one year old.") == ["It is a well-known twenty-one year old."]


# Any text, however it comes --------------------------------------------------------------------------

plain = st.sampled_from("coffee with the large bar we have today".split())
special = st.sampled_from(
    "Sure Dr. a.m. p.m. Monday $4.50 1,200 e.g. No. no. 5 1. I. I Mon. J. etc. U.S. one, latte; milk: - — … ... "
    'ok! what? "Hi." (yes) me@x.com. www.x.org the with and The 👍 Grüße \u200b " . ! \n \t'.split(" ")
)
likely = st.lists(
    st.tuples(plain | plain | special, st.sampled_from([" ", " ", " ", "", "\n", "  "])), max_size=60
).map(lambda parts: "".join(word + gap for word, gap in parts))
texts = st.one_of(likely, st.text(max_size=80), st.text("aB .,!?\n1", max_size=80))
limits = st.integers(0, 8)


@given(texts, limits)
@settings(deadline=None, max_examples=200)
def test_joined_together_the_clauses_are_the_text(text: str, first: int) -> None:
    assert "".join(raw(text, first=first)) == text.rstrip()


@given(texts, limits)
@settings(deadline=None, max_examples=100)
def test_no_clause_is_empty(text: str, first: int) -> None:
    assert all(clause.strip() for clause in raw(text, first=first))


@given(texts, limits, st.data())
@settings(deadline=None, max_examples=300)
def test_the_clauses_do_not_depend_on_how_the_text_was_cut(text: str, first: int, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=20)))
    parts = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert raw(*parts, first=first) == raw(text, first=first) == raw(*text, first=first)


@given(texts, limits)
@settings(deadline=None, max_examples=100)
def test_a_clause_never_ends_inside_a_word(text: str, first: int) -> None:
    clauses = raw(text, first=first)
    assert all(clause[0].isspace() or before[-1] == "," for before, clause in itertools.pairwise(clauses))


@given(st.lists(st.sampled_from(["latte", "with", "the", "$4", "seven", "7"]), min_size=1, max_size=40), limits)
@settings(deadline=None, max_examples=100)
def test_the_caller_never_waits_for_more_than_a_few_words(text: list[str], first: int) -> None:
    clauses = raw(" ".join(text), first=first)
    if first:
        assert len(clauses[0].split()) <= first + 3
