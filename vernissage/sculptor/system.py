"""The sculptor's row: what stages call, with everything that they need from params and the wing's rooms."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vernissage.core.files import atomic_write_json, fresh_folder, sha256_file

if TYPE_CHECKING:
    from pathlib import Path

    from vernissage.core.folders import SystemFolders
    from vernissage.core.gate_spec import Gate
    from vernissage.core.params import Params
    from vernissage.sculptor.learn.building import Building
    from vernissage.sculptor.learn.training import SculptorTraining, Trained
    from vernissage.sculptor.use.model import SculptorModel

log = logging.getLogger(__name__)

OWN_STRUCTURES = "structures"


@dataclass(frozen=True)
class SculptorSystem:
    """The sculptor's row in the table of systems."""

    name: str = "sculptor"

    def prepare(self, params: Params, folders: SystemFolders) -> None:
        """Grow structures, take in the user's, measure all and write captions on them."""
        from vernissage.sculptor.prepare.structures import StructureSettings, make_structures

        section = params.structures
        settings = StructureSettings(
            train=section.train.by_name(),
            val=section.val.by_name(),
            test=section.test.by_name(),
            seed=params.seed,
            own_only=section.own_only,
            val_share=section.val_share,
            test_share=section.test_share,
        )
        make_structures(folders.root / "data" / OWN_STRUCTURES, folders.ready, settings)

    def gate(self, params: Params, folders: SystemFolders) -> Gate:
        """What must hold for the structures."""
        from vernissage.sculptor.domain.dataset import Dataset
        from vernissage.sculptor.prepare.expectations import GateLimits, sculptor_gate

        section = params.validate_.sculptor
        limits = GateLimits(
            least_species_share=section.least_species_share,
            least_value_count=section.least_value_count,
            least_own_whole=section.least_own_whole,
        )
        return sculptor_gate(Dataset.load(folders.ready), limits)

    def train(self, params: Params, folders: SystemFolders) -> None:
        """Teach what comes first and the network of voxels; the validation structures choose the weights."""
        from vernissage.core.tables import fingerprint
        from vernissage.sculptor.domain.dataset import Dataset
        from vernissage.sculptor.learn.training import train_sculptor

        settings = training_settings(params)
        # What was made of other data, settings or code is never taken over.
        inputs = [*sorted(folders.ready.glob("*.json")), *_sources()]
        scratch = folders.scratch("train") / fingerprint(settings, [sha256_file(path) for path in inputs])
        trained = train_sculptor(Dataset.load(folders.ready), settings, scratch)
        _keep(trained, scratch, folders)
        shutil.rmtree(scratch, ignore_errors=True)

    def benchmark(self, params: Params, folders: SystemFolders) -> None:
        """Compare with every baseline on the test structures."""
        from vernissage.sculptor.judge.procedure import run_benchmark

        run_benchmark(folders, params, training_settings(params))

    def robustness(self, params: Params, folders: SystemFolders) -> None:
        """Try awkward input."""
        from vernissage.sculptor.judge.procedure import run_robustness

        run_robustness(folders, params, training_settings(params))

    def report(self, params: Params, folders: SystemFolders) -> None:
        """Sum up in metrics, plots and pictures that git keeps."""
        from vernissage.sculptor.judge.report import write_report

        write_report(folders)

    def load(self, folders: SystemFolders) -> SculptorModel:
        """The trained sculptor."""
        from vernissage.sculptor.use.model import SculptorModel

        return SculptorModel.load(folders.model)


def building_of(params: Params) -> Building:
    """Translate the typed parameters into how structures are built."""
    from vernissage.sculptor.learn.building import Building

    section = params.sculptor
    return Building(
        steps=section.steps,
        wood_share=section.wood_share,
        order=section.order,
        schedule=section.schedule,
        doubt=section.doubt,
        edits=section.edits,
        guidance=section.guidance,
    )


def training_settings(params: Params) -> SculptorTraining:
    """Translate the typed parameters into what the training takes."""
    from vernissage.sculptor.learn.model import SculptorShape
    from vernissage.sculptor.learn.network import NetworkShape
    from vernissage.sculptor.learn.noise import Corruption
    from vernissage.sculptor.learn.training import SculptorTraining

    section = params.train.sculptor
    network = NetworkShape(
        channels=section.channels,
        num_res_blocks=section.num_res_blocks,
        attention_levels=section.attention_levels,
        fine=section.fine,
    )
    return SculptorTraining(
        shape=SculptorShape(first=params.sculptor.first, network=network, text_model=params.sculptor.text_model),
        building=building_of(params),
        plan_guidance=params.sculptor.plan_guidance,
        epochs=section.epochs,
        updates=section.updates,
        warm_up_epochs=section.warm_up_epochs,
        patience=section.patience,
        checkpoint_every=section.checkpoint_every,
        lr=params.lr * section.lr_scale,
        ema=section.ema,
        voxels=section.voxels,
        mix=section.mix.by_name(),
        own_share=section.own_share,
        text_dropout=section.text_dropout,
        corruption=replace(Corruption(), wrong=section.wrong),
        first_updates=section.first_updates,
        first_batch=section.first_batch,
        first_lr=params.lr * section.first_lr_scale,
        precision=section.precision,
        validation=section.validation,
        generations=section.generations,
        seed=params.seed,
    )


def _keep(trained: Trained, scratch: Path, folders: SystemFolders) -> None:
    """Put what a training left where DVC looks for it."""
    from vernissage.core.tables import write_csv
    from vernissage.sculptor.learn.looks import GENERATIONS
    from vernissage.sculptor.learn.training import CHECKPOINTS

    with fresh_folder(folders.model) as folder:
        trained.sculptor.save(folder)
        shutil.copytree(scratch / CHECKPOINTS, folder / CHECKPOINTS)
    with fresh_folder(folders.training) as folder:
        for name, rows in (("epochs", trained.epochs), ("buckets", trained.buckets), ("first", trained.first)):
            write_csv(folder / f"{name}.csv", rows)
        if (scratch / GENERATIONS).is_dir():
            shutil.copytree(scratch / GENERATIONS, folder / GENERATIONS)
        atomic_write_json(folder / "summary.json", trained.summary())


def _sources() -> list[Path]:
    from pathlib import Path

    here = Path(__file__).parent
    return sorted([*(here / "domain").rglob("*.py"), *(here / "learn").glob("*.py")])
