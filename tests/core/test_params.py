"""The registry of params.yaml: the shipped file is good, every value is described, what is at odds is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from vernissage.core.errors import BadParams
from vernissage.core.params import Params, describe, load_params, profile_overrides
from vernissage.core.typed_yaml import fields_of

SHIPPED = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def params_file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_bytes(SHIPPED.read_bytes())
    return path


def problems(path: Path, *overrides: str) -> str:
    with pytest.raises(BadParams) as caught:
        load_params(path, overrides=overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def rewrite(path: Path, change: dict[str, Any]) -> None:
    yaml = YAML()
    tree = yaml.load(path)
    tree.update(change)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(tree, file)


def test_the_shipped_file_and_its_profiles_are_good() -> None:
    params = load_params(SHIPPED)
    for name in params.profiles:
        assert load_params(SHIPPED, profile=name) == load_params(SHIPPED, overrides=profile_overrides(SHIPPED, name)), (
            name
        )


def test_the_default_is_the_file_in_the_working_folder(params_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(params_file.parent)
    assert load_params() == load_params(params_file)


def test_every_value_says_what_it_is_for() -> None:
    for key, info in fields_of(Params):
        assert info.description, key
        assert info.description.endswith("."), key
        extra = info.json_schema_extra
        assert isinstance(extra, dict), key
        assert "unit" in extra, key
        assert extra["stage"] or key == "profiles", key
        assert info.is_required(), f"{key} has a default in code, values belong into params.yaml"
        if info.annotation in (int, float):
            assert info.metadata, f"{key} has no bounds"


def test_the_table_has_every_value_of_the_file_in_its_order() -> None:
    params = load_params(SHIPPED)
    written = list(_leaves(YAML(typ="safe", pure=True).load(SHIPPED)))
    assert [(row.key, row.value) for row in describe(params)] == written


def _leaves(tree: dict[str, Any], prefix: str = "") -> Any:
    for key, value in tree.items():
        if isinstance(value, dict) and prefix != "profiles.":
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", tuple(value) if isinstance(value, list) else value


def test_dvc_writes_small_learning_rates_as_text(params_file: Path) -> None:
    rewrite(params_file, {"lr": "5e-05"})
    assert load_params(params_file).lr == 5e-05


def test_override_wins_over_profile_wins_over_file(params_file: Path) -> None:
    rewrite(params_file, {"profiles": {"mine": {"lr": 0.5, "seed": 3}}})
    params = load_params(params_file, profile="mine", overrides=["lr=0.25"])
    assert (params.lr, params.seed) == (0.25, 3)
    assert load_params(params_file).seed == load_params(SHIPPED).seed
    assert profile_overrides(params_file, "mine") == ["lr=0.5", "seed=3"]


def test_an_unknown_profile_is_refused(params_file: Path) -> None:
    rewrite(params_file, {"profiles": {"mine": {"lr": 0.5}}})
    with pytest.raises(BadParams, match="'mien' is unknown, expected one of mine; did you mean mine"):
        load_params(params_file, profile="mien")
    with pytest.raises(BadParams, match="'mien' is unknown"):
        profile_overrides(params_file, "mien")


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ({"lr": "fast"}, "profiles.bad: lr = 'fast'"),
        ({"resize.long_egde": 32}, "profiles.bad: resize.long_egde: unknown key; did you mean resize.long_edge?"),
        ({"lr.x": 1}, "profiles.bad: lr.x: lr is a value"),
        ({"profiles.a": {}}, "profiles.bad: a profile cannot change profiles"),
        (
            {"degrade.faults_min": 30, "degrade.faults_max": 2},
            "profiles.bad: degrade: faults_min = 30 is above faults_max = 2",
        ),
    ],
)
def test_a_bad_profile_is_found_although_nobody_chose_it(params_file: Path, profile: dict[str, Any], text: str) -> None:
    rewrite(params_file, {"profiles": {"good": {"lr": 0.1}, "bad": profile}})
    assert text in problems(params_file)


def test_a_profile_itself_cannot_be_overridden(params_file: Path) -> None:
    assert "profiles are sets of overrides" in problems(params_file, "profiles.gpu.lr=3")


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["degrade.faults_min=6", "degrade.faults_max=5"], "faults_min = 6 is above faults_max = 5"),
        (["annotate.val_share=0.6", "annotate.test_share=0.4"], "val_share + test_share = 1: expected a sum below 1"),
        (["photos.sample_crop_share=[0.9,0.5]"], "expected the smaller number first"),
        (["resize.min_edge=200", "resize.long_edge=199"], "min_edge = 200 is above long_edge = 199"),
        (
            ["train.retoucher.batch=99", "train.retoucher.slots=2", "train.retoucher.rollout=49"],
            "above slots x rollout = 98",
        ),
        (
            ["train.retoucher.reward.succes_bonus=[1,1]"],
            "unknown strategy 'succes_bonus', expected some of reference_distance, score_difference, step_penalty, ",
        ),
        (
            ["train.retoucher.reward.reference_distance=[1,0]", "train.retoucher.reward.score_difference=[1,0]"],
            "nothing at last pays for a better photo",
        ),
        (["train.retoucher.reward.step_penalty=[-1,1]"], "reward.step_penalty[0] = -1 (int): expected a number from 0"),
        (["train.retoucher.reward.success_margin=0"], "reward.success_margin = 0 (int): expected a number above 0"),
        (["train.retoucher.algorithm=ddpg"], "expected one of ppo, dqn"),
        (
            ["train.retoucher.algorithm=dqn", "train.retoucher.dqn_buffer=1000"],
            "slots x rollout = 1024 is above dqn_buffer = 1000",
        ),
        (["systems.retoucher=juror"], "systems.retoucher = 'juror' (str): expected names"),
        (["systems.painter={beside: models/juror, data: degrade, also: seed}"], "there is no section train.painter"),
        (["train.sampler.budgets=[4,4]"], "budgets = [4, 4]: expected different numbers"),
        (["train.sampler.prices=[0.1,0.01]"], "prices = [0.1, 0.01]: expected the smaller number first"),
        (["train.sampler.ppo_batch=99", "train.sampler.slots=2", "train.sampler.rollout=49"], "slots x rollout = 98"),
        (
            ["train.retoucher.ppo_steps=many"],
            "override: train.retoucher.ppo_steps = 'many' (str): expected a whole number",
        ),
    ],
)
def test_values_at_odds_are_refused(params_file: Path, overrides: list[str], text: str) -> None:
    assert text in problems(params_file, *overrides)


def test_a_problem_of_the_file_names_the_file(params_file: Path) -> None:
    rewrite(params_file, {"seed": "x"})
    assert problems(params_file).startswith(f"{params_file}: seed = 'x' (str): expected a whole number from 0")
