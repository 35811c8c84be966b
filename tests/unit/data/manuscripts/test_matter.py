import pytest

from tunewright.data.manuscripts.cut import sentences
from tunewright.data.manuscripts.matter import find_matter

PROSE = "He ran to the house and back again, and then he told her what he had seen there at last."


def reasons(text):
    return {d.text: d.reason for d in find_matter(text)}


def book(*front, back=()):
    return "\n\n".join([*front, "CHAPTER I", *[PROSE] * 6, "CHAPTER II", *[PROSE] * 6, *back])


def test_gutenberg_header_and_licence():
    text = book(
        "The Project Gutenberg eBook of Hats, by Ann Low",
        "This eBook is for the use of anyone anywhere.",
        "*** START OF THE PROJECT GUTENBERG EBOOK\nHATS AND BOOTS ***",
        "Produced by Jo Low and the\nDistributed Proofreading Team",
        "HATS",
        "by",
        "Ann Low",
        back=["*** END OF THE PROJECT GUTENBERG EBOOK HATS ***", "Section 1. General terms."],
    )
    found = find_matter(text)
    assert {d.reason for d in found} == {
        "Project Gutenberg header",
        "transcriber's note",
        "title page",
        "Project Gutenberg licence",
    }
    lines = text.split("\n")
    assert all(lines[d.line - 1] == d.text for d in found)
    parts, _ = sentences(text, found)
    assert parts[0].text == PROSE
    assert parts[-1].text == PROSE


def test_two_gutenberg_books_in_one_file():
    one = book(
        "*** START OF THIS PROJECT GUTENBERG EBOOK A ***", back=["End of Project Gutenberg's A"]
    )
    text = f"head\n\n{one}\n\nlicence\n\n{one}\n\nlicence"
    kept = [s.text for s in sentences(text, find_matter(text))[0]]
    assert kept == [PROSE] * 24


def test_gutenberg_in_prose_stays():
    assert find_matter(book(f"He had read of the Project Gutenberg. {PROSE}")) == []


def test_contents_title_page_and_imprint():
    text = book(
        "HATS\nby\nAnn Low\nFirst published in 1901",
        "CONTENTS\n\nI. The House\nII. The Way Back,\nor Nearly So\nIII. The End",
    )
    found = reasons(text)
    assert found["HATS"] == found["First published in 1901"] == "title page"
    assert found["II. The Way Back,"] == found["or Nearly So"] == "table of contents"
    assert "CHAPTER I" not in found


def test_contents_end_where_the_first_entry_comes_again():
    text = "\n".join(
        ["CONTENTS", "I The House", "II The Way", "CHAPTER I", "THE HOUSE", *[PROSE] * 9]
    )
    assert list(reasons(text)) == ["CONTENTS", "I The House", "II The Way"]


def test_contents_that_look_like_the_chapters_headings():
    entries = [f"CHAPTER {n}. Hats {n}" for n in ("I", "II", "III")]
    text = "\n\n".join(["CONTENTS", *entries, "BOOK ONE", entries[0], PROSE, entries[1], PROSE])
    assert [d.line for d in find_matter(text)] == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    "text",
    [
        "No\n\nYes\n\nHe ran.",
        f'"No," he said.\n\n"Yes."\n\nCHAPTER II\n\n{PROSE}',
        f"Contents under pressure.\n\n{PROSE}",
        f"{PROSE}\n\nby\n\n{PROSE}",
        "",
        f"12\n\n{PROSE}",
        f"{PROSE}\n\n12\n\n{PROSE}",
        f"---\n\n{PROSE}\n\n---\n\n{PROSE}",
    ],
)
def test_what_is_unsure_stays(text):
    assert find_matter(text) == []


def pages(mark, *, torn=True):
    half = PROSE.rsplit(" ", 6)
    out = []
    for number in range(4, 16):
        out += [PROSE] * 5
        before, after = (half[0], " ".join(half[1:])) if torn else (PROSE, PROSE)
        out += [before, mark.format(number), after]
    return "\n\n".join(out)


@pytest.mark.parametrize("mark", ["{}", "- {} -", "[{}]", "Page {}", "{}\n\nTHE MONK"])
def test_page_numbers_that_tear_sentences(mark):
    text = pages(mark)
    found = find_matter(text)
    numbers = [d for d in found if d.reason == "page number"]
    assert len(numbers) == 12
    assert [d for d in found if d.text == "THE MONK" and d.reason != "running head"] == []
    parts, _ = sentences(text, found)
    assert [p.text for p in parts] == [PROSE] * 72


def test_numbers_of_chapters_are_no_page_numbers():
    assert find_matter(pages("{}", torn=False)) == []


def test_running_heads_with_numbers():
    assert set(reasons(pages("THE MONK   {}")).values()) == {"running head"}
    assert find_matter(pages("Day {}", torn=False)) == []
    assert find_matter(pages("Chapter {}", torn=False)) == []


def test_pictures_and_notes_in_brackets():
    text = f"{PROSE}\n\n[Illustration]\n\n[Illustration: A hat\nand a boot]\n\nSee [Illustration] here."
    text += "\n\n[Transcriber's Note: spelling\nis as printed.]\n\n[Illustration: never closed\n\nHe ran."
    assert reasons(text) == {
        "[Illustration]": "picture",
        "[Illustration: A hat": "picture",
        "and a boot]": "picture",
        "[Transcriber's Note: spelling": "transcriber's note",
        "is as printed.]": "transcriber's note",
    }


def test_yaml_front_matter():
    assert set(reasons(f"---\ntitle: Hats\ntags:\n  - a\n---\n\n{PROSE}").values()) == {
        "YAML front matter"
    }
