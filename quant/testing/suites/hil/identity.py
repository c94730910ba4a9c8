"""The board is the one that was asked for, and runs the models of the run and no others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from quant.boards.bench import Bench
from quant.boards.device import Device
from quant.boards.kinds import KINDS
from quant.boards.measure import check_models
from quant.boards.pack import build_pack
from quant.boards.report import DeviceReport
from quant.boards.virtual.board import VirtualBoard, VirtualOptions
from quant.boards.virtual.faults import Faults
from quant.dataset import spread
from quant.errors import StaleError
from quant.policy import Observations
from quant.policy.policy import Discrete
from quant.runners import Int8Runner, Model, Quantized, read_model
from quant.runners.flatbuffer import FullyConnected
from quant.runs.run import Run
from quant.testing.hil_plugin import Record
from quant.testing.suites.hil.expectations import assert_decides_as
from quant.tracks.candidate import PARTS, Candidate, Part
from quant.wire.messages import PartInfo, SlotInfo, TensorInfo
from quant.wire.protocol import PACK_HEADER_SIZE, PACK_WORDS, VERSION, EvidenceCode, PackStatus

pytestmark = pytest.mark.hil


def test_the_board_is_of_the_kind_that_was_asked_for(bench: Bench, device: Device, record: Record) -> None:
    hello = device.hello()
    for name in ("evidence", "chip", "target", "mac", "cpu_mhz", "firmware", "idf", "engine", "kernels"):
        value = getattr(hello, name)
        record(name, value.name.lower() if isinstance(value, EvidenceCode) else str(value), "")
    assert hello.protocol == VERSION
    assert bench.board.chip in {None, hello.chip}
    kind = KINDS.get(bench.board.name)
    assert hello.evidence is (EvidenceCode.MEASURED if kind is None else kind.evidence)


def test_the_board_runs_the_firmware_of_the_build(bench: Bench, device: Device, record: Record) -> None:
    found = device.hello().elf_sha256
    record("elf_sha256", found, "")
    expected = bench.board.image_sha256()
    if expected is None:
        pytest.skip(f"the build of the {bench.board.name} board is not known here")
    assert found == expected


def test_the_board_holds_the_pack_of_the_run(bench: Bench, device: Device, run: Run, record: Record) -> None:
    pack = build_pack(list(run.candidates.values()))
    assert bench.pack == pack
    models = device.models()
    record("pack_sha256", models.sha256, "")
    assert models.status is PackStatus.OK
    assert models.sha256 == pack[16:48].hex() == hashlib.sha256(pack[64:]).hexdigest()
    assert models.size == len(pack)


def test_the_board_holds_the_models_of_the_run_and_no_others(device: Device, run: Run, report: DeviceReport) -> None:
    models = device.models()
    held = {slot.track: {part: info.sha256 for part, info in parts(slot).items()} for slot in models.slots}
    assert held == {track: candidate.hashes for track, candidate in run.candidates.items()}
    assert report.hashes() == held
    check_models(models, run.candidates)


def test_the_board_sees_in_the_models_what_the_host_sees(device: Device, run: Run, track: str) -> None:
    candidate = run.candidates[track]
    _, slot = device.slot(track)
    for part in PARTS:
        submodel = getattr(candidate, part)
        model, info = read_model(submodel.tflite), parts(slot)[part]
        assert (info.size, info.operators) == (len(submodel.tflite), model.operators)
        assert (info.input, info.output) == (tensor(model.input), tensor(model.output))


def test_the_board_knows_the_policys_shape(device: Device, run: Run, track: str) -> None:
    candidate, models = run.candidates[track], both(run, track)
    _, slot = device.slot(track)
    assert slot.pooling.name.lower() == candidate.pooling
    assert slot.action.name == ("DISCRETE" if isinstance(candidate.action_space, Discrete) else "BOX")
    assert slot.max_peers == candidate.max_peers
    assert slot.bits == candidate.bits
    residuals = (candidate.peer_input.residual, candidate.ego_input.residual)
    assert (slot.peer_residual, slot.ego_residual) == residuals
    assert (slot.features, slot.ego) == (len(candidate.peer_input.gain), len(candidate.ego_input.gain))
    assert (slot.embedding, slot.outputs) == (models["peer_encoder"].output.size, models["policy_head"].output.size)


def test_another_model_is_refused_and_the_right_one_comes_back(
    bench: Bench, device: Device, run: Run, decides_right: Callable[[], None]
) -> None:
    need_different_models(run)
    assert bench.pack is not None
    try:
        with bench.lent():
            bench.board.prepare(build_pack(_exchanged(run)))
        other = device.models()
        assert other.status is PackStatus.OK
        assert other.sha256 != bench.pack[16:48].hex()
        with pytest.raises(StaleError, match="holds another"):
            check_models(other, run.candidates)
    finally:
        with bench.lent():
            bench.board.prepare(bench.pack)
    check_models(device.models(), run.candidates)
    decides_right()


@pytest.mark.parametrize("what", ["identifier", "weights", "bias"])
def test_a_model_that_would_be_read_past_its_end_is_refused(
    bench: Bench, device: Device, run: Run, decides_right: Callable[[], None], what: str
) -> None:
    """Hashes that are right do not make a model right: the board looks before its interpreter does, and serves on."""
    assert bench.pack is not None
    try:
        with bench.lent():
            bench.board.prepare(_tampered(bench.pack, next(iter(run.candidates.values())), what))
        found = device.models()
        assert found.status is PackStatus.BAD_MODEL
        assert found.words.startswith(PACK_WORDS[PackStatus.BAD_MODEL] + ": ")
        assert not found.slots
    finally:
        with bench.lent():
            bench.board.prepare(bench.pack)
    check_models(device.models(), run.candidates)
    decides_right()


def test_a_lie_about_the_program_is_seen(bench: Bench) -> None:
    with lying(bench, Faults(false_elf_hash=True)) as liar:
        assert liar.device.hello().elf_sha256 != liar.board.image_sha256()


def test_a_lie_about_a_model_is_seen(bench: Bench, run: Run) -> None:
    with lying(bench, Faults(false_model_hash=True)) as liar, pytest.raises(StaleError, match="holds another"):
        check_models(liar.device.models(), run.candidates)


def test_answers_from_another_model_are_seen(
    bench: Bench, run: Run, hosts: dict[str, Int8Runner], frames: Observations
) -> None:
    twins = with_a_twin(run)
    if not twins:
        pytest.skip("no two tracks of the run have models of the same sizes and width: none can answer for another")
    with lying(bench, Faults(another_model=True)) as liar:
        check_models(liar.device.models(), run.candidates)  # by its hashes it is right
        for host in (hosts[track] for track in twins):
            with pytest.raises(pytest.fail.Exception, match="decisions differ"):
                assert_decides_as(host, liar.device, frames[spread(len(frames), 400)])


def lying(bench: Bench, faults: Faults) -> Bench:
    """A virtual board with the same models that does something wrong: these tests have to see it."""
    if bench.board.name != "virtual":
        pytest.skip("only the virtual board can be told to lie")
    assert bench.pack is not None
    return Bench(VirtualBoard(bench.pack, VirtualOptions(faults=faults)), bench.pack)


def need_different_models(run: Run) -> None:
    if len({str(candidate.hashes) for candidate in run.candidates.values()}) < 2:
        pytest.skip("the run has only one pair of models: there is no other to try")


def with_a_twin(run: Run) -> list[str]:
    """The tracks for which the next one whose codes have the same sizes and width would answer with other models."""

    def kind(track: str) -> tuple[int, ...]:
        candidate = run.candidates[track]
        return (candidate.bits, candidate.peer_input.size, candidate.ego_input.size)

    tracks = list(run.candidates)
    twins = []
    for at, track in enumerate(tracks):
        others = (other for other in tracks[at + 1 :] + tracks[:at] if kind(other) == kind(track))
        twin = next(others, track)
        if run.candidates[twin].hashes != run.candidates[track].hashes:
            twins.append(track)
    return twins


def _tampered(pack: bytes, first: Candidate, what: str) -> bytes:
    """The pack with a first encoder that is no model, or whose weights or bias are shorter than it says."""
    tflite = bytearray(first.peer_encoder.tflite)
    layer = read_model(first.peer_encoder.tflite).layers[0]
    assert isinstance(layer, FullyConnected)
    if what == "identifier":
        tflite[4:8] = b"TFL9"
    else:
        data = (layer.weight if what == "weights" else layer.bias).tobytes()
        at = bytes(tflite).index(len(data).to_bytes(4, "little") + data)  # a vector: its length, then its bytes
        tflite[at : at + 4] = (len(data) - 4).to_bytes(4, "little")
    changed = pack[PACK_HEADER_SIZE:].replace(first.peer_encoder.tflite, bytes(tflite))
    changed = changed.replace(bytes.fromhex(first.peer_encoder.sha256), hashlib.sha256(tflite).digest())
    return pack[:16] + hashlib.sha256(changed).digest() + pack[48:PACK_HEADER_SIZE] + changed


def _exchanged(run: Run) -> list[Candidate]:
    """The candidates under each other's names."""
    names = list(run.candidates)
    return [replace(run.candidates[name], track=other) for name, other in zip(names, reversed(names), strict=True)]


def parts(slot: SlotInfo) -> dict[Part, PartInfo]:
    return {"peer_encoder": slot.peer_encoder, "policy_head": slot.policy_head}


def both(run: Run, track: str) -> dict[Part, Model]:
    candidate = run.candidates[track]
    return {part: read_model(getattr(candidate, part).tflite) for part in PARTS}


def tensor(expected: Quantized) -> TensorInfo:
    return TensorInfo(float(expected.scale), expected.zero_point, expected.size)
