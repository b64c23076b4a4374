"""Every format gives the same tone, everything else an AudioError, and nothing outside the file is touched."""

import io
import logging
import re
import socketserver
import threading
from fractions import Fraction

import av
import numpy as np
import psutil
import pytest
import soundfile
import torch
import torchaudio

from ser_model import audio
from ser_model.audio import AudioError, StreamResampler, Watch, audio_blocks, load_audio, prepare_waveform, resample
from torture import bad_inputs
from torture.recordings import FORMATS, TONE_HZ, tone, with_av, with_soundfile


def peak_hz(waveform, rate_hz=16_000):
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return np.argmax(spectrum) * rate_hz / len(waveform)


@pytest.fixture(scope="module")
def wav():
    return with_soundfile(tone())


# ── What is read ──


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_tone(name):
    waveform = load_audio(FORMATS[name]())
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert len(waveform) / 16_000 == pytest.approx(1.0, abs=0.08)  # lossy formats end on whole frames
    assert peak_hz(waveform) == pytest.approx(TONE_HZ, abs=3)
    assert np.abs(waveform[4000:12_000]).max() == pytest.approx(0.5, abs=0.1)


def mp3(samples: np.ndarray, kbit_s: int) -> bytes:
    """As it is written into a pipe: no header says how many frames there are."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp3", options={"write_xing": "0", "id3v2_version": "0"}) as output:
        stream = output.add_stream("libmp3lame", rate=16_000, layout="mono", options={"b": f"{kbit_s}k"})
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32)[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        output.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


@pytest.mark.parametrize("kbit_s", [(64, 8), (8, 64)])
def test_an_mp3_whose_bit_rate_varies_is_heard_to_its_end_without_a_warning(kbit_s, caplog, capfd):
    sound = b"".join(mp3(tone(16_000, 8.0), rate) for rate in kbit_s)
    assert len(load_audio(sound)) / 16_000 == pytest.approx(16, abs=0.3)
    assert not caplog.messages and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("container", "subtype"), [("OGG", "OPUS"), ("OGG", "VORBIS"), ("FLAC", "PCM_16")])
def test_recordings_laid_end_to_end_are_heard_to_the_last(container, subtype):
    sound = with_soundfile(tone(), format=container, subtype=subtype)
    assert len(load_audio(2 * sound)) == pytest.approx(2 * len(load_audio(sound)), abs=400)


def test_silence_that_a_recorder_left_out_is_heard_as_silence():
    """Two seconds of a tone, whose second half comes at 5 s."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as output:
        stream = output.add_stream("libopus", rate=48_000, layout="mono")
        for number, samples in enumerate(tone(duration_s=2.0).astype(np.float32).reshape(100, 1, 960)):
            frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
            frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
            frame.pts = 960 * number + 4 * 48_000 * (number >= 50)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    waveform = load_audio(file.getvalue())
    assert len(waveform) / 16_000 == pytest.approx(6, abs=0.1)
    loud = np.abs(waveform).reshape(-1)[: 6 * 16_000 - 1600].reshape(-1, 1600).max(axis=1) > 0.1
    assert loud[:9].all() and not loud[11:49].any() and loud[51:].all()


def test_the_length_of_a_flac_from_a_pipe_is_unknown(tmp_path):
    sound = bytearray(with_soundfile(tone(), format="FLAC"))
    sound[21:26] = bytes([sound[21] & 0xF0, 0, 0, 0, 0])  # of its samples; 0 is unknown
    assert audio.stated_duration_s(bytes(sound)) is None
    assert len(load_audio(bytes(sound))) == 16_000


def test_path_bytes_and_file_object_give_the_same(tmp_path, wav):
    for name, data in {"tone.wav": wav, "tone.m4a": FORMATS["m4a"]()}.items():
        path = tmp_path / name
        path.write_bytes(data)
        expected = load_audio(data)
        with path.open("rb") as file:
            file.seek(100)  # read from the start, wherever the file stands
            sources = [path, str(path), bytearray(data), memoryview(data), io.BytesIO(data), file]
            for source in sources:
                np.testing.assert_array_equal(load_audio(source), expected)
            assert not file.closed


def test_the_ending_of_a_name_means_nothing(tmp_path, wav):
    for ending in ("raw", "sd2", "m3u8", "txt"):  # by its name alone soundfile would take the first for headerless
        path = tmp_path / f"tone.{ending}"
        path.write_bytes(wav)
        with path.open("rb") as file:
            np.testing.assert_array_equal(load_audio(file), load_audio(wav))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_sample_formats_are_scaled_alike(subtype):
    waveform = load_audio(with_soundfile(tone(16_000), 16_000, subtype=subtype))
    np.testing.assert_allclose(waveform, tone(16_000), atol=0.02 if subtype == "ULAW" else 1 / 128)


@pytest.mark.parametrize("channels", [9, 13, 18, 32])
def test_ffmpeg_reads_numbers_of_channels_that_it_has_no_order_for(channels):
    tone_64_bit = (2**62 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16_000)).astype("<i8")
    sound = np.repeat(tone_64_bit[:, None], channels, axis=1).tobytes()  # a wav that soundfile does not know
    waveform = load_audio(bad_inputs.wav(rate_hz=16_000, channels=channels, bits=64, data=sound))
    np.testing.assert_allclose(waveform, tone_64_bit / 2**63, atol=1e-4)


def test_channels_are_averaged():
    left, right = tone(16_000), tone(16_000, frequency_hz=300)
    waveform = load_audio(with_soundfile(np.stack([left, right], axis=1), 16_000, subtype="FLOAT"))
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-6)


def test_channels_in_opposite_phase_are_refused_and_not_taken_for_silence():
    left = tone(16_000)
    refused = "opposite phase, so that together they are silent; save one of them alone, as mono"
    with pytest.raises(AudioError, match=refused):
        load_audio(with_soundfile(np.stack([left, -left], axis=1), 16_000))
    with pytest.raises(AudioError, match=refused):
        prepare_waveform(np.stack([left, -0.99 * left], axis=1), 16_000)
    for others in ([left, -0.9 * left], [left, 0 * left], [0 * left, 0 * left]):  # quieter, one-sided, really silent
        assert len(prepare_waveform(np.stack(others, axis=1), 16_000)) == len(left)


@pytest.mark.parametrize("rate_hz", [8000, 11_025, 22_050, 24_414, 44_100, 96_000, 192_000, 767_999])
def test_any_rate_keeps_pitch_length_and_loudness(rate_hz):
    waveform = load_audio(with_soundfile(tone(rate_hz), rate_hz))
    assert len(waveform) == pytest.approx(16_000, abs=1)
    middle = slice(1000, 15_000)  # the edges fade
    np.testing.assert_allclose(waveform[middle], tone(16_000)[middle], atol=0.01)


def test_another_target_rate():
    assert len(load_audio(with_soundfile(tone()), 8000)) == 8000


# ── Arrays ──


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_an_array_gives_what_its_file_gives(rate_hz):
    samples = np.stack([tone(rate_hz, 3), tone(rate_hz, 3, 440)], axis=1)
    integers = np.round(samples * 32_767).astype(np.int16)
    np.testing.assert_array_equal(prepare_waveform(integers, rate_hz), load_audio(with_soundfile(integers, rate_hz)))


def test_array_types_and_shapes_are_scaled_alike():
    expected = tone(16_000)
    arrays = {
        "uint8": np.round(expected * 127 + 128).astype(np.uint8),
        "int16": np.round(expected * 32_767).astype(np.int16),
        "big-endian": np.round(expected * 32_767).astype(">i2"),
        "int32": np.round(expected * (2**31 - 1)).astype(np.int32),
        "float32": expected.astype(np.float32),
        "float64": expected,
        "one column": expected[:, None],
        "two columns": np.stack([expected, expected], axis=1),
    }
    for name, array in arrays.items():
        given = array.copy()
        np.testing.assert_allclose(prepare_waveform(array, 16_000), expected, atol=1 / 128, err_msg=name)
        np.testing.assert_array_equal(array, given, err_msg=f"{name}: the caller's array was changed")


@pytest.mark.parametrize(
    ("array", "rate_hz", "message"),
    [
        (np.zeros(0), 16_000, "no sound"),
        (np.zeros((0, 2)), 16_000, "no sound"),
        (np.float32(1), 16_000, "shape"),
        (np.zeros((2, 3, 4)), 16_000, "shape"),
        (np.zeros((2, 16_000), np.float32), 16_000, "transposed"),
        (np.zeros(100, np.int64), 16_000, "int64"),
        (np.zeros(100, complex), 16_000, "complex"),
        (np.array(["a", "b"]), 16_000, "type"),
        (np.zeros(100), 0, "0 Hz"),
        (np.zeros(100), 999, "999 Hz"),
        (np.zeros(100), 768_001, "768001 Hz"),
        (np.zeros(100), 16_000.5, "whole number"),
        (np.zeros(100), None, "whole number"),
    ],
)
def test_unusable_arrays_are_refused(array, rate_hz, message):
    with pytest.raises(AudioError, match=message):
        prepare_waveform(array, rate_hz)


# ── Resampling ──


@pytest.mark.parametrize("rate_hz", [8000, 22_050, 44_100, 48_000])
def test_resample_is_torchaudios(rate_hz):
    noise = np.random.default_rng(0).standard_normal(rate_hz).astype(np.float32)
    reference = torchaudio.functional.resample(torch.from_numpy(noise), rate_hz, 16_000).numpy()
    np.testing.assert_allclose(resample(noise, rate_hz, 16_000), reference, atol=1e-4)  # its kernel is single precision


@pytest.mark.parametrize("rate_hz", [8000, 24_414, 44_100, 48_000])
@pytest.mark.parametrize("pieces", [1, 7])
def test_resampling_in_blocks_changes_nothing(monkeypatch, rate_hz, pieces):
    noise = np.random.default_rng(0).standard_normal(3 * rate_hz).astype(np.float32)
    whole = resample(noise, rate_hz, 16_000)
    calls = []
    resampler = audio._resampler(audio._near_ratio(rate_hz, 16_000))
    monkeypatch.setattr(resampler, "forward", lambda x, forward=resampler.forward: calls.append(len(x)) or forward(x))
    monkeypatch.setattr(audio, "RESAMPLE_BLOCK_SAMPLES", 10_000)
    in_blocks = np.concatenate(list(audio._resampled(np.array_split(noise, pieces), rate_hz, 16_000)))
    assert len(calls) > 2 and max(calls) < len(noise) / 2
    np.testing.assert_allclose(in_blocks, whole, atol=2e-6)


def test_a_kernel_lies_where_samples_do_whatever_the_default_device():
    with torch.device("meta"):
        resampler = audio._resampler(audio._near_ratio(37_123, 16_000))  # a rate whose kernel no other test has made
    assert resampler.kernel.device.type == "cpu"


def test_resample_leaves_the_same_rate_alone():
    noise = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    np.testing.assert_array_equal(resample(noise, 16_000, 16_000), noise)


def test_no_kernel_is_huge_and_usual_rates_are_exact():
    for rate_hz in (8000, 11_025, 12_000, 22_050, 24_000, 32_000, 37_800, 44_100, 48_000, 88_200, 96_000, 192_000):
        assert audio._near_ratio(rate_hz, 16_000) == Fraction(rate_hz, 16_000)
    for rate_hz in (1001, 8001, 15_992, 24_414, 44_056, 47_999, 95_999, 191_999, 767_999):
        ratio = audio._near_ratio(rate_hz, 16_000)
        assert ratio.numerator * ratio.denominator <= 1.1 * audio.MAX_KERNEL_SAMPLES
        assert abs(ratio / Fraction(rate_hz, 16_000) - 1) < (6e-4 if rate_hz >= 8000 else 1e-3)


# ── What is refused ──


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: b"", "empty"),
        (lambda: b"Dear diary, today I was happy.\n" * 100, "cannot be decoded"),
        (lambda: b"{}", "cannot be decoded"),
        (lambda: bytes(5000), "cannot be decoded"),
        (lambda: np.random.default_rng(0).bytes(20_000), "cannot be decoded"),
        (lambda: with_soundfile(np.zeros(0)), "0 samples"),
        (lambda: with_av("mp4", None, picture=True), "no sound in this file"),
        (lambda: with_soundfile(tone())[:20], "cannot be decoded"),
        (lambda: FORMATS["m4a"]()[:5000], "cannot be decoded"),  # its table of contents stands at the end
        (lambda: with_av("mpegts", "aac"), "cannot be decoded"),  # see AV_OPTIONS
        (lambda: with_soundfile(np.zeros((100, 33))), "33 channels"),
        (lambda: with_soundfile(np.zeros(100), 999), "999 Hz"),
        (lambda: with_soundfile(np.zeros(100), 800_000), "800000 Hz"),
    ],
)
def test_unusable_files_are_refused(make, message, capfd):
    with pytest.raises(AudioError, match=message) as caught:
        load_audio(make())
    assert str(caught.value).startswith("the recording: ")
    assert capfd.readouterr().err == ""


def test_random_damage_never_ends_in_another_error():
    random = np.random.default_rng(0)
    outcomes = set()
    originals = [FORMATS[name]() for name in ("wav", "flac", "ogg", "m4a", "webm", "aac", "caf-alac")]
    for _ in range(40):
        for original in originals:
            data = bytearray(original[: random.integers(1, len(original))])
            for position in random.integers(0, min(len(data), 2000), size=8):
                data[position] = random.integers(256)
            try:
                outcomes.add(np.isfinite(load_audio(bytes(data))).all())
            except AudioError:
                outcomes.add("refused")
    assert outcomes == {True, "refused"}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("position", [0, 777, -1])
def test_one_sample_that_is_no_number_is_refused(bad, rate_hz, position):
    samples = tone(rate_hz, 0.1)
    samples[position] = bad
    with pytest.raises(AudioError, match="finite"):
        load_audio(with_soundfile(samples, rate_hz, subtype="DOUBLE"))
    with pytest.raises(AudioError, match="finite"):
        prepare_waveform(samples, rate_hz)


def test_paths_that_are_no_file_are_refused_without_telling_where(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.wav").write_text("not a sound")
    cases = {
        "folder": "not a file",
        "missing.wav": "No such file",
        "nul\0.wav": "null byte",
        "x" * 300 + ".wav": "name too long",
        "text.wav": "cannot be decoded",
    }
    for name, message in cases.items():
        with pytest.raises(AudioError, match=message) as caught:
            load_audio(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)
        assert len(str(caught.value)) < 300


def test_names_are_printed_safely(tmp_path):
    with pytest.raises(AudioError) as caught:
        load_audio(tmp_path / "a\x1b[31m\nb\u202ec é.wav")
    assert str(caught.value).startswith("a\\x1b[31m\\nb\\u202ec é.wav: ")


def test_a_device_is_never_opened():
    with pytest.raises(AudioError, match="not a file"):
        load_audio("/dev/zero")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (io.StringIO("text"), "rb"),
        (None, "NoneType"),
        (np.zeros(100), "prepare_waveform"),
        (123, "int"),
    ],
)
def test_other_sources_are_refused(source, message):
    with pytest.raises(AudioError, match=message):
        load_audio(source)


def test_a_stream_that_cannot_be_rewound_is_refused(wav):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    with pytest.raises(AudioError, match="rewound"):
        load_audio(Pipe(wav))


# ── Lengths ──


@pytest.mark.parametrize("reader", ["soundfile", "av"])
def test_decoding_stops_at_the_limit(reader):
    class Counted(io.BytesIO):
        bytes_read = 0

        def read(self, size=-1):
            data = super().read(size)
            self.bytes_read += len(data)
            return data

    noise = 0.1 * np.random.default_rng(0).standard_normal(48_000 * 30)
    data = with_soundfile(noise, format="FLAC") if reader == "soundfile" else with_av("mov", "pcm_s16le", duration_s=30)
    file = Counted(data)
    with pytest.raises(AudioError, match="longer than 3 s"):
        load_audio(file, max_duration_s=3)
    assert file.bytes_read < len(data) / 4
    assert len(load_audio(data, max_duration_s=30)) == 16_000 * 30


def test_a_tiny_file_of_silence_is_refused():
    silence = with_soundfile(np.zeros(16_000 * 1210, np.int16), 16_000, format="FLAC")
    assert len(silence) < 100_000
    with pytest.raises(AudioError, match="longer than 1200 s"):
        load_audio(silence, max_duration_s=1200)


@pytest.mark.parametrize("data_bytes", [0, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_a_wav_written_into_a_pipe_is_read_to_its_end(wav, data_bytes, caplog):
    at = wav.index(b"data") + 4
    endless = wav[:at] + data_bytes.to_bytes(4, "little") + wav[at + 4 :]
    np.testing.assert_allclose(load_audio(endless), load_audio(wav), atol=1e-4)
    assert not caplog.records


@pytest.mark.parametrize("total", [0, 2**36 - 1])
def test_a_flac_whose_header_lies_is_read_to_its_end(total):
    data = bytearray(with_soundfile(tone(), format="FLAC"))
    depth_bits = (data[21] & 0xF0) << 32  # STREAMINFO: the depth's last 4 bits, then 36 bits of length
    data[21:26] = (depth_bits | total).to_bytes(5, "big")
    assert len(load_audio(bytes(data))) == 16_000


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "mkv"])
def test_a_file_cut_short_gives_what_is_left(name, caplog):
    mkv = name == "mkv"
    whole = with_av("matroska", "aac", duration_s=4) if mkv else with_soundfile(tone(duration_s=4), format=name.upper())
    with caplog.at_level(logging.WARNING):
        waveform = load_audio(whole[: len(whole) // 2])
    assert 1.7 < len(waveform) / 16_000 < 2.1
    assert peak_hz(waveform) == pytest.approx(TONE_HZ, abs=3)
    assert mkv or "cut short" in caplog.text  # the mkv is cut between two packets


# ── Nothing outside the file is touched ──


@pytest.fixture
def web():
    """A local web server that notes every request."""
    requests = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            requests.append(self.rfile.readline())
            self.wfile.write(b"HTTP/1.0 404 Not Found\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/tone.ts", requests
        server.shutdown()
        thread.join()


def hls(target):
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"


def ffconcat(target):
    return f"ffconcat version 1.0\nfile '{target}'\n"


def plain_av_reads(path):
    """What FFmpeg does with the file when it may."""
    with av.open(str(path), container_options={"protocol_whitelist": "file,http,tcp"}, timeout=5) as container:
        return sum(frame.samples for frame in container.decode(audio=0)) > 0


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with good sound files, and the working directory: what a relative name in a playlist would find."""
    (tmp_path / "tone.wav").write_bytes(with_soundfile(tone()))
    (tmp_path / "tone.ts").write_bytes(with_av("mpegts", "aac"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("playlist", "ending", "target"), [(hls, "m3u8", "tone.ts"), (ffconcat, "txt", "tone.wav")])
def test_a_playlist_does_not_open_its_neighbours(folder, playlist, ending, target):
    path = folder / f"list.{ending}"
    path.write_text(playlist(target))
    assert plain_av_reads(path)  # so the list is good, and only our locks refuse it
    for source in (path, path.read_bytes(), io.BytesIO(path.read_bytes())):
        with pytest.raises(AudioError, match="cannot be decoded"):
            load_audio(source)


@pytest.mark.parametrize("name", ["list.m3u8", "list.mp3", "list.wav"])
def test_a_playlist_causes_no_request(folder, web, name):
    address, requests = web
    path = folder / name
    path.write_text(hls(address))
    with pytest.raises(AudioError, match="cannot be decoded"):
        load_audio(path)
    assert requests == []
    (folder / "list.m3u8").write_text(hls(address))
    with pytest.raises(av.error.FFmpegError):
        plain_av_reads(folder / "list.m3u8")
    assert len(requests) > 0  # so the server does hear what FFmpeg would ask


@pytest.mark.parametrize("off", ["format_whitelist", "protocol_whitelist"])
def test_each_lock_holds_alone(folder, monkeypatch, off):
    data = ffconcat("tone.wav").encode()
    monkeypatch.setattr(audio, "AV_OPTIONS", {})
    assert len(load_audio(data)) > 0  # without locks the name alone leads to the neighbour
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    monkeypatch.delitem(audio.AV_OPTIONS, off)
    with pytest.raises(AudioError, match="cannot be decoded"):
        load_audio(data)


@pytest.mark.parametrize("scheme", ["http", "HTTPS", "file", "concat+x"])
def test_a_web_address_is_refused_and_not_fetched(web, scheme):
    address, requests = web
    with pytest.raises(AudioError, match="web address"):
        load_audio(re.sub("^http", scheme, address))
    assert requests == []


def test_pictures_are_not_decoded():
    """A small picture can unpack into gigabytes, and FFmpeg looks at the first one while it searches for the sound."""
    data = with_av("mp4", "aac", picture=True)
    kinds = []
    for options in ({}, audio.AV_OPTIONS):
        with av.open(io.BytesIO(data), container_options=options) as container:
            kinds.append(container.streams.video[0].codec_context.format)
    assert kinds[0].name == "yuv420p"
    assert kinds[1] is None  # only its decoder could have told


def test_an_unusual_channel_order_is_read():
    """The order "centre, left, right" makes PyAV 17.1 to 18.1 free memory twice, which ends the process."""
    data = with_av("mov", "pcm_s16le", layout="3.0")
    patched = data.replace(bytes.fromhex("00710003"), bytes.fromhex("00720003"))  # CoreAudio's tags MPEG 3.0 A and B
    assert patched != data
    np.testing.assert_array_equal(load_audio(patched), load_audio(data))


def test_decoding_keeps_nothing_in_memory():
    data = with_av("amr", "libopencore_amrnb", rate_hz=8000, duration_s=60.0)  # 3000 frames
    process = psutil.Process()
    for _ in range(5):
        load_audio(data)
    before = process.memory_info().rss
    for _ in range(20):
        load_audio(data)
    assert process.memory_info().rss - before < 2e6  # 96 bytes a frame would be 5.8 MB


# ── Real recordings ──


def correlation(a, b):
    length = min(len(a), len(b))
    assert abs(len(a) - len(b)) <= 2
    return np.corrcoef(a[:length], b[:length])[0, 1]


def test_native_recordings_match_their_16_khz_copies(data_dir):
    originals = sorted((data_dir / "native_samples").glob("*.wav"))
    rates_and_channels = set()
    for original in originals:
        (copy,) = [*data_dir.glob(f"RAVDESS/**/{original.stem}.flac"), *data_dir.glob(f"TESS/**/{original.stem}.flac")]
        assert correlation(load_audio(original), load_audio(copy)) > 0.99, original.name
        info = soundfile.info(original)
        rates_and_channels.add((info.samplerate, info.channels))
    assert rates_and_channels >= {(48_000, 1), (48_000, 2), (24_414, 1), (96_000, 1)}


# ── Piece by piece ──


@pytest.mark.parametrize(
    "data",
    [
        with_soundfile(tone(duration_s=50)),
        with_av("ipod", "aac", duration_s=50),
        with_soundfile(tone(16_000, 5), 16_000),
    ],
    ids=["wav", "m4a", "nothing to resample"],
)
def test_blocks_together_are_the_whole(data):
    pieces = list(audio_blocks(data))
    assert len(pieces) > 1 and max(map(len, pieces)) < 31 * 16_000
    np.testing.assert_array_equal(np.concatenate(pieces), load_audio(data))


def test_what_one_decoder_cannot_finish_the_other_goes_on_with(monkeypatch):
    """Nothing twice and nothing missing, even if the first pieces were already taken."""
    data = with_soundfile(tone(16_000, duration_s=20), 16_000)
    whole, blocks_of = load_audio(data), audio._soundfile_blocks

    def breaking(*arguments):
        for number, block in enumerate(blocks_of(*arguments)):
            if number == 2:
                raise soundfile.LibsndfileError(7)
            yield block

    monkeypatch.setattr(audio, "_soundfile_blocks", breaking)
    np.testing.assert_allclose(np.concatenate(list(audio_blocks(data))), whole, atol=1e-6)


def test_whoever_stops_asking_for_blocks_leaves_the_rest_undecoded(tmp_path):
    soundfile.write(tmp_path / "long.flac", np.zeros(120 * 16_000), 16_000)

    class Count(Watch):
        frames = 0

        def block(self, rate_hz, samples, mono):
            self.frames += len(samples)

    watch = Count()
    assert len(next(audio_blocks(tmp_path / "long.flac", watch=watch))) and watch.frames < 10 * 16_000


@pytest.mark.parametrize("from_hz", [16_000, 24_414, 44_100, 48_000])
def test_pieces_of_any_size_are_resampled_as_if_they_were_one(from_hz):
    rng = np.random.default_rng(0)
    sound = rng.normal(size=3 * from_hz).astype(np.float32)
    resampler, pieces, start = StreamResampler(from_hz, 16_000, chunk_samples=1024), [], 0
    while start < len(sound):
        end = start + int(rng.integers(0, 9000))
        pieces.append(resampler.push(sound[start:end]))
        start = end
    given = sum(map(len, pieces)) / 16_000
    assert 3 - given < 0.1  # what a live picture lags behind
    pieces.append(resampler.flush())
    np.testing.assert_allclose(np.concatenate(pieces), resample(sound, from_hz, 16_000), atol=1e-6)
