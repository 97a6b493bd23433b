"""The error tree: every failure that leaves a module is one of these.

    VoiceError
    ├ ConfigError                config
    ├ CatalogError               catalog
    ├ CacheError                 cache-failed
    ├ DeviceError                device
    │ ├ DeviceAuthError          device-auth
    │ ├ DeviceProtocolError      device-protocol
    │ └ DeviceTooSlowError       device-too-slow
    └ StageError                 stage
      ├ RecognitionError         asr-failed
      ├ CompletionError          llm-failed
      │ ├ OverloadedError        llm-overloaded
      │ ├ DeadlineError          llm-deadline
      │ └ CloudUnreachableError  cloud-unreachable
      └ SynthesisError           tts-failed

Messages hold ids, sizes and file names, never transcripts, prompts, tokens or audio. Devices see only the code.
"""

from __future__ import annotations

from typing import ClassVar


class VoiceError(Exception):
    """Base of all; ``code`` is stable and kebab-case, ``retryable`` says whether the same call may succeed elsewhere or later."""

    code: ClassVar[str] = "voice"
    retryable: ClassVar[bool] = False


class ConfigError(VoiceError):
    """A setting, file or installed part is wrong or missing; start-up only."""

    code = "config"


class CatalogError(VoiceError):
    """A model is unknown, missing, or its bytes are not the pinned ones."""

    code = "catalog"


class CacheError(VoiceError):
    """A cache tier broke; never leaves the ladder, where it counts as a miss."""

    code = "cache-failed"
    retryable = True


class DeviceError(VoiceError):
    """Something a device did or failed to do."""

    code = "device"


class DeviceAuthError(DeviceError):
    """The device's token is missing, expired, or made for another device."""

    code = "device-auth"


class DeviceProtocolError(DeviceError):
    """The device sent what the protocol does not allow."""

    code = "device-protocol"


class DeviceTooSlowError(DeviceError):
    """The device does not read: its outgoing queue is full."""

    code = "device-too-slow"


class StageError(VoiceError):
    """A stage of a turn failed."""

    code = "stage"


class RecognitionError(StageError):
    """Speech could not be turned into text."""

    code = "asr-failed"


class CompletionError(StageError):
    """A prompt could not be answered."""

    code = "llm-failed"
    retryable = True


class OverloadedError(CompletionError):
    """Refused before the first word because too much work is waiting."""

    code = "llm-overloaded"


class DeadlineError(CompletionError):
    """The budget ran out."""

    code = "llm-deadline"
    retryable = False


class CloudUnreachableError(CompletionError):
    """No worker answered, or the one that did fell silent."""

    code = "cloud-unreachable"


class SynthesisError(StageError):
    """A sentence could not be spoken."""

    code = "tts-failed"


def error_from_code(code: str, message: str) -> VoiceError:
    """Return the error a peer named by ``code``; an unknown code becomes a ``CompletionError``."""
    return _BY_CODE.get(code, CompletionError)(message)


def _walk(base: type[VoiceError]) -> list[type[VoiceError]]:
    return [base, *(leaf for child in base.__subclasses__() for leaf in _walk(child))]


_BY_CODE: dict[str, type[VoiceError]] = {error.code: error for error in _walk(VoiceError)}
