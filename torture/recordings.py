"""Recordings made in memory, in every format that is read: one tone each, as bytes."""

import io
from fractions import Fraction

import av
import numpy as np
import soundfile

TONE_HZ = 1000


def tone(rate_hz=48_000, duration_s=1.0, frequency_hz=TONE_HZ):
    time_s = np.arange(round(rate_hz * duration_s)) / rate_hz
    return 0.5 * np.sin(2 * np.pi * frequency_hz * time_s)


def with_soundfile(samples, rate_hz=48_000, **kind):
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, **({"format": "WAV"} | kind))
    return file.getvalue()


def with_av(container, codec, rate_hz=48_000, layout="mono", duration_s=1.0, picture=False, bit_rate=None):
    """The tone (without a codec: no sound) in any container PyAV can write, beside a grey picture if wanted."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        if picture:
            video = output.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        if codec:
            options = {"b": str(bit_rate)} if bit_rate else {}
            stream = output.add_stream(codec, rate=rate_hz, layout=layout, options=options)
        if picture:
            grey = np.full((64, 64, 3), 128, np.uint8)
            for _ in range(round(10 * duration_s)):
                output.mux(video.encode(av.VideoFrame.from_ndarray(grey)))
            output.mux(video.encode(None))
        if codec:
            channels = av.AudioLayout(layout).nb_channels
            packed = np.repeat(tone(rate_hz, duration_s), channels).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
            fit = av.AudioResampler(stream.format, layout, rate_hz, frame_size=stream.frame_size or 1024)
            for part in [*fit.resample(frame), *fit.resample(None)]:
                output.mux(stream.encode(part))
            output.mux(stream.encode(None))
    return file.getvalue()


FORMATS = {
    "wav": lambda: with_soundfile(tone()),
    "flac": lambda: with_soundfile(tone(), format="FLAC"),
    "mp3": lambda: with_soundfile(tone(), format="MP3"),
    "ogg": lambda: with_soundfile(tone(), format="OGG"),
    "opus": lambda: with_soundfile(tone(), format="OGG", subtype="OPUS"),
    "aiff": lambda: with_soundfile(tone(), format="AIFF"),
    "m4a": lambda: with_av("ipod", "aac"),
    "webm": lambda: with_av("webm", "libopus"),
    "mkv": lambda: with_av("matroska", "aac"),
    "mov": lambda: with_av("mov", "pcm_s16le"),
    "mov-64-bit-floats": lambda: with_av("mov", "pcm_f64le"),
    "mp4-with-picture": lambda: with_av("mp4", "aac", picture=True),
    "mp4-stereo": lambda: with_av("mp4", "aac", layout="stereo"),
    "m4a-5.1": lambda: with_av("ipod", "aac", layout="5.1"),
    "m4a-7.1": lambda: with_av("ipod", "aac", layout="7.1"),  # PyAV's to_ndarray would end the process
    "aac": lambda: with_av("adts", "aac"),
    "amr": lambda: with_av("amr", "libopencore_amrnb", rate_hz=8000),
    "wma": lambda: with_av("asf", "wmav2", rate_hz=44_100, bit_rate=64_000),
    "avi": lambda: with_av("avi", "mp3", picture=True),
    "caf-alac": lambda: with_av("caf", "alac"),
    "wav-64-bit-integers": lambda: with_av("wav", "pcm_s64le"),  # a wav that soundfile does not know
}
