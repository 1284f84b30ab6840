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
            clean_tolerance=section.clean_tolerance,
            max_category_share=section.max_category_share,
            kind_tolerance=section.kind_tolerance,
        )
        return retoucher_gate(folders.ready, limits)

    def train(self, params: Params, folders: SystemFolders) -> None:
        """Train on the train split, choose the weights on the validation split."""
        from vernissage.retoucher.learn.dataset import fingerprint, load_starts, read_pairs, unique_originals, write_csv
        from vernissage.retoucher.learn.imagined import imagine_scenes
        from vernissage.retoucher.learn.juror import RankJuror
        from vernissage.retoucher.learn.scenes import Pictures
        from vernissage.retoucher.learn.training import RetoucherTrainer, Thumbnails

        settings = training_settings(params)
        view = settings.spec.view
        train, val = read_pairs(folders.ready, "train"), read_pairs(folders.ready, "val")
        imagined = imagine_scenes(params.train.retoucher.imagined_scenes, view, _rng(params, "imagined"))
        originals = unique_originals(train, view).joined(Pictures.of_thumbnails(imagined))
        data = Thumbnails(originals, load_starts(train, view), load_starts(val, view))
        juror_folder = _juror_folder(folders)
        # Everything that the weights depend on: a checkpoint of other data, settings or code is never continued.
        inputs = [folders.ready / "pairs.csv", *sorted(juror_folder.glob("*.json")), *_sources()]
        key = fingerprint(settings, [sha256_file(path) for path in inputs])
        trainer = RetoucherTrainer(data, RankJuror.load(juror_folder), settings, folders.scratch("train") / key)
        trained = trainer.train()
        with fresh_folder(folders.model) as folder:
            trained.network.save(folder, {"pairs_sha256": sha256_file(folders.ready / "pairs.csv")})
        with fresh_folder(folders.training) as folder:
            for phase in ("plan", "ppo"):
                rows = [row for row in trained.curves if row["phase"] == phase]
                write_csv(folder / f"{phase}.csv", rows)
            atomic_write_json(folder / "summary.json", trained.summary)
        log.info("kept the weights of %s, validation %s", trained.summary["kept_from"], trained.summary["validation"])

    def benchmark(self, params: Params, folders: SystemFolders) -> None:
        """Compare with every baseline on the test split."""
        from vernissage.retoucher.judge.baselines import all_baselines, tuned_classics
        from vernissage.retoucher.judge.benchmark import agent_method, measure, paired_gains, summarise
        from vernissage.retoucher.judge.sheets import save_sheets
        from vernissage.retoucher.learn.dataset import read_pairs
        from vernissage.retoucher.learn.juror import RankJuror

        section = params.benchmark.retoucher
        network, juror = self.load(folders), RankJuror.load(_juror_folder(folders))
        test = read_pairs(folders.ready, "test")
        classics = tuned_classics(read_pairs(folders.ready, "val"))
        methods = [agent_method(network), *all_baselines(network.spec, juror, classics, _rng(params, "random-edits"))]
        with Progress("benchmark", total=len(test) * len(methods), unit="results") as progress:
            items = measure(methods, test, juror, progress.advance)
        resampling = {"resamples": section.bootstrap, "rng": _rng(params, "bootstrap")}
        rows = summarise(items, worse_margin=section.worse_margin, **resampling)
        table = {
            "rows": rows,
            "ahead_of": paired_gains(items, **resampling),
            "classics": [method.name for method in methods if method.classic],
            "tuned": classics.chosen,
            "pairs": len(test),
            "photos": len({pair.original for pair in test}),
            "groups": sorted({pair.group for pair in test}),
        }
        with fresh_folder(folders.benchmark) as folder:
            items.to_parquet(folder / "items.parquet", index=False)
            atomic_write_json(folder / "table.json", table)
            rival = max(methods[1:], key=lambda method: rows[method.name]["psnr"]["mean"])
            save_sheets(folder / "pictures", network, juror, rival, items, test, section.contact_rows)

    def robustness(self, params: Params, folders: SystemFolders) -> None:
        """Try awkward input."""
        from vernissage.retoucher.judge.robustness import run_cases
        from vernissage.retoucher.learn.dataset import load_photo, read_pairs, write_csv
        from vernissage.retoucher.learn.juror import RankJuror

        network, juror = self.load(folders), RankJuror.load(_juror_folder(folders))
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
    from vernissage.retoucher.learn.network import PolicySpec
    from vernissage.retoucher.learn.planner import PlannerTraining
    from vernissage.retoucher.learn.rewards import Reward
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
        ),
        planner=PlannerTraining(
            images=section.planner_images,
            batch=section.planner_batch,
            lr=lr * section.planner_lr_scale,
            harm_aversion=section.harm_aversion,
        ),
        reward=Reward(
            juror_share=section.juror_share, harm_aversion=section.harm_aversion, step_cost=section.step_cost
        ),
        lr=lr,
        slots=section.slots,
        rollout=section.rollout,
        steps=section.ppo_steps,
        epochs=section.ppo_epochs,
        batch=section.batch,
        gamma=section.gamma,
        clip=section.clip,
        entropy=section.entropy,
        validate_every=section.validate_every,
        scene_variation=section.scene_variation,
        stored_share=section.stored_share,
        clean_share=params.degrade.clean_share,
        faults=(params.degrade.faults_min, params.degrade.faults_max),
        taken_at=params.resize.long_edge,
        seed=params.seed,
    )


def _sources() -> list[Path]:
    here = Path(__file__).parent
    return sorted([*(here / "domain").glob("*.py"), *(here / "learn").glob("*.py")])


def _juror_folder(folders: SystemFolders) -> Path:
    return folders.root / "models" / "juror"


def _rng(params: Params, purpose: str) -> Any:
    return numpy_generator(params.seed, purpose)


def _found(result: Any) -> str:
    return "" if result.value is None else f" (found {result.value:.3g})"
