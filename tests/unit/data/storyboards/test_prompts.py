"""Flags, weights and clauses of prompts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunewright.data.storyboards.prompts import clauses, split_flags, unbalanced, without_weights


@pytest.mark.parametrize(
    ("prompt", "text", "negative", "parameters"),
    [
        ("a cat --neg dog, text", "a cat", "dog, text", {}),
        (
            "a cat --neg http://, x --ar 16:9 --seed 5",
            "a cat",
            "http://, x",
            {"aspect_ratio": "16:9", "seed": 5},
        ),
        ("a cat --v 5 --no dog", "a cat --v 5", "dog", {}),
        ("a well--known cat", "a well--known cat", "", {}),
        ("--neg dog", "", "dog", {}),
        ("a cat --seed x", "a cat --seed x", "", {}),
        ("a cat --cfg 7.5 --steps 20", "a cat", "", {"guidance_scale": 7.5, "steps": 20}),
    ],
)
def test_flags(prompt, text, negative, parameters):
    assert split_flags(prompt) == (text, negative, parameters)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("(kelp:1.2) stems", "kelp stems"),
        ("((red)) cat, [dog], (blue:0.5)", "red cat, dog, blue"),
        ("a (very (old:1.1) man:1.3)", "a very old man"),
        ("Bea (81) waits", "Bea (81) waits"),
        (r"a face \(smiling\)", "a face (smiling)"),
        ("(soft light), rain", "soft light, rain"),
    ],
)
def test_without_weights(text, plain):
    assert without_weights(text) == plain


def test_unbalanced():
    assert unbalanced("((a:1.2), b") == "("
    assert unbalanced("a) b") == ")"
    assert unbalanced("(a]") == "]"
    assert unbalanced(r"a \( b (c)") == ""


@settings(deadline=None)
@given(st.text(alphabet="ab(),; []:1.\\", max_size=40))
def test_balanced_text_stays_balanced_in_clauses(text):
    parts = clauses(text)
    if not unbalanced(text) and "\\" not in text:
        assert all(not unbalanced(part) for part in parts)
    assert "".join(", ".join(parts).split()).replace(",", "").replace(";", "") == "".join(
        text.split()
    ).replace(",", "").replace(";", "")
    without_weights(text)
