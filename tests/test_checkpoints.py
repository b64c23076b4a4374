"""One run a folder at a time; what a checkpoint holds, test_resume.py shows."""

import pytest
from filelock import FileLock

from ser_model.checkpoints import LOCK_FILE, CheckpointError, alone


def test_a_second_run_in_the_same_folder_is_told_to_wait(tmp_path):
    with alone(tmp_path / "out"), pytest.raises(CheckpointError, match="another train.py"), alone(tmp_path / "out"):
        pass
    assert not (tmp_path / "out").exists()


def test_the_lock_is_never_free_while_its_file_is_to_be_deleted(tmp_path, monkeypatch):
    """Else a run that takes it there and then would lose the file, and a third could take a new one."""
    there, release = [], FileLock.release

    def spy(lock, *arguments, **options):
        there.append((tmp_path / "out" / LOCK_FILE).exists())
        release(lock, *arguments, **options)

    monkeypatch.setattr(FileLock, "release", spy)
    with alone(tmp_path / "out"):
        assert (tmp_path / "out" / LOCK_FILE).exists()
    assert there[0] is False
