import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewright.data.manuscripts._read import _fixed, read, repair
from tunewright.errors import TunewrightError


@pytest.fixture
def write(tmp_path):
    def make(data, name="a.txt"):
        file = tmp_path / name
        file.write_bytes(data)
        return file

    return make


def problem(file):
    with pytest.raises(TunewrightError) as caught:
        read(file)
    return caught.value.problems[0]


@pytest.mark.parametrize(
    ("data", "text", "note"),
    [
        (b"Caf\xc3\xa9\nno", "Café\nno", None),
        (b"\xef\xbb\xbfCaf\xc3\xa9", "Café", "byte order mark removed"),
        ("Café – one\ntwo".encode("utf-16"), "Café – one\ntwo", "read as UTF-16"),
        ("Café – one\ntwo".encode("utf-32"), "Café – one\ntwo", "read as UTF-32"),
        (b"one\r\ntwo\rthree\n", "one\ntwo\nthree\n", "line ends made LF"),
        (b"", "", None),
        (b" \n ", " \n ", None),
    ],
)
def test_encodings_and_line_ends(write, data, text, note):
    found = read(write(data))
    assert found.text == text
    assert found.lines == (text.count("\n") + 1 if text else 0)
    assert found.notes == ((note,) if note else ())


def test_a_text_that_is_no_utf8_is_read_and_named(write):
    text = "Where is the café? The naïve señor asked, and the façade fell.\n" * 20
    found = read(write(b"First line.\n" + text.encode("cp1252")))
    assert found.text == "First line.\n" + text
    assert "it is no UTF-8 (line 2)" in found.notes[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"one\ntwo\0three", "a zero byte"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"%PDF-1.7", "a PDF"),
        (b"{\\rtf1 Hi}", "RTF"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\xd0\xcf\x11\xe0", "old Word"),
        (b"\xff\xfea", "UTF-16"),
        (bytes(range(1, 256)) * 8, "no UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(write, data, words):
    found = problem(write(data))
    assert found.code == "E_DATA_ROW"
    assert words in found.message
    assert found.fix


def test_the_line_of_a_bad_byte_is_named(write):
    assert problem(write(b"one\r\ntwo\rthree\n\0")).where.endswith("a.txt:4")


def test_a_file_that_is_not_there(tmp_path):
    assert problem(tmp_path / "none.txt").code == "E_IO"
    assert problem(tmp_path / "none.docx").code == "E_IO"


def test_repairs_are_shown_with_their_lines():
    text = "plain\nthe cafÃ© was\nthe “quotes” stay\nbell\x07 here\nagain cafÃ©\nand cafÃ©"
    repaired, notes = repair(text)
    assert repaired == "plain\nthe café was\nthe “quotes” stay\nbell here\nagain café\nand café"
    assert notes == [
        "mojibake or control characters repaired: line 2: 'cafÃ©' -> 'café'; "
        "line 4: 'bell\\x07' -> 'bell'; line 5: 'cafÃ©' -> 'café'; 4 lines in all"
    ]


def test_what_is_right_stays():
    text = "“Ça va?” – ‘Œuvre’ … \uff46\uff55 e\u0301 ½ €5 naïve\u2028next & so <b>&amp;</b>\n"
    assert repair(text) == (text, [])


@given(st.text(alphabet="aé\n<&;#10Ã©â€™\x85\x07\u2028 ", max_size=60))
def test_repair_keeps_the_lines_and_does_what_the_whole_repair_does(text):
    repaired, notes = repair(text)
    assert repaired.count("\n") == text.count("\n")
    assert bool(notes) is (repaired != text)
    if "&" not in text:
        assert repaired == _fixed(text, html="<" not in text)


@given(data=st.binary(max_size=300))
def test_any_bytes_give_text_or_an_error(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "a.txt"
    file.write_bytes(data)
    try:
        found = read(file)
    except TunewrightError as error:
        assert error.problems[0].code == "E_DATA_ROW"
    else:
        assert "\r" not in found.text
