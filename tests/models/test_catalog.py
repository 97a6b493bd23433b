from __future__ import annotations

import re
import string

import pytest

from models.catalog import HubSource, NpmSource, WheelSource, load_catalog, parse_catalog
from models.errors import CatalogError

ENTRIES = {entry.name: entry for entry in load_catalog().models}

ROLES_ENGINES_ASK_FOR = {
    "silero-vad": {"model"},
    "whisper-base": {"model", "config", "tokenizer", "vocabulary"},
    "qwen2.5-coder-0.5b-instruct-q4_k_m": {"model"},
    "qwen2.5-coder-1.5b-instruct-q4_k_m": {"model"},
    "smart-turn-v3.2": {"model"},
    "kokoro-82m-int8": {"model"},
    "kokoro-voice-zf_xiaobei": {"voice"},
    "kokoro-voice-zm_yunxia": {"voice"},
    "kokoro-voice-jm_kumo": {"voice"},
    "piper-en-us-joe-medium": {"model", "config"},
    "sensevoice-small-onnx-int8": {"model", "cmvn", "config", "tokenizer"},
}


@pytest.mark.parametrize("name", ROLES_ENGINES_ASK_FOR)
def test_entry_has_the_files_its_engine_asks_for(name):
    assert {file.role for file in ENTRIES[name].files} == ROLES_ENGINES_ASK_FOR[name]


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_every_entry_says_licence_origin_and_languages(entry):
    assert entry.licence
    assert entry.note
    assert entry.version
    assert entry.languages
    assert "/" in entry.upstream
    assert bool(entry.files) != bool(entry.served_by)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_every_file_has_one_place_and_sources_in_order_hubs_first(entry):
    assert re.fullmatch(r"[a-z0-9._-]+", entry.name)
    assert len({file.name for file in entry.files}) == len({file.role for file in entry.files}) == len(entry.files)
    order = {HubSource: 0, NpmSource: 1, WheelSource: 2}
    for file in entry.files:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", file.name)
        ranks = [order[type(source)] for source in file.sources]
        assert ranks
        assert ranks == sorted(ranks)
        hubs = [source.hub for source in file.sources if isinstance(source, HubSource)]
        assert hubs == sorted(hubs, reverse=True), "ModelScope comes first"


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES.keys())
def test_every_hash_is_whole_and_goes_with_a_size(entry):
    for file in entry.files:
        assert bool(file.sha256) == bool(file.size_bytes) == file.is_pinned
        assert len(file.sha256) in {0, 64}
        assert set(file.sha256) <= set(string.hexdigits.lower())


def test_starter_entries_are_pinned_and_need_no_hub():
    starters = [entry for entry in ENTRIES.values() if entry.stage == "starter"]
    assert len(starters) == 10
    for entry in starters:
        assert entry.commercial
        assert all(file.is_pinned for file in entry.files)
        assert all(not isinstance(file.sources[-1], HubSource) for file in entry.files)


def test_starter_set_holds_everything_the_demo_needs():
    members = load_catalog().members("starter")
    assert {entry.role for entry in members} == {"vad", "turn", "asr", "llm", "tts", "voice"}
    assert [entry.name for entry in members] == [
        "silero-vad",
        "whisper-base",
        "qwen2.5-coder-0.5b-instruct-q4_k_m",
        "qwen2.5-coder-1.5b-instruct-q4_k_m",
        "kokoro-82m-int8",
        "kokoro-voice-zf_xiaobei",
        "kokoro-voice-zm_yunxia",
        "piper-en-us-joe-medium",
        "smart-turn-v3.2",
    ]


def test_fallbacks_exist_and_have_the_same_roles():
    for entry in ENTRIES.values():
        if entry.fallback:
            assert {file.role for file in ENTRIES[entry.fallback].files} == {file.role for file in entry.files}
            assert not ENTRIES[entry.fallback].fallback


def test_research_weights_are_marked():
    assert not ENTRIES["qwen1.5-1.8b-chat-q4_k_m"].commercial
    assert ENTRIES["qwen2.5-1.5b-instruct-q4_k_m"].licence == "Apache-2.0"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("silero-vda", "did you mean silero-vad?"),
        ("whisper", "did you mean whisper-base?"),
        ("xyzzy", "see: xiaozhi-fleet models list"),
    ],
)
def test_unknown_name_is_answered_with_the_nearest(name, said):
    with pytest.raises(CatalogError, match=re.escape(said)):
        load_catalog().entry(name)


def test_unknown_set_is_answered_with_the_nearest():
    with pytest.raises(CatalogError, match="did you mean starter"):
        load_catalog().members("startre")


@pytest.mark.parametrize(
    "text", ["models = 3", "models = []\nsets = {}\nmodel = 1", "not toml", '[[models]]\nname = "x"\n']
)
def test_invalid_catalogue_is_refused_with_the_reason(text):
    with pytest.raises(CatalogError, match="catalogue is not valid: "):
        parse_catalog(text)


def test_counted_wheels_are_numbered_from_one():
    source = WheelSource(package="a-part{n}", version="1", member="a_part{n}/{n:02}.bin", count=3)
    assert source.parts() == [
        ("a-part1", "a_part1/01.bin"),
        ("a-part2", "a_part2/02.bin"),
        ("a-part3", "a_part3/03.bin"),
    ]
    assert str(source) == "wheels a-part1 to a-part3 1"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (HubSource(hub="modelscope", repo="a/b", path="c"), "modelscope a/b"),
        (WheelSource(package="a", version="1", member="m"), "wheel a 1"),
        (NpmSource(package="a", version="1", member="m"), "npm package a 1"),
    ],
)
def test_source_reads_as_a_place(source, said):
    assert str(source) == said
