"""``observation.toml``: written whole, read back the same, and clear about what is wrong in it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from quant.errors import InputError
from quant.observation import Contract
from quant.observation.resolve import Sizes, resolve
from quant.observation.storage import contract_from_json, contract_text, read_contract, read_given, write_contract
from tests.commandline import quant
from tests.tracks import strategies


@pytest.fixture(params=[4, 6, 18, 3])
def contract(request: pytest.FixtureRequest) -> Contract:
    return resolve(Sizes(request.param, 6, 8), None, [])


def test_a_contract_is_read_back_as_it_was_written(contract: Contract, tmp_path: Path) -> None:
    write_contract(contract, tmp_path / "observation.toml")
    assert read_contract(tmp_path / "observation.toml") == contract
    assert contract_from_json(contract.to_json(), "contract") == contract


def test_given_back_unchanged_it_changes_nothing(contract: Contract, tmp_path: Path) -> None:
    path, sizes = tmp_path / "observation.toml", Sizes(len(contract.ego), 6, 8)
    write_contract(contract, path)
    assert resolve(sizes, None, [], read_given(path, sizes.ego, 6)) == contract


def test_a_bound_that_was_edited_is_the_users(tmp_path: Path) -> None:
    path = tmp_path / "observation.toml"
    text = contract_text(resolve(Sizes(6, 6, 8), None, []))
    path.write_text(text.replace("high = 1.0  # 30 m/s", "high = 0.8", 1))
    contract = resolve(Sizes(6, 6, 8), None, [], read_given(path, 6, 6))
    assert (contract.ego[0].high, contract.ego[0].origin("high")) == (0.8, "file")
    assert contract.ego[0].origin("low") == "preset"


def test_a_table_of_pyproject_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text("[tool.quant.observation]\nperiod_ms = 50\n")
    assert read_given(path, 6, 6) == {"period_ms": 50}


WRONG = {
    "an unknown key": ("perod_ms = 100", ("perod_ms", "period_ms")),
    "an unknown key of a column": ("[[ego]]\nhihg = 1", ("ego[0].hihg", "did you mean high")),
    "a number in quotes": ('period_ms = "100"', ("period_ms", "a number above 0")),
    "a period of nothing": ("period_ms = 0", ("period_ms", "above 0")),
    "bounds upside down": ("[[ego]]\nlow = 1\nhigh = 0", ("ego[0]", "low < high")),
    "a scale of nothing": ("[[ego]]\nscale = 0.0", ("ego[0].scale", "above 0")),
    "a bound without end": ("[[ego]]\nhigh = inf", ("ego[0].high", "finite")),
    "an unknown function": ('[[ego]]\nfunction = "number of peer"', ("number of peer", "did you mean number of peers")),
    "a copy of itself": ("[[ego]]\ncopy_of = 0", ("ego[0].copy_of", "another column")),
    "a copy of what is not there": ("[[ego]]\ncopy_of = 7", ("ego[0].copy_of", "0 to 0")),
    "a peer that is a copy": ("[[peers]]\ncopy_of = 0", ("peers[0].copy_of",)),
    "a list of names": ('ego = ["speed"]', ("ego", "[[ego]]")),
    "too few columns": ("[[ego]]\n[[ego]]", ("describes 2 columns of ego", "3")),
    "another version": ("schema_version = 9", ("schema_version", "quant observation")),
    "no TOML": ("= 1", ("not valid TOML",)),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_file_says_which_key_and_what_was_expected(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "observation.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_given(path, 1 if "columns" not in words[0] else 3, 1)
    assert all(word in str(caught.value) for word in (*words, str(path)))


def test_the_command_writes_a_file_to_edit_and_never_over_an_edited_one(tmp_path: Path) -> None:
    material = strategies.write_inputs(tmp_path)
    arguments = ("observation", material / "policy.npz", "--drive", material / "drive.npz", "-o", tmp_path / "o.toml")
    done = quant(*arguments)
    assert done.code == 0 and "may be" in done.out and str(tmp_path / "o.toml") in done.out
    assert tomllib.loads((tmp_path / "o.toml").read_text())["max_peers"] == 8
    again = quant(*arguments)
    assert again.code == 2 and "is there already" in again.err and "--observation" in again.err
    assert quant(*arguments, "--observation", tmp_path / "o.toml").code == 0
    assert quant(*arguments, "--force").code == 0


def test_what_the_user_says_reaches_the_runs_dataset(tmp_path: Path) -> None:
    material = strategies.write_inputs(tmp_path)
    path = tmp_path / "o.toml"
    path.write_text("view_deg = 60\n" + "[[ego]]\nlow = -9\nhigh = 9\n" + "[[ego]]\n" * 5)
    run = tmp_path / "run"
    assert quant("import", material / "policy.npz", "--out", run).code == 0
    done = quant("dataset", run, "--drive", material / "drive.npz", "--observation", path)
    assert done.code == 0, done.err
    written = read_contract(run / "observation.toml")
    assert (written.ego[0].low, written.ego[0].origin("low"), written.view_deg) == (-9, "file", 60)
    assert all(np.isfinite(ends).all() for peers in (False, True) for ends in written.bounds(peers=peers))
