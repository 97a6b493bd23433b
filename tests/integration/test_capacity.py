from __future__ import annotations

from benchmarks import capacity_node
from benchmarks.capacity import SCRIPTED_ENV
from benchmarks.capacity_results import figures
from benchmarks.load import LoadPlan
from benchmarks.load_sound import scripted_sound
from tests.real_time import run


def test_five_devices_are_answered_by_a_scripted_node_and_measured_from_outside() -> None:
    async def scene() -> None:
        async with capacity_node.node(processes=1, devices=5, env=SCRIPTED_ENV) as node:
            plan = LoadPlan(url=node.url, devices=5, turns=1, sound=scripted_sound())
            measured = await capacity_node.measure(node, plan)
        found = figures(measured)
        assert (found["errors"], found["packets_lost"]) == (0, 0)
        assert {turn.device for turn in measured.load.turns} == set(range(5))
        assert all(turn.packets > 20 for turn in measured.load.turns)
        # 700 ms of silence end a sentence, the first token takes 200 ms and the voice 150 ms.
        assert min(turn.first_audio_ms for turn in measured.load.turns) > 1000
        assert 0 < found["server_cpu_cores"] < 2
        assert found["server_rss_mib"] > 20
        assert found["stages"]["tts"]["p50"] > 100

    run(scene(), timeout_s=120)


def test_devices_beyond_what_a_node_takes_are_faults_and_the_others_are_answered() -> None:
    async def scene() -> None:
        env = {**SCRIPTED_ENV, "EDGE_MAX_DEVICES": "2"}
        async with capacity_node.node(processes=1, devices=4, env=env) as node:
            plan = LoadPlan(url=node.url, devices=4, turns=1, sound=scripted_sound())
            load = (await capacity_node.measure(node, plan)).load
        assert sum(load.faults.values()) == 2
        assert len({turn.device for turn in load.turns}) == 2

    run(scene(), timeout_s=120)
