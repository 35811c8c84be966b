import json
import string
from pathlib import Path

from support import SAMPLES

from tunewright.evaluate import neutral
from tunewright.evaluate.memorisation import overlap
from tunewright.evaluate.neutral import neutral_texts
from tunewright.evaluate.style import words_of

FILE = Path(neutral.__file__).with_name("neutral.json")


def _samples():
    files = sorted(path for path in SAMPLES.rglob("*") if path.is_file())
    return [(path.name, path.read_text(encoding="utf-8")) for path in files]


def test_forty_eight_passages_of_sixty_to_ninety_words():
    texts = neutral_texts()
    assert len(texts) == 48
    assert all(60 <= len(words_of(text)) <= 90 for text in texts)


def test_each_has_an_id_and_a_kind_of_its_own():
    rows = json.loads(FILE.read_text(encoding="utf-8"))
    assert [row["text"] for row in rows] == neutral_texts()
    for key in ("id", "kind", "text"):
        assert len({row[key] for row in rows}) == len(rows)
    assert all(row.keys() == {"id", "kind", "text"} for row in rows)


def test_typography_is_plain():
    for text in neutral_texts():
        assert set(text) <= set(string.printable) - set("\t\r\v\f")
        assert text == text.strip()


def test_nothing_is_said_twice():
    texts = neutral_texts()
    for index, text in enumerate(texts):
        others = [("", other) for other in texts[:index] + texts[index + 1 :]]
        assert overlap([text], others).spans == ((),)


def test_nothing_comes_from_the_bundled_samples():
    assert not any(overlap(neutral_texts(), _samples()).spans)


def test_what_comes_from_a_sample_is_seen():
    name, sample = next(s for s in _samples() if s[0].startswith("chunk"))
    lent = " ".join(sample.split()[40:60])
    [[span]] = overlap([f"{neutral_texts()[0]} {lent}"], _samples()).spans
    assert span.source == name
