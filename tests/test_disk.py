"""Files whole or not at all, and errors in words."""

import errno
import os

import pytest

from ser_model.disk import first_line, in_words, whole_files, write_whole


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "; free some space on the disk"),
        (errno.EACCES, "; change who may read and write it, or take another place"),
        (errno.ENOENT, "; see that its folder is there"),
        (errno.EEXIST, "; move away what lies there, or take another place"),
        (errno.ENOTDIR, "; move away what lies there, or take another place"),
        (errno.EIO, ""),
    ],
)
def test_the_remedy_fits_the_fault(number, remedy):
    error = OSError(number, os.strerror(number), "there/it.csv")
    assert in_words(error) == f"there/it.csv: {os.strerror(number)}{remedy}"


@pytest.mark.parametrize("error", [ValueError(), ValueError(" \n")])
def test_an_error_that_says_nothing_is_called_by_its_kind(error):
    assert first_line(error) == "ValueError"
    assert first_line(ValueError("\nso\nand so")) == "so"


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    write_whole(tmp_path / "a", b"old")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "a", "no bytes")
    with pytest.raises(RuntimeError), whole_files(tmp_path) as folder:
        (folder / "a").write_bytes(b"half")
        raise RuntimeError("killed")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a", b"old")]
    with whole_files(tmp_path) as folder:
        (folder / "a").write_bytes(b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a", b"new")]


def test_links_stay_and_pipes_take_what_comes(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"new"
    os.mkfifo(pipe := tmp_path / "pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole(pipe, b"new")
    assert os.read(reader, 8) == b"new" and pipe.is_fifo()
    os.close(reader)
