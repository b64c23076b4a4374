"""Zips as strangers send them: nothing leaves its place, nothing fills memory or disk, every entry is accounted for."""

import random
import stat
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from ser_model import archives
from ser_model.archives import REASONS, ArchiveError, Limits, Recording, recordings

SUFFIXES = frozenset({".wav", ".flac"})
SOUND = random.Random(0).randbytes(5000)


def zip_of(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def outcomes(path: Path, **limits) -> list[tuple[str, bytes | str]]:
    """Name and content, or the reason why there is none, of every entry."""
    found = recordings(path, SUFFIXES, Limits(**limits))
    return [(entry.name, entry.file.read() if isinstance(entry, Recording) else entry.reason) for entry in found]


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """The only folder for temporary files; at the end of a test nothing may be left in it."""
    (folder := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def test_recordings_come_in_order_with_their_folders_and_in_any_script(tmp_path, scratch):
    names = ["b.wav", "Ordner/ü/クリップ.flac", "आवाज़/१.WAV", "录音.wav", "голос.wav", "a.wav"]
    path = zip_of(tmp_path / "x.zip", ("Ordner/", b""), *((name, SOUND) for name in names))
    assert outcomes(path) == [(name, SOUND) for name in names]


def test_an_hour_of_sound_is_let_through():
    header_bytes = 44
    assert Limits().recording_bytes >= 3600 * 44_100 * 2 + header_bytes


def test_names_that_macos_writes_without_saying_that_they_are_utf8(tmp_path):
    path = zip_of(tmp_path / "x.zip", ("über/声.wav", SOUND))
    raw = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.index(signature) + offset
        struct.pack_into("<H", raw, at, struct.unpack_from("<H", raw, at)[0] & ~archives.UTF8_NAME)
    path.write_bytes(raw)
    assert outcomes(path) == [("über/声.wav", SOUND)]


ESCAPES = {
    "../../etc/passwd.wav": "etc/passwd.wav",
    "/etc/cron.d/x.wav": "etc/cron.d/x.wav",
    "C:\\Windows\\x.wav": "Windows/x.wav",
    "..\\..\\x.wav": "x.wav",
    "a/../../x.wav": "a/x.wav",
    "\\\\server\\share\\x.wav": "server/share/x.wav",
    "a\u202egnp.wav": "agnp.wav",
    "line\nbreak\x1b[31m.wav": "linebreak[31m.wav",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_that_leads_elsewhere_is_a_name_and_nothing_more(tmp_path, scratch, monkeypatch, name):
    (home := tmp_path / "home").mkdir()
    monkeypatch.chdir(home)
    path = zip_of(tmp_path / "x.zip", (name, SOUND))
    before = sorted(tmp_path.rglob("*"))
    assert outcomes(path) == [(ESCAPES[name], SOUND)]
    assert sorted(tmp_path.rglob("*")) == before


def member(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def test_what_is_no_recording_is_named(tmp_path, scratch):
    path = zip_of(
        tmp_path / "x.zip",
        ("notes.txt", b"hello"),
        ("inner.zip", b"PK"),
        ("__MACOSX/._a.wav", b"resource fork"),
        ("deep/._a.wav", b"resource fork"),
        (".DS_Store", b""),
        (".Trashes/501/a.wav", SOUND),
        (member("passwd.wav", stat.S_IFLNK | 0o777), b"/etc/passwd"),
        (member("pipe.wav", stat.S_IFIFO | 0o666), b""),
        ("a.wav", SOUND),
    )
    assert outcomes(path) == [
        ("notes.txt", "not_audio"),
        ("inner.zip", "not_audio"),
        ("__MACOSX/._a.wav", "system_file"),
        ("deep/._a.wav", "system_file"),
        (".DS_Store", "system_file"),
        (".Trashes/501/a.wav", "system_file"),
        ("passwd.wav", "link"),
        ("pipe.wav", "link"),
        ("a.wav", SOUND),
    ]


def test_rare_packing_and_locked_entries_are_named_and_the_rest_is_read(tmp_path, scratch):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, kind in (("a.wav", zipfile.ZIP_LZMA), ("b.wav", zipfile.ZIP_BZIP2), ("c.wav", zipfile.ZIP_STORED)):
            archive.writestr(name, SOUND, kind)
        archive.writestr("locked.wav", SOUND)
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of encryption, in the list of entries
    path.write_bytes(raw)
    assert outcomes(path) == [
        ("a.wav", "rare_packing"),
        ("b.wav", "rare_packing"),
        ("c.wav", SOUND),
        ("locked.wav", "encrypted"),
    ]


def test_one_damaged_entry_does_not_spoil_the_rest(tmp_path, scratch):
    path = zip_of(tmp_path / "x.zip", ("a.wav", SOUND), ("b.wav", SOUND), ("c.wav", SOUND))
    raw = bytearray(path.read_bytes())
    second = raw.index(b"b.wav")
    raw[second + 1000 : second + 1010] = bytes(10)
    path.write_bytes(raw)
    assert outcomes(path) == [("a.wav", SOUND), ("b.wav", "damaged"), ("c.wav", SOUND)]


def test_an_entry_that_lies_beyond_any_file_is_damaged(tmp_path, scratch):
    path = zip_of(tmp_path / "x.zip", ("a.wav", SOUND), ("b.wav", SOUND))
    raw = path.read_bytes()
    entry = raw.rindex(b"PK\x01\x02")  # of b.wav in the list; its offset becomes one of 64 bits, in an extra field
    extra = struct.pack("<HHQ", 1, 8, 2**62)
    end = raw.rindex(b"PK\x05\x06")
    changed = bytearray(raw[entry:end])
    changed[30:32], changed[42:46] = struct.pack("<H", len(extra)), b"\xff" * 4
    size = struct.unpack("<L", raw[end + 12 : end + 16])[0] + len(extra)
    tail = raw[end : end + 12] + struct.pack("<L", size) + raw[end + 16 :]
    path.write_bytes(raw[:entry] + bytes(changed) + extra + tail)
    assert outcomes(path) == [("a.wav", SOUND), ("b.wav", "damaged")]


def test_a_bomb_stops_early_whatever_its_header_says(tmp_path, scratch):
    path = zip_of(tmp_path / "x.zip", ("bomb.wav", bytes(200 * 2**20)), ("a.wav", SOUND))
    raw = bytearray(path.read_bytes())
    entry = raw.index(b"PK\x01\x02")
    struct.pack_into("<I", raw, entry + 20, 2**31)  # claims to be packed from two gigabytes
    path.write_bytes(raw)
    tracemalloc.start()
    assert outcomes(path) == [("bomb.wav", "bomb"), ("a.wav", SOUND)]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2 * archives.IN_MEMORY_BYTES


def test_digital_silence_within_reason_is_a_recording(tmp_path, scratch):
    silence = random.Random(0).randbytes(2**14) + bytes(2**20)
    assert outcomes(zip_of(tmp_path / "x.zip", ("a.wav", silence))) == [("a.wav", silence)]


def test_limits_of_one_recording_of_all_and_of_their_number(tmp_path, scratch):
    path = zip_of(tmp_path / "x.zip", ("large.wav", 2 * SOUND), *((f"{number}.wav", SOUND) for number in range(3)))
    small = [(f"{number}.wav", SOUND) for number in range(3)]
    assert outcomes(path, recording_bytes=6000) == [("large.wav", "too_large"), *small]
    assert outcomes(path, total_bytes=11_000)[1:] == [(name, "too_much") for name, _ in small]
    assert outcomes(path, recordings=2) == [
        ("large.wav", 2 * SOUND),
        small[0],
        ("1.wav", "too_many"),
        ("2.wav", "too_many"),
    ]


def test_large_recordings_wait_on_the_disk_one_at_a_time(tmp_path, scratch, monkeypatch):
    monkeypatch.setattr(archives, "IN_MEMORY_BYTES", 1000)
    path = zip_of(tmp_path / "x.zip", ("a.wav", SOUND), ("b.wav", SOUND))
    found = recordings(path, SUFFIXES)
    first = next(found)
    assert first.file.read() == SOUND
    second = next(found)
    assert first.file.closed and second.file.read() == SOUND
    found.close()
    assert second.file.closed


def test_two_entries_over_the_same_bytes_do_not_add_up_to_a_bomb(tmp_path, scratch):
    """Overlapping entries, as in https://www.bamsoftware.com/hacks/zipbomb/."""
    path = zip_of(tmp_path / "x.zip", ("a.wav", SOUND))
    raw = path.read_bytes()
    start, end = raw.index(b"PK\x01\x02"), raw.index(b"PK\x05\x06")
    listed = raw[start:end]
    tail = bytearray(raw[end:])
    struct.pack_into("<HHI", tail, 8, 300, 300, 300 * len(listed))
    path.write_bytes(raw[:start] + 300 * listed + tail)
    total = sum(len(content) for _, content in outcomes(path, total_bytes=50_000) if isinstance(content, bytes))
    assert total <= 50_000


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06", SOUND])
def test_what_is_no_zip_ends_in_one_sentence(tmp_path, content):
    (path := tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(ArchiveError, match=r"^this is no zip, or a damaged one; make it again$"):
        outcomes(path)


def test_a_list_of_a_million_entries_is_not_read(tmp_path):
    path = tmp_path / "x.zip"
    entry = zip_of(path, ("a.txt", b"")).read_bytes()
    start, end = entry.index(b"PK\x01\x02"), entry.index(b"PK\x05\x06")
    many = 100_000
    tail = bytearray(entry[end:])
    struct.pack_into("<I", tail, 12, many * (end - start))
    path.write_bytes(entry[:start] + many * entry[start:end] + tail)
    with pytest.raises(ArchiveError, match="far too many files"):
        outcomes(path)


def test_a_thousand_random_faults_end_in_a_reason_or_a_sentence(tmp_path, scratch):
    whole = zip_of(tmp_path / "x.zip", ("a.wav", SOUND[:200]), ("ü.wav", SOUND[:200])).read_bytes()
    chance = random.Random(0)
    for _ in range(1000):
        raw = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        (path := tmp_path / "broken.zip").write_bytes(raw[: chance.choice([len(raw), chance.randrange(len(raw))])])
        try:
            for name, found in outcomes(path):
                assert isinstance(found, bytes) or found in REASONS, name
        except ArchiveError:
            pass
