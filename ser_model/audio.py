"""Any sound file, bytes or array -> one mono float32 waveform.

    soundfile (wav, flac, ogg, opus, aiff)           -+
    PyAV (mp3, m4a, webm, mp4, amr, aac, wma, mkv)   -+-> blocks -> mean of channels -> resample -> (T,) float32
    numpy array (T,) or (T, C)                       -+

Files from strangers are read here: decoding goes block by block and stops at a duration limit, nothing a file refers to
is opened, and whatever is wrong ends in an `AudioError`, whose message may be shown as it is.
"""

import io
import logging
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile
import torch

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = tuple(
    ".3gp .aac .aif .aiff .amr .avi .caf .flac .m4a .mka .mkv .mov .mp3 .mp4 .oga .ogg .opus .wav .webm .wma".split()
)  # of the files that are taken for recordings where a folder or a zip is given
SAMPLING_RATE_HZ = 16_000  # speech keeps nearly all its energy below 8 kHz
MAX_DURATION_S = 3600.0  # an hour at 16 kHz is 230 MB
MAX_CHANNELS = 32  # the largest microphone arrays in common use; also catches (C, T) given for (T, C)
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 768_000  # below there is no speech, above no converter

BLOCK_FRAMES = 2**16  # 1.4 s at 48 kHz; 8 MB with 32 channels
RESAMPLE_BLOCK_SAMPLES = 2**20  # 22 s at 48 kHz: most recordings are resampled in one piece
FULL_SCALE = 0.999  # from here on a sample is clipped: 16-bit converters stop at 32767 / 32768, 10-bit ones at 0.998
MAX_KERNEL_SAMPLES = 1_000_000  # 4 MB; exact for every usual rate (11 025 Hz is the largest: 441 x 640)
CUT_SHORT_SHARE = 0.95  # mp3 frame counts are off by 1 %, so a little less than promised means nothing
CANCELLED_SHARE = 1e-4  # of a channel's energy is left of two in opposite phase: -40 dB, far less than of any real pair
MORE_S = 0.2  # that packets hold beyond what soundfile gave, and it has stopped too early
GAP_S, MAX_GAP_S = 0.2, 3600.0  # between the times of two frames: silence; beyond an hour a clock that was set
UNKNOWN_FRAMES = 2**62  # and more: what libsndfile calls the length of a FLAC that was written into a pipe
UNKNOWN_LENGTH_BYTES = 0x7FFF_0000  # who writes a wav into a pipe promises this much or more: "until the end"

# Sample type: the value of silence, and that of full scale above it.
FULL_SCALES = {"u1": (128, 2**7), "i2": (0, 2**15), "i4": (0, 2**31), "f2": (0, 1), "f4": (0, 1), "f8": (0, 1)}

MAX_PLANES = 8  # see `_FrameReader`

# FFmpeg also knows playlists, image sequences and network sessions, which name further files: only plain containers may
# open, and they may open nothing else. It decodes the first pictures of a video, which can be huge: only sound may be.
# Left out: mpegts, mpeg and flv. They add streams on the way, and PyAV then reads past the end of a list.
AV_OPTIONS = {
    "format_whitelist": "aac,aiff,amr,asf,avi,caf,flac,matroska,mov,mp3,ogg,wav",
    "protocol_whitelist": "none",
    "codec_whitelist": "aac,ac3,alac,amrnb,amrwb,eac3,flac,mp2float,mp3float,opus,vorbis,wmapro,wmav1,wmav2",
}

REMEDY = "record again or convert it to wav, mp3, m4a, ogg, flac or webm"


class AudioError(ValueError):
    """A recording that cannot be used: what came, what was wanted, the remedy; no server paths, so fit to be shown."""


class NoSoundError(AudioError):
    """A recording of no bytes or no samples."""


class Watch:
    """Told what is decoded, before channels are mixed and the rate is changed; see `load_audio`."""

    def begin(self) -> None:
        """A decoder starts from the first byte; what another one gave before is void."""

    def block(self, rate_hz: int, samples: np.ndarray, mono: np.ndarray) -> None:
        """The next samples (T, C) float32 of the file, and their mean (T,)."""

    def damage(self, name: str, what: str) -> None:
        """A file that could be decoded has a fault; logged unless a subclass takes it up."""
        logger.warning("%s: %s", name, what)


def load_audio(
    source: str | os.PathLike | bytes | BinaryIO,
    sampling_rate: int = SAMPLING_RATE_HZ,
    *,
    max_duration_s: float = MAX_DURATION_S,
    watch: Watch | None = None,
) -> np.ndarray:
    """Decode a recording, whole, from its first byte.

    Args:
        source: a path, the bytes of a file, or a seekable binary file object (left open). A web address is refused.
        sampling_rate: of the result, in Hz.
        max_duration_s: decoding stops with an error beyond this many seconds, whatever the header says.
        watch: is told what the file holds, block by block.

    Returns:
        (T,) float32 at `sampling_rate`, channels averaged, integer formats scaled to [-1, 1]. A file that was cut short
        gives what is left; where that can be told, a warning is logged.

    Raises:
        AudioError: no such file, not audio, no audio track, no samples, too long, odd rate or channels, NaN or inf, two
            channels whose mean is silence though each is not.
    """
    return np.concatenate(list(audio_blocks(source, sampling_rate, max_duration_s=max_duration_s, watch=watch)))


def audio_blocks(
    source: str | os.PathLike | bytes | BinaryIO,
    sampling_rate: int = SAMPLING_RATE_HZ,
    *,
    max_duration_s: float = math.inf,
    watch: Watch | None = None,
) -> Iterator[np.ndarray]:
    """Decode a recording piece by piece: together the samples of `load_audio`, however long it is.

    Memory holds a piece or two, of at most half a minute. Who has enough stops asking.

    Args:
        source, sampling_rate, max_duration_s, watch: as for `load_audio`.

    Yields:
        (T,) float32 at `sampling_rate`.

    Raises:
        AudioError: as `load_audio`, when the fault is reached.
    """
    name = _display_name(source)
    _check_rate(sampling_rate)
    try:
        with _opened(source) as file:
            yield from _decoded(file, name, sampling_rate, max_duration_s, watch or Watch())
    except AudioError as error:
        raise type(error)(f"{name}: {error}") from error


def stated_duration_s(source: str | os.PathLike | bytes | BinaryIO) -> float | None:
    """What the header of a recording promises, in seconds; None if it says nothing. For a progress bar, no more.

    Raises:
        AudioError: it cannot be opened.
    """
    with _opened(source) as file:
        try:
            with _soundfile(file) as sound:
                return sound.frames / sound.samplerate if sound.frames < UNKNOWN_FRAMES else None
        except (soundfile.LibsndfileError, _HandedOver):
            file.seek(0)
        try:
            with _container(file) as container:
                return container.duration / av.time_base if container.duration else None
        except av.error.FFmpegError:
            return None


def prepared_blocks(array: np.ndarray, sampling_rate: int, target_hz: int = SAMPLING_RATE_HZ) -> Iterator[np.ndarray]:
    """What `prepare_waveform` gives, piece by piece."""
    samples = np.asarray(array)
    if samples.ndim not in (1, 2):
        raise AudioError(f"an array of shape {samples.shape} came; give (samples,) or (samples, channels)")
    samples = samples.reshape(len(samples), -1) if samples.size else samples.reshape(0, 1)
    _check_rate(target_hz)
    blocks = (samples[start : start + BLOCK_FRAMES] for start in range(0, len(samples), BLOCK_FRAMES))
    given = 0
    for piece in _pieces(((sampling_rate, block) for block in blocks), target_hz, math.inf, Watch()):
        given += len(piece)
        yield piece
    if not given:
        raise NoSoundError("the recording holds no sound (0 samples); record again")


def prepare_waveform(array: np.ndarray, sampling_rate: int, target_hz: int = SAMPLING_RATE_HZ) -> np.ndarray:
    """Give an array in memory the checks and conversions a file gets.

    Args:
        array: (T,) or (T, C), as soundfile and gradio give them; uint8, int16, int32 (all full scale) or float.
        sampling_rate: of `array`, in Hz.
        target_hz: of the result, in Hz.

    Returns:
        (T,) float32 at `target_hz`.

    Raises:
        AudioError: another shape or dtype, no samples, odd rate or channels, NaN or infinity.
    """
    return np.concatenate(list(prepared_blocks(array, sampling_rate, target_hz)))


def resample(waveform: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Change the sampling rate with torchaudio's default filter (sinc of 6 zero crossings under a Hann window).

    It is `torchaudio.functional.resample` with the kernel computed in double precision. For odd rates, whose kernel
    would take gigabytes (24 414 Hz: 8000 x 12 207), the ratio is rounded to a near fraction: 6e-7 off at 24 414 Hz, at
    most 0.05 % for any rate from 8 kHz on.

    Args:
        waveform: (T,) float at `from_hz`.

    Returns:
        (ceil(T * to_hz / from_hz),) float32 at `to_hz`; the same values if the rates are equal.

    Raises:
        AudioError: a rate that is no whole number of Hz or out of bounds.
    """
    _check_rate(from_hz)
    _check_rate(to_hz)
    return np.concatenate([np.zeros(0, np.float32), *_resampled([np.asarray(waveform, np.float32)], from_hz, to_hz)])


class StreamResampler:
    """Resamples the pieces of a waveform as if they were one.

    held:   | margin | chunk ............ | margin |      the filter looks `margin` samples to either side
    keep:            | chunk resampled    |
    next:                        | margin | chunk ...     pieces start at whole steps, where the filter repeats itself

    Args:
        from_hz, to_hz: as for `resample`.
        chunk_samples: what comes out lags that many samples at `from_hz`, and two margins, behind what goes in.
    """

    def __init__(self, from_hz: int, to_hz: int, chunk_samples: int):
        ratio = _near_ratio(from_hz, to_hz)
        self._resampler = _resampler(ratio) if ratio != 1 else None
        if self._resampler is None:
            return
        step_in, self._step_out = ratio.numerator, ratio.denominator
        self._margin_steps = math.ceil(self._resampler.width / step_in)
        self._chunk_steps = math.ceil(chunk_samples / step_in)
        self._margin, self._chunk = self._margin_steps * step_in, self._chunk_steps * step_in
        self._held, self._held_samples = [np.zeros(self._margin, np.float32)], self._margin

    def push(self, piece: np.ndarray) -> np.ndarray:
        """The next samples (T,) float32 -> those (T',) that they complete, perhaps none."""
        if self._resampler is None:
            return piece
        self._held.append(piece)
        self._held_samples += len(piece)
        needed, done = self._margin + self._chunk + self._margin, [np.zeros(0, np.float32)]
        if self._held_samples >= needed:
            signal = np.concatenate(self._held)
            while len(signal) >= needed:
                resampled = self._resampler(torch.from_numpy(signal[:needed])).numpy()
                done.append(resampled[self._margin_steps * self._step_out :][: self._chunk_steps * self._step_out])
                signal = signal[self._chunk :]
            self._held, self._held_samples = [signal], len(signal)
        return np.concatenate(done)

    def flush(self) -> np.ndarray:
        """The last samples, which nothing follows."""
        if self._resampler is None:
            return np.zeros(0, np.float32)
        rest = torch.from_numpy(np.concatenate(self._held))
        return self._resampler(rest).numpy()[self._margin_steps * self._step_out :]


# ── Opening ──


def _display_name(source: object) -> str:
    """The last part of a path, safe to print; file objects and bytes may have none."""
    path = source if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    if not isinstance(path, str | os.PathLike):
        return "the recording"
    last = re.split(r"[/\\]", os.fsdecode(path).rstrip("/\\"))[-1] or "the recording"
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in last)
    return (
        shown if len(shown) <= 100 else f"{shown[:60]}...{shown[-30:]}"
    )  # both the start and the ending say something


@contextmanager
def _opened(source: str | os.PathLike | bytes | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, str | os.PathLike):
        with _open_path(os.fsdecode(source)) as file:
            yield file
    elif isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif hasattr(source, "read"):
        yield _checked_file(source)
    else:
        raise AudioError(
            f"a {type(source).__name__} came; give a path, bytes or a binary file (arrays: prepare_waveform)"
        )


def _open_path(path: str) -> BinaryIO:
    if re.match(r"[a-z][a-z0-9+.-]+://", path, re.IGNORECASE):
        raise AudioError("this is a web address, and none is fetched; download it and give the file")
    try:
        if stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device could block, or never end
            return Path(path).open("rb")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"cannot be opened ({reason}); check the path") from error
    raise AudioError("not a file; give the path of one recording")


def _checked_file(file: BinaryIO) -> BinaryIO:
    if not hasattr(file, "seek") or not getattr(file, "seekable", lambda: True)():
        raise AudioError("this stream cannot be rewound; read it and give its bytes")
    if not isinstance(file.read(0), bytes):
        raise AudioError("the file was opened as text; open it with mode 'rb'")
    return file


class _Nameless:
    """All that the decoders may see of a file: without a name they cannot guess by its ending or find neighbours."""

    def __init__(self, file: BinaryIO):
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _container(file: BinaryIO) -> av.container.InputContainer:
    """A file as FFmpeg reads it, which opens nothing else."""
    return av.open(_Nameless(file), "r", container_options=AV_OPTIONS, metadata_errors="replace")


# ── Decoding ──

Block = tuple[int, np.ndarray]  # rate in Hz, (T, C) samples of any dtype


def _decoded(file: BinaryIO, name: str, to_hz: int, max_duration_s: float, watch: Watch) -> Iterator[np.ndarray]:
    """soundfile first, which is quickest; what it does not know, cannot finish or finds empty goes to PyAV."""
    file.seek(0, os.SEEK_END)
    if file.tell() == 0:
        raise NoSoundError("the file is empty (0 bytes); record or upload it again")
    given, finished = 0, False
    try:
        for piece in _pieces(_soundfile_blocks(file, name, watch), to_hz, max_duration_s, watch):
            given += len(piece)
            yield piece
        finished = True
    except (soundfile.LibsndfileError, _HandedOver) as error:
        logger.debug("%s: soundfile: %s", name, error)
    if given and finished:
        return
    reached = 0
    try:
        for piece in _pieces(_av_blocks(file, name, watch), to_hz, max_duration_s, watch):
            fresh = piece[max(0, given - reached) :]  # PyAV starts anew; what soundfile gave before it broke stands
            reached += len(piece)
            if len(fresh):
                yield fresh
    except av.error.FFmpegError as error:
        raise AudioError(
            f"cannot be decoded: no sound file, an unknown format, damaged or cut short; {REMEDY}"
        ) from error
    if not given and not reached:
        raise NoSoundError(f"the recording holds no sound (0 samples); {REMEDY}")


class _HandedOver(Exception):  # noqa: N818  no error
    """soundfile leaves the rest to PyAV."""


def _soundfile(file: BinaryIO) -> soundfile.SoundFile:
    if _first_mp3_frame(file):  # of variable bit rate, from a pipe, libsndfile guesses the length and reads no further
        raise _HandedOver("an MP3")
    file.seek(0)
    return soundfile.SoundFile(_Nameless(file))


def _soundfile_blocks(file: BinaryIO, name: str, watch: Watch) -> Iterator[Block]:
    with _soundfile(file) as sound:
        _check_channels(sound.channels)
        frames = 0
        while len(block := sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
            frames += len(block)
            yield sound.samplerate, block
        if sound.format in ("OGG", "FLAC") and _packets_s(file) > frames / sound.samplerate + MORE_S:
            raise _HandedOver(f"more follows the {frames} frames that were given")
        _check_length(frames, _promised_frames(sound), name, watch)


def _check_length(frames: int, promised: float, name: str, watch: Watch) -> None:
    if frames < CUT_SHORT_SHARE * promised < UNKNOWN_FRAMES:
        watch.damage(name, f"the header promises {promised:.0f} frames, {frames} are there; it seems cut short")


def _promised_frames(sound: soundfile.SoundFile) -> float:
    """What the header says. For a wav libsndfile counts what is there, and notes "data : 384000 (should be 99956)"."""
    if noted := re.search(r"^data : (\d+) \(should be (\d+)\)", sound.extra_info, re.MULTILINE):
        promised_bytes, bytes_there = map(int, noted.groups())
        if bytes_there and promised_bytes < UNKNOWN_LENGTH_BYTES:
            return sound.frames * promised_bytes / bytes_there
    return sound.frames


def _packets_s(file: BinaryIO) -> float:
    """How long the packets of sound last together, none of which is decoded; 0 where that cannot be told.

    Of files that were laid end to end, as Ogg allows, libsndfile reads the first.
    """
    file.seek(0)
    try:
        with _container(file) as container:
            stream = container.streams.best("audio")
            if stream is None or stream.time_base is None:
                return 0.0
            return float(sum(packet.duration or 0 for packet in container.demux(stream)) * stream.time_base)
    except av.error.FFmpegError:
        return 0.0


def _first_mp3_frame(file: BinaryIO) -> bytes:
    """The start of an MP3, behind its ID3 tag if it has one; nothing of any other file."""
    file.seek(0)
    head = file.read(10)
    tag_bytes = 10 + sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False))
    file.seek(tag_bytes if head.startswith(b"ID3") else 0)
    frame = file.read(2048)
    is_layer_3 = len(frame) > 1 and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2  # ISO 11172-3, 2.4.1.3: sync, layer
    return frame if is_layer_3 else b""


def _states_length(file: BinaryIO) -> bool:
    """Whether an MP3 tells how many frames it has; else their number is a guess."""
    first_frame = _first_mp3_frame(file)
    return any(name in first_frame for name in (b"Xing", b"Info", b"VBRI"))


def _av_blocks(file: BinaryIO, name: str, watch: Watch) -> Iterator[Block]:
    file.seek(0)
    with _container(file) as container:
        stream = container.streams.best("audio")
        if stream is None:
            raise AudioError(f"there is no sound in this file; {REMEDY}")
        if stream.codec_context is None:
            raise AudioError(f"the sound is of an unknown kind; {REMEDY}")
        _use_plain_channel_order(stream.codec_context)
        reader = _FrameReader()
        broken_packets, expected_s, decoded = 0, None, 0
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:  # a lost or cut packet costs some 20 ms; the rest is still good
                broken_packets += 1
                continue
            for frame in frames:
                if expected_s is not None and frame.time is not None:
                    yield from _silence(frame, frame.time - expected_s)
                lasts_s = frame.samples / frame.sample_rate
                expected_s = max(expected_s or 0.0, frame.time or 0.0) + lasts_s
                decoded += frame.samples
                yield from reader.blocks(frame)
        if container.format.name == "mp3" and container.duration and _states_length(file):
            promised = container.duration / av.time_base * (stream.rate or 0)
            _check_length(decoded, promised, name, watch)
        if broken_packets:
            watch.damage(name, f"{broken_packets} packets could not be decoded; it seems damaged or cut short")


def _silence(frame: av.AudioFrame, gap_s: float) -> Iterator[Block]:
    """What lies in a gap before a frame: recorders leave out silence, and players wait that long."""
    if not GAP_S < gap_s <= MAX_GAP_S:
        return
    left = round(gap_s * frame.sample_rate)
    while left:
        length = min(left, BLOCK_FRAMES)
        yield frame.sample_rate, np.zeros((length, frame.layout.nb_channels), np.float32)
        left -= length


def _use_plain_channel_order(context: av.AudioCodecContext) -> None:
    """PyAV 17.1 to 18.1 free an order such as "right, left" twice, which ends the process; to average, any will do."""
    channels = context.channels
    _check_channels(channels)
    try:
        context.layout = f"{channels}c"  # FFmpeg's usual order for so many
    except ValueError:  # it has one for some numbers only
        context.layout = f"{channels}C"


class _FrameReader:
    """Samples of one recording's frames.

    PyAV's AudioResampler leaks 96 bytes a frame, 30 MB for two hours of AAC (PyAV 17.0), so it is asked only where
    nothing else will do: `to_ndarray` of a planar frame of 8 channels or more (7.1) reads past memory in PyAV 15 to 18,
    and `FULL_SCALES` has no integers of 64 bits.
    """

    def __init__(self):
        self._kind, self._resampler = None, av.AudioResampler(format="flt")

    def blocks(self, frame: av.AudioFrame) -> Iterator[Block]:
        channels = frame.layout.nb_channels
        _check_channels(channels)
        kind = (frame.sample_rate, channels, frame.format.name)
        self._kind = self._kind or kind
        changes = AudioError(f"the sound changes its rate, channels or sample format in mid-file; {REMEDY}")
        if kind != self._kind:
            raise changes
        if frame.format.name in ("s64", "s64p") or (frame.format.is_planar and channels >= MAX_PLANES):
            try:
                parts = self._resampler.resample(frame)
            except av.error.FFmpegError:
                raise
            except ValueError as error:  # the order of the channels, too
                raise changes from error
            for part in parts:
                yield part.sample_rate, part.to_ndarray().reshape(-1, channels)
        elif frame.format.is_planar:
            yield frame.sample_rate, frame.to_ndarray().T  # (C, T) -> (T, C)
        else:
            yield frame.sample_rate, frame.to_ndarray().reshape(-1, channels)


# ── From blocks to a waveform ──


def _check_rate(rate_hz: int) -> None:
    if not isinstance(rate_hz, int | np.integer):
        raise AudioError(
            f"the sampling rate {rate_hz!r} is no whole number of Hz; give an int such as {SAMPLING_RATE_HZ}"
        )
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioError(f"the sampling rate is {rate_hz} Hz; give {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz")


def _check_channels(channels: int) -> None:
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{channels} channels came; give 1 to {MAX_CHANNELS} (an array as (samples, channels), not transposed)"
        )


def _pieces(blocks: Iterable[Block], to_hz: int, max_duration_s: float, watch: Watch) -> Iterator[np.ndarray]:
    """Blocks -> pieces (T,) float32 at `to_hz`, or none; memory holds about one resampling block."""
    watch.begin()
    blocks = iter(blocks)
    if (first := next(blocks, None)) is None:
        return
    rate_hz = first[0]
    _check_rate(rate_hz)
    mono = _mono_blocks(chain([first], blocks), rate_hz, max_duration_s, watch)
    for piece in _resampled(mono, rate_hz, to_hz):
        if not np.isfinite(piece).all():  # one bad sample reaches its neighbours through the filter: none gets past
            raise AudioError(f"some samples are no finite numbers (NaN or infinity); {REMEDY}")
        yield piece


def _mono_blocks(blocks: Iterable[Block], rate_hz: int, max_duration_s: float, watch: Watch) -> Iterator[np.ndarray]:
    frames, mono_energy, left_energy = 0, 0.0, 0.0
    for block_rate_hz, samples in blocks:
        if block_rate_hz != rate_hz:
            raise AudioError(f"the sampling rate changes from {rate_hz} to {block_rate_hz} Hz in mid-file; {REMEDY}")
        _check_channels(samples.shape[1])
        frames += len(samples)
        if frames > max_duration_s * rate_hz:
            raise AudioError(f"the recording is longer than {max_duration_s:g} s; cut it into shorter pieces")
        mono = _to_mono(samples)
        watch.block(rate_hz, samples, mono)
        if samples.shape[1] == 2:
            left = _to_mono(samples[:, :1])
            mono_energy += float(np.dot(mono, mono))
            left_energy += float(np.dot(left, left))
        yield mono
    if mono_energy < CANCELLED_SHARE * left_energy:
        raise AudioError(
            "its two channels are in opposite phase, so that together they are silent; save one of them alone, as mono"
        )


def _to_mono(samples: np.ndarray) -> np.ndarray:  # (T, C) -> (T,) float32
    if (kind := f"{samples.dtype.kind}{samples.dtype.itemsize}") not in FULL_SCALES:
        raise AudioError(f"samples of type {samples.dtype} came; give float, int16, int32 or uint8")
    zero, one = FULL_SCALES[kind]
    mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float64)
    with np.errstate(over="ignore"):  # a double beyond float32 becomes infinity, and is refused as such
        return (mono if one == 1 else (mono.astype(np.float64) - zero) / one).astype(np.float32)


def _resampled(blocks: Iterable[np.ndarray], from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    resampler = StreamResampler(from_hz, to_hz, RESAMPLE_BLOCK_SAMPLES)
    for block in blocks:
        if len(piece := resampler.push(block)):
            yield piece
    yield resampler.flush()


def _near_ratio(from_hz: int, to_hz: int) -> Fraction:
    """from_hz / to_hz, or the nearest fraction whose kernel (about numerator x denominator) is small enough."""
    ratio = Fraction(int(from_hz), int(to_hz))
    return ratio.limit_denominator(max(1, math.isqrt(int(MAX_KERNEL_SAMPLES / ratio))))


@lru_cache(maxsize=8)  # recordings of one corpus or one phone share a rate, and building a kernel takes up to 50 ms
def _resampler(ratio: Fraction) -> torch.nn.Module:
    from torchaudio.transforms import Resample  # a second to import, and not needed at 16 kHz

    with torch.device("cpu"):  # where samples lie, whatever the default device
        return Resample(ratio.numerator, ratio.denominator)
