"""Files that a careless or malicious visitor might bring: name -> what makes its bytes.

They are made anew each time, from seeds; none is copied from anywhere. `write_all` lays them into a folder.
"""

import gzip
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from .recordings import FORMATS, tone, with_av, with_soundfile

RATE_HZ = 16_000
TWELVE_HOURS = 12 * 3600
WRITTEN_BY_ANYONE = ("wav", "flac", "mp3", "ogg", "opus", "m4a", "webm", "aac", "amr", "wma", "mkv", "avi")

Make = Callable[[], bytes]


def wav(
    *,
    rate_hz: int = RATE_HZ,
    channels: int = 1,
    bits: int = 16,
    kind: int = 1,
    align: int | None = None,
    promised_bytes: int | None = None,
    riff_bytes: int | None = None,
    fmt_bytes: int = 16,
    data: bytes | None = None,
    riff: bytes = b"RIFF",
    chunks: tuple[bytes, ...] = (b"fmt ", b"data"),
) -> bytes:
    """A second of a tone under a header that may lie about any of these."""
    if data is None:
        data = (tone(RATE_HZ) * 32767).astype("<i2").tobytes()
    align = channels * bits // 8 if align is None else align
    fmt = struct.pack(
        "<HHIIHH",
        kind & 0xFFFF,
        channels & 0xFFFF,
        rate_hz & 0xFFFFFFFF,
        (rate_hz * align) & 0xFFFFFFFF,
        align & 0xFFFF,
        bits & 0xFFFF,
    )
    body = b"WAVE"
    if b"fmt " in chunks:
        body += b"fmt " + struct.pack("<I", fmt_bytes) + fmt
    if b"data" in chunks:
        body += b"data" + struct.pack("<I", len(data) if promised_bytes is None else promised_bytes) + data
    return riff + struct.pack("<I", len(body) if riff_bytes is None else riff_bytes) + body


def samples(values: np.ndarray, rate_hz: int = RATE_HZ, subtype: str = "DOUBLE") -> bytes:
    return with_soundfile(values, rate_hz, subtype=subtype)


def spoilt(value: float, subtype: str = "DOUBLE") -> bytes:
    """A tone with one sample that is no sample."""
    values = tone(RATE_HZ).copy()
    values[5000] = value
    return samples(values, subtype=subtype)


def silent_flac(duration_s: int) -> bytes:
    """Hours of silence in a few hundred kilobytes."""
    file, block = io.BytesIO(), np.zeros(60 * RATE_HZ, np.int16)
    with soundfile.SoundFile(file, "w", RATE_HZ, 1, format="FLAC", subtype="PCM_16") as sound:
        for _ in range(duration_s // 60):
            sound.write(block)
    return file.getvalue()


def zipped(members: dict[str, bytes], **info: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            for key, value in info.items():
                setattr(member, key, value)
            archive.writestr(member, content)
    return file.getvalue()


class Payload:
    """Unpickled, it would leave a file behind."""

    def __reduce__(self):
        return (open, ("pickle_was_run", "w"))


def encrypted_m4a() -> bytes:
    """What a shop's copy protection leaves: the sample entry says drms, the sound is noise."""
    plain = FORMATS["m4a"]()
    start = plain.index(b"mdat") + 4
    noise = np.random.default_rng(0).bytes(len(plain))
    return (plain[:start] + noise[start : start + 4000] + plain[start + 4000 :]).replace(b"mp4a", b"drms")


def bytes_flipped(original: bytes, rng: np.random.Generator, flips: int = 1) -> bytes:
    data = bytearray(original)
    for position in rng.integers(len(data), size=flips):
        data[position] ^= 1 << rng.integers(8)
    return bytes(data)


def nothing_like_sound() -> dict[str, Make]:
    text = b"Dear diary, today I was happy.\n" * 200
    page = b"<!doctype html><script>alert(1)</script><img src=x onerror=alert(1)>"
    png = b"\x89PNG\r\n\x1a\n" + bytes(500)
    pdf = b"%PDF-1.7\n" + bytes(500)
    program = b"\x7fELF" + bytes(500)
    kinds = {
        "empty": b"",
        "text": text,
        "json": json.dumps({"status": "voice"}).encode(),
        "page": page,
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "png": png,
        "pdf": pdf,
        "program": program,
        "pickle": pickle.dumps(Payload()),
        "gzip": gzip.compress(text),
        "zip": zipped({"clip.wav": wav()}),
        "playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/x.ts\n",
        "concat": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    }
    cases = {f"{name}.wav": lambda content=content: content for name, content in kinds.items()}
    cases |= {f"{name}.mp3": lambda content=content: content for name, content in kinds.items() if name != "empty"}
    for count in (1, 2, 3, 4, 11, 12, 43, 44, 45, 1000, 100_000):
        cases[f"{count} zero bytes.wav"] = lambda count=count: bytes(count)
        cases[f"{count} random bytes.m4a"] = lambda count=count: np.random.default_rng(count).bytes(count)
    for magic in (b"RIFF", b"fLaC", b"OggS", b"ID3\x04", b"\x1aE\xdf\xa3", b"#!AMR\n", b"FORM", b"caff", b"\xff\xfb"):
        name = magic.hex()
        cases[f"only the magic {name}.bin"] = lambda magic=magic: magic
        cases[f"magic {name} and noise.bin"] = lambda magic=magic: magic + np.random.default_rng(1).bytes(5000)
    return cases


def lying_headers() -> dict[str, Make]:
    lies = {
        "rate": [{"rate_hz": rate} for rate in (0, 1, 7, 999, 768_001, 2**31 - 1, 2**31, 2**32 - 1)],
        "channels": [{"channels": count} for count in (0, 2, 33, 255, 65_535)],
        "bits": [{"bits": bits} for bits in (0, 1, 7, 12, 64, 65_535)],
        "kind": [{"kind": kind} for kind in (0, 2, 3, 0x11, 0x55, 0xFFFE, 0xFFFF)],
        "align": [{"align": align} for align in (0, 1, 3, 65_535)],
        "promised": [{"promised_bytes": size} for size in (0, 1, 2**31 - 1, 2**31, 2**32 - 1)],
        "whole": [{"riff_bytes": size} for size in (0, 4, 2**31, 2**32 - 1)],
        "fmt": [{"fmt_bytes": size} for size in (0, 2, 18, 40, 2**31, 2**32 - 1)],
        "riff": [{"riff": riff} for riff in (b"RIFX", b"RF64", b"XXXX")],
        "chunks": [{"chunks": chunks} for chunks in ((), (b"fmt ",), (b"data",))],
        "data": [{"data": data} for data in (b"", b"\x01", bytes(2))],
    }
    return {
        f"wav whose {name} is {next(iter(lie.values()))!r}.wav".replace("/", "_"): lambda lie=lie: wav(**lie)
        for name, own in lies.items()
        for lie in own
    }


def cut_short() -> dict[str, Make]:
    def cut(name: str, tenths: int) -> bytes:
        whole = FORMATS[name]()
        return whole[: len(whole) * tenths // 10]

    return {
        f"{tenths}0 percent of a tone.{name}": lambda name=name, tenths=tenths: cut(name, tenths)
        for name in WRITTEN_BY_ANYONE
        for tenths in range(1, 10)
    }


def odd_sound() -> dict[str, Make]:
    still = np.zeros(2 * RATE_HZ)
    rng = np.random.default_rng(0)
    contents = {
        "no samples": still[:0],
        "one sample": still[:1] + 0.5,
        "ten samples": still[:10] + 0.5,
        "silence": still,
        "constant": still + 0.5,
        "full-scale square": np.sign(np.sin(np.arange(2 * RATE_HZ) / 5)),
        "one click": np.eye(1, 2 * RATE_HZ, 9000)[0],
        "denormals": still + 5e-324,
        "whisper of rounding": rng.integers(-1, 2, 2 * RATE_HZ) / 32768,
        "white noise": 0.3 * rng.standard_normal(2 * RATE_HZ),
        "tone": tone(RATE_HZ, 2.0),
        "beyond full scale": 100 * tone(RATE_HZ, 2.0),
        "barely above full scale": 1.5 * tone(RATE_HZ, 2.0),
    }
    cases = {f"{name}.wav": lambda values=values: samples(values) for name, values in contents.items()}
    for subtype in ("FLOAT", "DOUBLE"):
        for name, value in (("NaN", np.nan), ("infinity", np.inf), ("minus infinity", -np.inf), ("1e300", 1e300)):
            cases[f"{name} as {subtype}.wav"] = lambda value=value, subtype=subtype: spoilt(value, subtype)
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM"):
        cases[f"tone as {subtype}.wav"] = lambda subtype=subtype: samples(tone(RATE_HZ), subtype=subtype)
    for rate_hz in (1, 100, 999, 1000, 1001, 7919, 11_025, 24_414, 192_000, 767_999, 768_000, 768_001):
        cases[f"tone at {rate_hz} Hz.wav"] = lambda rate_hz=rate_hz: samples(tone(rate_hz, 2.0), rate_hz, "PCM_16")
    for channels in (2, 8, 32, 33, 255):
        cases[f"{channels} channels.wav"] = lambda channels=channels: samples(
            np.tile(tone(RATE_HZ)[:, None], channels), subtype="PCM_16"
        )
    cases["video without sound.mp4"] = lambda: with_av("mp4", None, picture=True)
    cases["protected by a shop.m4p"] = encrypted_m4a
    cases["12 hours of silence.flac"] = lambda: silent_flac(TWELVE_HOURS)
    return cases


def odd_names() -> dict[str, Make]:
    """A good recording under names that are hard to show, to store or to put into a table."""
    names = (
        "=cmd|' C calc'!A0.wav",
        "+1+1.wav",
        "-2+3.wav",
        "@SUM(1).wav",
        "\ttab.wav",
        "line\nbreak.wav",
        "carriage\rreturn.wav",
        "<img src=x onerror=alert(1)>.wav",
        "<svg onload=alert(1)>.wav",
        '"quotes" and, commas;.wav',
        "聲音.wav",
        "आवाज़.wav",
        "голос.wav",
        "صوت.wav",
        "קול.wav",
        "목소리.wav",
        "👩‍🎤.wav",
        "e\u0301.wav",
        "\u202ewav.exe",
        "%2e%2e%2fetc%2fpasswd.wav",
        "..wav",
        "no ending",
        ".hidden",
        "CON.wav",
        "a" * 240 + ".wav",
        "$HOME `id` $(id).wav",
        "{{7*7}}.wav",
        "--help.wav",
    )
    return {name: lambda: samples(tone(RATE_HZ), subtype="PCM_16") for name in names}


def bad_archives() -> dict[str, Make]:
    """For the page's many-files tab; elsewhere they are no sound."""
    bomb = bytes(50_000_000)
    return {
        "climbs.zip": lambda: zipped({"../../climbed.wav": wav(), "/rooted.wav": wav(), "C:\\drive.wav": wav()}),
        "link.zip": lambda: zipped({"link.wav": b"/etc/passwd"}, external_attr=0o120777 << 16, create_system=3),
        "bomb.zip": lambda: zipped({"bomb.wav": bomb}),
        "bomb in a bomb.zip": lambda: zipped({"inner.zip": zipped({"bomb.wav": bomb})}),
        "ten thousand.zip": lambda: zipped({f"{index}.wav": b"" for index in range(10_000)}),
        "cut.zip": lambda: zipped({"clip.wav": wav()})[:-30],
        "not really.zip": lambda: b"PK\x03\x04" + bytes(300),
        "empty.zip": lambda: zipped({}),
        "one bad among good.zip": lambda: zipped({"good.wav": wav(), "bad.wav": b"no", "also good.wav": wav()}),
    }


BAD_INPUTS: dict[str, Make] = {
    **nothing_like_sound(),
    **lying_headers(),
    **cut_short(),
    **odd_sound(),
    **odd_names(),
    **bad_archives(),
}


def flips(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` recordings, each of another codec in turn, each with a few of its bits turned over."""
    originals = {name: make() for name, make in FORMATS.items()}
    names = list(originals)
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        name = names[number % len(names)]
        yield f"{name}, flip {number}", bytes_flipped(originals[name], rng, flips=int(rng.integers(1, 9)))


def write_all(folder: Path, names: list[str] | None = None) -> list[Path]:
    """The files of `names`, or all, in a folder; and, of all, links that lead nowhere, in circles and out of it."""
    paths = []
    for name in BAD_INPUTS if names is None else names:
        path = folder / name
        path.write_bytes(BAD_INPUTS[name]())
        paths.append(path)
    if names is None:
        for name, target in (
            ("dangling.wav", "nowhere.wav"),
            ("circle.wav", "circle.wav"),
            ("device.wav", "/dev/zero"),
        ):
            link = folder / name
            link.symlink_to(target)
            paths.append(link)
    return paths
