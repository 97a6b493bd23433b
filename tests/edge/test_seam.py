from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import seam


def leaves(base: type[Any]) -> list[type[Any]]:
    return [leaf for child in base.__subclasses__() for leaf in ([child, *leaves(child)] if leaves(child) else [child])]


UPS, DOWNS = leaves(seam.Up), leaves(seam.Down)
DECODERS = [*((kind, seam.decode_up) for kind in UPS), *((kind, seam.decode_down) for kind in DOWNS)]
DECODERS.append((seam.BrainBeat, seam.decode_beat))
CASES = pytest.mark.parametrize(("kind", "decode"), DECODERS, ids=lambda value: getattr(value, "__name__", ""))
SAMPLES = {"str": "小智", "int": 7, "bytes": b"\x00\xff", "tuple[bytes, ...]": (b"a", b"", b"\0"), "float": 0.5}
SAMPLES |= {"ListenMode": "realtime", "Outcome": "failed"}


def sample(kind: type[Any]) -> Any:
    """A message with every field set to something that is no default."""
    return kind(**{field.name: SAMPLES[kind_of(field)] for field in msgspec.structs.fields(kind)})


def kind_of(field: Any) -> str:
    for base in (str, int, bytes, float):
        if field.type is base:
            return base.__name__
    values = getattr(field.type, "__args__", ())
    if "realtime" in values:
        return "ListenMode"
    return "Outcome" if "failed" in values else "tuple[bytes, ...]"


def test_discovery_finds_every_message_of_the_unions() -> None:
    assert set(UPS) == set(seam.UpMessage.__args__)
    assert set(DOWNS) == set(seam.DownMessage.__args__)


@CASES
def test_message_survives_the_seam(kind: type[Any], decode: Any) -> None:
    message = sample(kind)
    assert decode(seam.encode(message)) == message


@CASES
def test_field_of_a_newer_version_is_ignored(kind: type[Any], decode: Any) -> None:
    message = sample(kind)
    raw = msgspec.msgpack.decode(seam.encode(message)) | {"added_later": {"deep": [1, None]}}
    assert decode(msgspec.msgpack.encode(raw)) == message


@CASES
def test_only_the_identity_of_a_message_is_required(kind: type[Any], decode: Any) -> None:
    required = {field.name for field in msgspec.structs.fields(kind) if field.required}
    for name in required:
        raw = msgspec.msgpack.decode(seam.encode(sample(kind)))
        del raw[name]
        with pytest.raises(msgspec.MsgspecError):
            decode(msgspec.msgpack.encode(raw))


@CASES
def test_truncated_message_is_refused(kind: type[Any], decode: Any) -> None:
    whole = seam.encode(sample(kind))
    for end in range(len(whole)):
        with pytest.raises(msgspec.MsgspecError):
            decode(whole[:end])


@CASES
def test_tags_are_unique_and_kebab_case(kind: type[Any], decode: Any) -> None:
    tag = kind.__struct_config__.tag
    if tag is None:
        assert kind is seam.BrainBeat
        return
    family = UPS if issubclass(kind, seam.Up) else DOWNS
    assert [other.__struct_config__.tag for other in family].count(tag) == 1
    assert tag.replace("-", "").isalpha()
    assert tag.islower()


def test_messages_of_one_direction_are_refused_by_the_other() -> None:
    for kind in UPS:
        with pytest.raises(msgspec.MsgspecError):
            seam.decode_down(seam.encode(sample(kind)))
    for kind in DOWNS:
        with pytest.raises(msgspec.MsgspecError):
            seam.decode_up(seam.encode(sample(kind)))


@pytest.mark.parametrize("decode", [seam.decode_up, seam.decode_down, seam.decode_beat])
@given(payload=st.binary(max_size=100))
def test_garbage_is_refused_with_one_kind_of_error(decode: Any, payload: bytes) -> None:
    try:
        decode(payload)
    except msgspec.MsgspecError:
        return
    assert payload


def test_subjects_of_a_node_are_its_own() -> None:
    subjects = {make(node) for make in (seam.up_subject, seam.down_subject, seam.beat_subject) for node in ("a", "b")}
    assert len(subjects) == 6
