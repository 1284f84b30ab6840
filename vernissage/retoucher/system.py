"""The retoucher as the pipeline sees it: one method per stage, each reading and writing the folders that it is given.

Heavy libraries are imported by the stage that needs them.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vernissage.core.files import atomic_write_json, fresh_folder, sha256_file
from vernissage.core.progress import Progress
from vernissage.core.seeds import numpy_generator

if TYPE_CHECKING:
    from vernissage.core.folders import SystemFolders
    from vernissage.core.gate_spec import Gate
    from vernissage.core.params import Params
    from vernissage.retoucher.learn.network import PolicyNet
    from vernissage.retoucher.learn.regressor import TrainedRegressor
    from vernissage.retoucher.learn.training import RetoucherTraining

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RetoucherSystem:
    """The retoucher's row in the table of systems."""

    name: str = "retoucher"

    def prepare(self, params: Params, folders: SystemFolders) -> None:
        """Make the faulty and original pairs."""
        from vernissage.retoucher.prepare.degrade import degrade

        data = folders.root / "data"
        degrade(data / "resized", data / "scored", folders.ready, params.degrade, params.seed)

    def gate(self, params: Params, folders: SystemFolders) -> Gate:
        """What must hold for the pairs."""
        from vernissage.retoucher.prepare.expectations import GateLimits, retoucher_gate

        section = params.validate_.retoucher
        limits = GateLimits(
            long_edge=params.resize.long_edge,
            faults_max=params.degrade.faults_max,
            clean_share=params.degrade.clean_share,
            kinds=params.degrade.kinds,
            clean_tolerance=section.clean_tolerance,
            max_category_share=section.max_category_share,
            kind_tolerance=section.kind_tolerance,
        )
        return retoucher_gate(folders.ready, limits)

    def train(self, params: Params, folders: SystemFolders) -> None:
        """Train on the train split, choose the weights on the validation split, show what is being learned."""
        from vernissage.core.tables import fingerprint, write_csv
        from vernissage.retoucher.learn.juror_pool import open_juror
        from vernissage.retoucher.learn.jurors import load_juror
        from vernissage.retoucher.learn.showing import Showing, choose_shown
        from vernissage.retoucher.learn.training import RetoucherTrainer
        from vernissage.retoucher.learn.training_data import TrainingData

        section, settings = params.train.retoucher, training_settings(params)
        data, juror_folder = TrainingData(folders.ready), _juror_folder(folders)
        # Everything that the weights depend on: a checkpoint of other data, settings or code is never continued.
        inputs = [folders.ready / "pairs.csv", *sorted(juror_folder.glob("*.json")), *_sources()]
        scratch = folders.scratch("train") / fingerprint(settings, [sha256_file(path) for path in inputs])
        shown = choose_shown(data.validation, section.shown_episodes)
        showing = Showing(shown, load_juror(juror_folder), scratch.with_name(f"{scratch.name}-looks"))
        with open_juror(juror_folder, section.juror_workers) as juror:
            trainer = RetoucherTrainer(data.thumbnails(params), juror, settings, scratch)
            trainer.on_look = lambda phase, update, seen: showing.look(phase, update, trainer.network, seen)
            trained = trainer.train()
        with fresh_folder(folders.model) as folder:
            trained.network.save(folder, {"pairs_sha256": sha256_file(folders.ready / "pairs.csv")})
        with fresh_folder(folders.training) as folder:
            for name, phases in (("plan", {"plan"}), ("reinforcement", {"oracle", "ppo", "dqn"})):
                write_csv(folder / f"{name}.csv", [row for row in trained.curves if row["phase"] in phases])
            atomic_write_json(folder / "summary.json", trained.summary)
            showing.finish(trained.network, folder)
        log.info("kept the weights of %s, validation %s", trained.summary["kept_from"], trained.summary["validation"])

    def benchmark(self, params: Params, folders: SystemFolders) -> None:
        """Compare with every baseline on the test split; the regressor among them learns on the train split first."""
        from vernissage.core.tables import write_csv
        from vernissage.retoucher.judge.baselines import all_baselines, tuned_classics
        from vernissage.retoucher.judge.benchmark import (
            agent_method,
            benchmark_table,
            count_results,
            measure,
            strongest,
        )
        from vernissage.retoucher.judge.sheets import save_sheets
        from vernissage.retoucher.learn.dataset import read_pairs
        from vernissage.retoucher.learn.jurors import load_juror

        section = params.benchmark.retoucher
        network, juror = self.load(folders), load_juror(_juror_folder(folders))
        test = read_pairs(folders.ready, "test")
        classics = tuned_classics(read_pairs(folders.ready, "val"))
        taught = _teach_regressor(params, folders) if section.regressor_images else None
        methods = [
            agent_method(network),
            *all_baselines(
                network.spec,
                juror,
                classics,
                _rng(params, "random-edits"),
                regressor=taught.network if taught else None,
                slow=True,
            ),
        ]
        with Progress("benchmark", total=count_results(methods, len(test)), unit="results") as progress:
            items = measure(methods, test, juror, progress.advance)
        table = benchmark_table(
            items,
            methods,
            worse_margin=section.worse_margin,
            resamples=section.bootstrap,
            rng=_rng(params, "bootstrap"),
        )
        rival = strongest(methods[1:], table["ahead_of"], everywhere=True)
        with fresh_folder(folders.benchmark) as folder:
            items.to_parquet(folder / "items.parquet", index=False)
            atomic_write_json(folder / "table.json", {**table, "tuned": classics.chosen})
            if taught is not None:
                taught.network.save(folder / "regressor")
                write_csv(folder / "regressor.csv", taught.curve)
            if rival is not None:
                save_sheets(folder / "pictures", network, juror, rival, items, test, section.contact_rows)

    def robustness(self, params: Params, folders: SystemFolders) -> None:
        """Try awkward input."""
        from vernissage.core.tables import write_csv
        from vernissage.retoucher.judge.robustness import run_cases
        from vernissage.retoucher.learn.dataset import load_photo, read_pairs
        from vernissage.retoucher.learn.jurors import load_juror

        network, juror = self.load(folders), load_juror(_juror_folder(folders))
        files = sorted({pair.original for pair in read_pairs(folders.ready, "test")})
        rng = _rng(params, "robustness")
        chosen = rng.permutation(len(files))[: params.robustness.retoucher.photos]
        photos = [load_photo(files[index]) for index in sorted(chosen)]
        scratch = Path(tempfile.mkdtemp(prefix="robustness-"))
        try:
            results = run_cases(network, juror, photos, scratch, rng)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        with fresh_folder(folders.robustness) as folder:
            write_csv(folder / "cases.csv", [vars(result) for result in results])
        for result in results:
            log.info("%s %s: %s%s", "ok  " if result.passed else "FAIL", result.name, result.criterion, _found(result))

    def report(self, params: Params, folders: SystemFolders) -> None:
        """Sum up in metrics and plots that git keeps."""
        from vernissage.retoucher.judge.report import write_report

        write_report(folders, _juror_folder(folders))

    def load(self, folders: SystemFolders) -> PolicyNet:
        """The trained policy."""
        from vernissage.retoucher.learn.network import PolicyNet

        return PolicyNet.load(folders.model)


def training_settings(params: Params) -> RetoucherTraining:
    """Translate the typed parameters into what the training takes."""
    from vernissage.retoucher.learn.extractors import choose_extractor
    from vernissage.retoucher.learn.network import PolicySpec
    from vernissage.retoucher.learn.oracle import OracleTraining
    from vernissage.retoucher.learn.planner import PlannerTraining
    from vernissage.retoucher.learn.reinforcement import Reinforcement
    from vernissage.retoucher.learn.rewards import STRATEGIES, Reward, Terms
    from vernissage.retoucher.learn.training import RetoucherTraining

    section = params.train.retoucher
    lr = params.lr * section.lr_scale
    return RetoucherTraining(
        spec=PolicySpec(
            view=section.view,
            standard=params.resize.long_edge,
            horizon=section.horizon,
            strengths=section.strengths,
            widths=section.widths,
            step_cost=section.step_cost,
            extractor=choose_extractor(section.extractor, section.extractor_weights, section.extractor_trainable),
        ),
        planner=PlannerTraining(
            images=section.planner_images,
            batch=section.planner_batch,
            lr=lr * section.planner_lr_scale,
            harm_aversion=section.harm_aversion,
        ),
        oracle=OracleTraining(
            images=section.oracle_images,
            batch=section.planner_batch,
            lr=lr,
            plan_pace=section.plan_lr_scale,
        ),
        reward=Reward(
            mixture={name: getattr(section.reward, name) for name in STRATEGIES},
            terms=Terms(section.harm_aversion, section.step_cost, section.reward.success_margin),
        ),
        reinforcement=Reinforcement(
            algorithm=section.algorithm,
            steps=section.ppo_steps,
            slots=section.slots,
            rollout=section.rollout,
            epochs=section.ppo_epochs,
            batch=section.batch,
            lr=lr,
            plan_pace=section.plan_lr_scale,
            gamma=section.gamma,
            gae_lambda=section.gae_lambda,
            clip=section.clip,
            sharpness=section.sharpness,
            entropy=section.entropy,
            dqn_buffer=section.dqn_buffer,
            dqn_target_every=section.dqn_target_every,
            dqn_exploration=section.dqn_exploration,
        ),
        validate_every=section.validate_every,
        scene_variation=section.scene_variation,
        full_range_share=section.full_range_share,
        stored_share=section.stored_share,
        clean_share=params.degrade.clean_share,
        faults=(params.degrade.faults_min, params.degrade.faults_max),
        kinds=params.degrade.kinds,
        taken_at=params.resize.long_edge,
        seed=params.seed,
    )


def _teach_regressor(params: Params, folders: SystemFolders) -> TrainedRegressor:
    from vernissage.retoucher.learn.regressor import teach_regressor
    from vernissage.retoucher.learn.training_data import TrainingData

    images = params.benchmark.retoucher.regressor_images
    data = TrainingData(folders.ready).thumbnails(params)
    with Progress("regressor", total=images, unit="pictures") as progress:
        return teach_regressor(data, training_settings(params), images, progress.advance)


def _sources() -> list[Path]:
    here = Path(__file__).parent
    return sorted([*(here / "domain").glob("*.py"), *(here / "learn").glob("*.py")])


def _juror_folder(folders: SystemFolders) -> Path:
    return folders.root / "models" / "juror"


def _rng(params: Params, purpose: str) -> Any:
    return numpy_generator(params.seed, purpose)


def _found(result: Any) -> str:
    return "" if result.value is None else f" (found {result.value:.3g})"
