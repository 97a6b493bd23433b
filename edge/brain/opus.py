"""Opus packets to sound and sound to Opus packets; the one module of the product that imports opuslib_next."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Literal

import numpy as np

from edge.seam import DOWNLINK_FRAME_MS, DOWNLINK_RATE_HZ, UPLINK_RATE_HZ
from models.errors import ConfigError
from models.speech import SpeechChunk

MAX_FRAME_MS = 120
"""Longest packet Opus allows, RFC 6716 §3.2.5."""
MAX_PACKET_BYTES = 4000
"""Longest packet worth reading; libopus' documentation of opus_encode recommends this buffer."""
_FIRST_FRAME_MS = 60
"""What a lost first packet is taken for; the firmware's frame length, protocol §6.1."""
_MAX_ENCODED_BYTES = 1500
"""Room for one packet of at most 120 ms; speech at 32 kbit/s needs 240 bytes for 60 ms."""

Application = Literal["voip", "audio", "restricted_lowdelay"]
"""What libopus optimises for: speech, any sound, or delay, the last by its transform codec alone."""


def _library() -> ModuleType:
    """Return opuslib_next; raise ConfigError when it or its libopus is missing."""
    try:
        import opuslib_next
        import opuslib_next.api.decoder
    except (ImportError, OSError, RuntimeError) as error:
        raise ConfigError("libopus cannot be loaded; run: pip install opuslib-next-bundled") from error
    library: ModuleType = opuslib_next
    return library


class OpusDecoder:
    """The decoder of one device; Opus has memory, so never share it."""

    def __init__(self, rate_hz: int = UPLINK_RATE_HZ) -> None:
        """Raise ConfigError when libopus is missing or cannot decode to ``rate_hz``."""
        library = _library()
        try:
            self._decoder: Any = library.Decoder(rate_hz, 1)
        except library.OpusError as error:
            raise ConfigError(f"Opus cannot decode to {rate_hz} Hz; use 8000, 12000, 16000, 24000 or 48000") from error
        self._decode: Any = library.api.decoder.libopus_decode
        self._max_samples = rate_hz * MAX_FRAME_MS // 1000
        self._pcm = (ctypes.c_int16 * self._max_samples)()
        self._pcm_pointer = ctypes.cast(self._pcm, ctypes.POINTER(ctypes.c_int16))
        self._pcm_bytes = memoryview(self._pcm).cast("B")
        self._last_samples = rate_hz * _FIRST_FRAME_MS // 1000
        self.concealed = 0
        """Packets that could not be decoded and were replaced by what libopus guesses."""

    def decode(self, packet: bytes) -> bytes:
        """Return the packet as s16le mono; a packet nobody can decode becomes as much concealment as the one before it lasted.

        Packets of 2.5 to 120 ms, of one or two channels, and the 1 or 2 bytes of a silent one are all fine. Never raises.
        """
        samples = self._call(packet, self._max_samples) if 0 < len(packet) <= MAX_PACKET_BYTES else -1
        if samples <= 0:
            self.concealed += 1
            samples = self._call(None, self._last_samples)
        else:
            self._last_samples = samples
        return bytes(self._pcm_bytes[: 2 * samples]) if samples > 0 else bytes(2 * self._last_samples)

    def _call(self, packet: bytes | None, samples: int) -> int:
        return int(
            self._decode(self._decoder.decoder_state, packet, len(packet or b""), self._pcm_pointer, samples, 0),
        )


class OpusEncoder:
    """The encoder of one stream of equally long frames; use it from one thread at a time."""

    def __init__(
        self,
        rate_hz: int = DOWNLINK_RATE_HZ,
        frame_ms: int = DOWNLINK_FRAME_MS,
        *,
        bitrate: int = 32_000,
        complexity: int = 5,
        application: Application = "voip",
        dtx: bool = False,
    ) -> None:
        """Take ``bitrate`` in bit/s and ``complexity`` in 0..10; raise ConfigError when libopus is missing or refuses.

        With ``dtx`` frames of silence become packets of 1 or 2 bytes.
        """
        library = _library()
        self._refusal: type[Exception] = library.OpusError
        self._rate_hz = rate_hz
        try:
            self._encoder: Any = library.Encoder(rate_hz, 1, application)
        except self._refusal as error:
            raise ConfigError(f"Opus cannot encode {rate_hz} Hz; use 8000, 12000, 16000, 24000 or 48000") from error
        self.tune(bitrate, complexity)
        self._encoder.dtx = int(dtx)
        self.frame_bytes = 2 * rate_hz * frame_ms // 1000
        """Length of the s16le frame that ``encode`` takes."""
        self._encode: Any = library.api.encoder.libopus_encode
        self._packet = ctypes.create_string_buffer(_MAX_ENCODED_BYTES)

    @property
    def lookahead(self) -> int:
        """Samples by which what a decoder gives out is later than what was encoded."""
        return int(self._encoder.lookahead)

    def tune(self, bitrate: int, complexity: int) -> None:
        """Encode from the next frame on at ``bitrate`` bit/s with ``complexity`` in 0..10; raise ConfigError when libopus refuses."""
        try:
            self._encoder.bitrate = bitrate
            self._encoder.complexity = complexity
        except self._refusal as error:
            raise ConfigError(
                f"Opus cannot encode {self._rate_hz} Hz at {bitrate} bit/s, complexity {complexity}"
            ) from error

    def reset(self) -> None:
        """Forget what was encoded; bit rate and complexity stay."""
        self._encoder.reset_state()

    def encode(self, pcm: bytes) -> bytes:
        """Return one frame of s16le mono as a packet; blocks without the GIL. Raise ValueError unless it is ``frame_bytes`` long."""
        if len(pcm) != self.frame_bytes:
            raise ValueError(f"an Opus frame needs {self.frame_bytes} bytes of PCM, got {len(pcm)}")
        samples = ctypes.cast(ctypes.c_char_p(pcm), ctypes.POINTER(ctypes.c_int16))
        length = self._encode(
            self._encoder.encoder_state, samples, self.frame_bytes // 2, self._packet, _MAX_ENCODED_BYTES
        )
        return self._packet.raw[: max(int(length), 0)]


class SpeechEncoder:
    """Synthesised speech of any sample rate to the device's packets of DOWNLINK_FRAME_MS, one sentence after the other.

    CELT alone ("restricted_lowdelay") costs a third of what libopus' speech mode costs at the same bit rate.
    """

    def __init__(self, encoder: OpusEncoder | None = None) -> None:
        self._encoder = encoder or OpusEncoder(application="restricted_lowdelay")
        self._carry = b""
        self._resampler: Any = None
        self._from_hz = DOWNLINK_RATE_HZ

    def begin(self, bitrate: int, complexity: int) -> None:
        """Forget the sentence before, also an unfinished one: packets from here on need nothing that was encoded earlier."""
        self._carry, self._resampler, self._from_hz = b"", None, DOWNLINK_RATE_HZ
        self._encoder.reset()
        self._encoder.tune(bitrate, complexity)

    def encode(self, chunk: SpeechChunk) -> Iterator[bytes]:
        """Yield the packets this chunk completes, encoding each when it is asked for; the rest waits for the next chunk."""
        if chunk.sample_rate_hz != self._from_hz:
            self._carry += self._resampled(b"", last=True)
            self._from_hz = chunk.sample_rate_hz
        self._carry += self._resampled(chunk.pcm)
        yield from self._packets()

    def flush(self) -> Iterator[bytes]:
        """Yield what is left, the last packet filled up with silence; ends a sentence."""
        self._carry += self._resampled(b"", last=True)
        missing = -len(self._carry) % self._encoder.frame_bytes
        self._carry += bytes(missing)
        yield from self._packets()

    def _packets(self) -> Iterator[bytes]:
        size = self._encoder.frame_bytes
        while len(self._carry) >= size:
            frame, self._carry = self._carry[:size], self._carry[size:]
            yield self._encoder.encode(frame)

    def _resampled(self, pcm: bytes, *, last: bool = False) -> bytes:
        if self._from_hz == DOWNLINK_RATE_HZ or (last and self._resampler is None):
            return pcm
        if self._resampler is None:
            self._resampler = _resampler(self._from_hz)
        samples: np.ndarray[Any, np.dtype[np.int16]] = self._resampler.resample_chunk(
            np.frombuffer(pcm, dtype="<i2"), last=last
        )
        if last:
            self._resampler = None
        return samples.tobytes()


def _resampler(from_hz: int) -> Any:
    try:
        import soxr
    except ImportError as error:
        raise ConfigError(f"speech at {from_hz} Hz needs resampling; run: pip install soxr") from error
    return soxr.ResampleStream(from_hz, DOWNLINK_RATE_HZ, 1, dtype="int16", quality="HQ")
