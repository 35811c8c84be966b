"""What to do about what the system refuses depends on why it does."""

import errno

import pytest

from tunewright.errors import CODES, first_line, io_fix


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "no" / "such" / "x").write_text("")
    assert io_fix(caught.value) == f"Make the folder {tmp_path}/no/such first."


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(NotADirectoryError) as caught:
        (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    assert f"{tmp_path}/a is a file" in io_fix(caught.value)
    with pytest.raises(IsADirectoryError) as caught:
        tmp_path.write_text("")
    assert "is a folder" in io_fix(caught.value)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, "permissions"),
        (errno.EROFS, "permissions"),
        (errno.ENOSPC, "Free space"),
        (errno.EIO, CODES["E_IO"].fix),
    ],
)
def test_the_way_out_follows_the_reason(number, says):
    assert says in io_fix(OSError(number, "no", "/somewhere/x"))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("\n No such shard.\nTraceback: more", "No such shard"),
        ("", "ValueError"),
        (" . \n", "ValueError"),
        ("x" * 400, "x" * 300),
    ],
)
def test_what_a_library_says_is_told_in_one_line(said, told):
    assert first_line(ValueError(said)) == told
