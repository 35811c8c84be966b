"""Real novels: nothing is lost, no chunk is over the window, and no border is inside a sentence.

Sentences are told by syntok, which the code does not use. It gets the running text between headings and
scene marks, without paragraphs, so that it finds every border by itself.
"""

import pytest
import syntok.segmenter
from support import SHARED

from tunewright.data.manuscripts._read import read
from tunewright.data.manuscripts.cut import SCENE, chunk, faults, sentences
from tunewright.data.manuscripts.matter import find_matter
from tunewright.models._folders import resolve_model
from tunewright.models._tokenizer import load_tokenizer

NOVELS = sorted(SHARED.glob("*.txt"))
FEW = ["ABronte_Agnes.txt", "Dickens_Hard.txt"]  # wrapped, and a paragraph a line
WINDOWS = {"large": (700, 2000), "small": (100, 220)}
MAX_DISAGREEMENT = 0.005

pytestmark = pytest.mark.skipif(
    not NOVELS, reason="needs ../shared/corpora, which a user's machine lacks"
)


@pytest.fixture(scope="module")
def count():
    tokenizer = load_tokenizer(resolve_model("tunewright/tiny"))
    return lambda texts: [
        len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    ]


def squeezed(text):
    return len("".join(text.split()))


def disagreements(parts, starts):
    """Borders at `starts` inside a sentence of syntok's, of those that no heading or mark makes."""
    runs = []
    for part in parts:
        if part.level >= SCENE:
            runs.append([])
        runs[-1].append(part)
    found = []
    for run in runs:
        at, ends = 0, set()
        for paragraph in syntok.segmenter.analyze(" ".join(part.text for part in run)):
            for sentence in paragraph:
                at += sum(squeezed(token.spacing + token.value) for token in sentence)
                ends.add(at)
        at = 0
        for part in run:
            if at and part.start in starts and at not in ends:
                found.append(part.text)
            at += squeezed(part.text)
    return found


def measured(novels, count, low, high):
    """Check every novel; return the number of borders and of those inside a sentence."""
    borders = wrong = 0
    for file in novels:
        text = read(file).text
        parts, dropped = sentences(text, find_matter(text))
        result = chunk(parts, count, min_tokens=low, max_tokens=high)
        assert faults(text, result.chunks, dropped) == [], file.name
        assert max(piece.tokens for piece in result.chunks) <= high, file.name
        assert [piece.tokens for piece in result.chunks] == count(c.text for c in result.chunks)
        short = sum(piece.tokens < low for piece in result.chunks)
        assert short <= (0.05 if high == 2000 else 0.15) * len(result.chunks), file.name
        assert high < 2000 or result.inside == (), file.name
        borders += len(result.chunks)
        wrong += len(disagreements(parts, {piece.start for piece in result.chunks}))
    return borders, wrong


def test_two_novels(count):
    borders, wrong = measured([SHARED / name for name in FEW], count, 700, 2000)
    assert borders > 150
    assert wrong <= 1


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS)
def test_some_novels(count, window):
    """The first; `make faults` takes all."""
    _agrees(NOVELS[:1], count, window)


@pytest.mark.faults
@pytest.mark.parametrize("window", WINDOWS)
def test_all_novels(count, window):
    _agrees(NOVELS, count, window)


def _agrees(novels, count, window):
    low, high = WINDOWS[window]
    borders, wrong = measured(novels, count, low, high)
    limit = MAX_DISAGREEMENT if high >= 2000 else 2 * MAX_DISAGREEMENT
    assert wrong <= limit * borders, f"{wrong} of {borders}"


@pytest.mark.parametrize("name", FEW)
def test_no_prose_is_taken_for_matter(name):
    text = read(SHARED / name).text
    parts, dropped = sentences(text, find_matter(text))
    assert not [item for item in dropped if item.text[:1].islower()]
    assert sum(len(item.text) for item in dropped) < 0.01 * len(text)
    assert all(part.chapter for part in parts)
