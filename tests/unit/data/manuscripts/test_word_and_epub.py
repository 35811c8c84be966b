import io
import random
import zipfile

import docx
import pytest
from docx.oxml import OxmlElement
from docx.oxml.ns import qn

from tunewright.data.manuscripts import _archive
from tunewright.data.manuscripts._read import read
from tunewright.errors import TunewrightError

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)
PAGE = '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"><head><title>T</title></head>{}</html>'


def problem(file):
    with pytest.raises(TunewrightError) as caught:
        read(file)
    return caught.value.problems[0]


@pytest.fixture
def word(tmp_path):
    document = docx.Document()
    document.add_heading("The Lift", level=0)
    document.add_heading("Chapter One", level=1)
    document.add_paragraph("It is stuck.\nStill “stuck”.")
    document.add_paragraph("")
    paragraph = document.add_paragraph("He ")
    for tag, text in (("w:ins", "really "), ("w:del", "never ")):
        change, run = OxmlElement(tag), OxmlElement("w:r")
        word_text = OxmlElement("w:t" if tag == "w:ins" else "w:delText")
        word_text.text = text
        word_text.set(qn("xml:space"), "preserve")
        run.append(word_text)
        change.append(run)
        paragraph._p.append(change)
    run = paragraph.add_run("left.")
    run._r.append(OxmlElement("w:footnoteReference"))
    document.add_page_break()
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left cell", "right cell"
    document.sections[0].header.paragraphs[0].text = "RUNNING HEAD"
    file = tmp_path / "book.docx"
    document.save(str(file))
    return file


def test_word(word):
    found = read(word)
    assert found.text == (
        "# The Lift\n\n# Chapter One\n\nIt is stuck.\nStill “stuck”.\n\nHe really left.\n\n"
        "left cell\n\nright cell"
    )
    assert found.notes == ("1 deletions left out", "1 footnotes left out")
    assert found.lines == 12


@pytest.fixture
def epub(tmp_path):
    def make(pages, extra=(), spine=None, manifest=""):
        file = tmp_path / "book.epub"
        names = list(pages)
        items = "".join(
            f'<item id="i{n}" href="{name.replace(" ", "%20")}" media-type="application/xhtml+xml"/>'
            for n, name in enumerate(names)
        )
        order = spine or "".join(f'<itemref idref="i{n}"/>' for n in range(len(names)))
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("mimetype", "application/epub+zip")
            archive.writestr("META-INF/container.xml", CONTAINER)
            archive.writestr(
                "OEBPS/book.opf",
                f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}{manifest}</manifest>'
                f"<spine>{order}</spine></package>",
            )
            for name, body in pages.items():
                archive.writestr(f"OEBPS/{name}", PAGE.format(body))
            for name, data in extra:
                archive.writestr(name, data)
        return file

    return make


def test_epub(epub):
    found = read(
        epub(
            {
                "cover.xhtml": '<body epub:type="cover"><p>Cover</p></body>',
                "toc.xhtml": '<body><nav epub:type="toc"><p>One</p></nav></body>',
                "one two.xhtml": "<body><section><h1>Chapter\n <i>One</i></h1><p>It&nbsp;is&mdash;&amp; was"
                "<!-- no --> stuck.<br/>Still.</p><hr/>loose<div>He <b>left</b>.<a epub:type='noteref'>1</a>"
                "</div><img src='x'/><aside epub:type='footnote'><p>A note.</p></aside></section></body>",
                "two.xhtml": "<body><p>Unclosed <b>bold<p>Next</body>",
            }
        )
    )
    assert found.text == (
        "# Chapter One\n\nIt is—& was stuck.\nStill.\n\n* * *\n\nloose\n\nHe left.\n\n"
        "Unclosed bold\n\nNext"
    )
    assert found.notes == (
        "OEBPS/cover.xhtml left out: cover",
        "OEBPS/toc.xhtml left out: table of contents",
        "OEBPS/two.xhtml is not well formed: read as far as it can be",
        "1 footnotes left out",
        "1 pictures left out",
    )


def test_epub_follows_the_spine_and_names_what_is_missing(epub):
    pages = {"b.xhtml": "<body><p>Second</p></body>", "a.xhtml": "<body><p>First</p></body>"}
    spine = (
        '<itemref idref="i1"/><itemref idref="none"/><itemref idref="i0"/><itemref idref="nav"/>'
    )
    nav = '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
    found = read(epub(pages, spine=spine, manifest=nav))
    assert found.text == "First\n\nSecond"
    assert "'none'" in found.notes[0]
    assert "nav.xhtml left out: table of contents" in found.notes[1]


ENCRYPTION = (
    '<encryption xmlns:e="http://www.w3.org/2001/04/xmlenc#"><e:EncryptedData><e:EncryptionMethod '
    'Algorithm="{}"/><e:CipherData><e:CipherReference URI="{}"/></e:CipherData></e:EncryptedData></encryption>'
)


def test_a_protected_book_is_refused_and_hidden_fonts_are_not(epub):
    pages = {"a.xhtml": "<body><p>First</p></body>"}
    locked = ENCRYPTION.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "OEBPS/a.xhtml")
    found = problem(epub(pages, [("META-INF/encryption.xml", locked)]))
    assert found.code == "E_DATA_ROW"
    assert "protected (DRM): OEBPS/a.xhtml" in found.message
    font = ENCRYPTION.format("http://www.idpf.org/2008/embedding", "OEBPS/f.otf")
    assert read(epub(pages, [("META-INF/encryption.xml", font)])).text == "First"


def test_entities_of_a_file_are_not_followed(epub, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("password")
    bomb = "".join(f'<!ENTITY b{n} "{f"&b{n - 1};" * 10}">' for n in range(1, 12))
    doctype = f'<!DOCTYPE html [<!ENTITY x SYSTEM "file://{secret}"><!ENTITY b0 "ha">{bomb}]>'
    file = epub({}, spine='<itemref idref="m"/>', manifest='<item id="m" href="m.xhtml"/>')
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("OEBPS/m.xhtml", doctype + PAGE.format("<body><p>A&x;B&b11;C</p></body>"))
    found = read(file)
    assert "password" not in found.text
    assert len(found.text) < 10
    assert "1 characters that the book does not define left out" in found.notes


@pytest.mark.parametrize("name", ["../evil.xhtml", "/etc/evil", "a/../../b", "C:/x", "..\\evil"])
def test_parts_outside_of_the_archive_are_refused(epub, name):
    found = problem(epub({"a.xhtml": "<body/>"}, [(name, "x")]))
    assert "outside of itself" in found.message


def test_bombs_are_refused(epub, monkeypatch):
    monkeypatch.setattr(_archive, "MAX_BYTES", 100_000)
    found = problem(epub({"a.xhtml": "<body>" + "x" * 200_000 + "</body>"}))
    assert "100,000 are allowed" in found.message
    monkeypatch.setattr(_archive, "MAX_MEMBERS", 3)
    assert "3 are allowed" in problem(epub({"a.xhtml": "<body/>"})).message


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a": "b"}, "container.xml is missing"),
        ({"META-INF/container.xml": ""}, "not XML"),
        ({"META-INF/container.xml": "<container/>"}, "names no package"),
        ({"META-INF/container.xml": CONTAINER}, "book.opf is missing"),
        ({"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": "<package/>"}, "no chapters"),
    ],
)
def test_books_without_a_body(tmp_path, members, words):
    file = tmp_path / "a.epub"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    assert words in problem(file).message


def test_a_word_file_that_is_another_zip(tmp_path, epub):
    file = epub({"a.xhtml": "<body/>"})
    other = file.rename(tmp_path / "a.docx")
    assert "no Word document" in problem(other).message


def repacked(file, change):
    """The bytes of an archive whose parts were changed, with checksums that fit."""
    stream = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["word", "epub"])
def test_damaged_files_give_an_error_or_text_and_no_traceback(kind, request, tmp_path):
    made = request.getfixturevalue(kind)
    pages = {"a.xhtml": "<body><p>He ran.</p></body>", "b.xhtml": "<body><p>No.</p></body>"}
    file = made if kind == "word" else made(pages)
    data, rng = file.read_bytes(), random.Random(7)
    cases = [data[: len(data) * n // 12] for n in range(12)]
    for _ in range(60):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        cases.append(bytes(flipped))

    def garble(name, part):
        if not part or name.endswith((".jpeg", ".bin")) or rng.random() < 0.6:
            return part
        at = rng.randrange(len(part))
        return [part[:at], part[:at] + b"<" + part[at:], part[at:], b""][rng.randrange(4)]

    cases += [repacked(file, garble) for _ in range(40)]
    damaged = file.with_name("damaged" + file.suffix)
    refused = 0
    for case in cases:
        damaged.write_bytes(case)
        try:
            read(damaged)
        except TunewrightError as error:
            assert [p.code for p in error.problems] == ["E_DATA_ROW"]
            assert error.problems[0].where == str(damaged)
            refused += 1
    assert refused > 30
