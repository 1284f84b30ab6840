"""What must hold for the sampler's requests before anything is learned from them, as expectations for the gate."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import great_expectations.expectations as gxe
import numpy as np
import pandas as pd

from vernissage.core.gate_spec import Gate, TableExpectation
from vernissage.sampler.prepare.models import network_facts
from vernissage.sampler.prepare.pictures import SPLITS, ClassPictures
from vernissage.sampler.prepare.teacher_bank import CHECK_BOUND, PARTS, Bank

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vernissage.sampler.prepare.models import NetworkFacts
    from vernissage.sampler.prepare.teacher_bank import RequestMix

GATE_NAME = "sampler"
#: Where nearly all values of pictures lie: guidance overshoots white and black a little.
PIXEL_RANGE = 1.2
#: The same for latents, which are scaled to standard deviation 1.
LATENT_RANGE = 6.0


@dataclass(frozen=True)
class GateLimits:
    """Where the gate draws its lines.

    Attributes:
        requests: How many requests each part was asked for (``teacher_bank.train`` and so on).
        guidance: Guidance scales that are asked for (``teacher_bank.guidance``).
        class_ratio: How many times as often the first label is asked for as the last (``teacher_bank.class_ratio``).
        max_left_out: Largest share of a part's requests without a finite endpoint.
        max_outside: Largest share of a part's endpoint values outside the range of samples.
        max_teacher_error: Largest median distance of the teacher to Heun's method, in standard deviations of samples.
        least_chance: How unlikely shares must be for honest draws before they count as wrong; one honest bank in 1 /
            this many fails by bad luck, however small it is.
        max_rejected: Largest share of files that could not be read as pictures.
        max_leaked: Largest share of held-out pictures that are train pictures as well.
        max_flat: Largest share of pictures of one tone only.
    """

    requests: Mapping[str, int]
    guidance: Sequence[float]
    class_ratio: float
    max_left_out: float = 0.01
    max_outside: float = 0.05
    max_teacher_error: float = CHECK_BOUND
    least_chance: float = 1e-4
    max_rejected: float = 0.5
    max_leaked: float = 0.01
    max_flat: float = 0.05


def sampler_gate(ready: Path, limits: GateLimits, network: Path) -> Gate:
    """Look at the teacher bank, and at the denoiser's pictures where it has some, and say what must hold for them.

    Args:
        ready: Folder of the bank.
        limits: Where the lines are.
        network: What the stage `denoiser` left, see :func:`vernissage.sampler.prepare.models.network_facts`.

    Returns:
        Tables ``requests`` (one row each), ``seeds`` (one row each, with the number of parts), ``parts``, ``labels``
        and ``scales`` (one row for each of a part, with how likely it is), ``bank``, and for the embedded denoiser
        ``splits`` and ``classes`` of its pictures and ``pictures``.

    Raises:
        MissingArtifact: If a part, the network or its pictures are not there.
        CorruptArtifact: If they are damaged.
    """
    facts = network_facts(network)
    banks = [Bank.load(ready, part) for part in PARTS]
    pictures = ClassPictures.load(network) if facts.embedded else None
    return Gate(GATE_NAME, gate_tables(banks, facts, limits, pictures), expectations(facts, limits))


def gate_tables(
    banks: Sequence[Bank], facts: NetworkFacts, limits: GateLimits, pictures: ClassPictures | None = None
) -> dict[str, pd.DataFrame]:
    """Derive the tables that the expectations are about; no file is touched.

    Args:
        banks: One for each of ``PARTS``.
        facts: Of the network that they were made with.
        limits: What was asked for.
        pictures: Of the embedded denoiser; none for a pipeline.

    Returns:
        Table name to table.
    """
    mix = facts.mix(limits.guidance, limits.class_ratio)
    requests = pd.concat([_requests(bank, facts, mix) for bank in banks], ignore_index=True)
    weights = mix.scale_weights or (1.0,) * len(mix.scales)
    tables = {
        "requests": requests,
        "seeds": _parts_of(requests),
        "parts": pd.DataFrame([_part(bank, facts, limits) for bank in banks]),
        "labels": _shares(banks, "label", range(facts.classes), mix.class_weights),
        "scales": _shares(banks, "scale", _single(mix.scales), weights),
        "bank": pd.DataFrame({"teachers": [len({bank.teacher for bank in banks})]}),
    }
    return tables if pictures is None else tables | _picture_tables(pictures, facts)


def expectations(facts: NetworkFacts, limits: GateLimits) -> list[TableExpectation]:
    """All that must hold, in the order in which findings are reported.

    Args:
        facts: Of the network; only the embedded one has pictures.
        limits: Where the lines are.
    """
    found = [*_expect_of_requests(facts, limits), *_expect_of_parts(facts, limits), *_expect_of_shares(limits)]
    return [*found, *_expect_of_pictures(facts, limits)] if facts.embedded else found


def _expect_of_requests(facts: NetworkFacts, limits: GateLimits) -> list[TableExpectation]:
    low, high = (0, facts.classes - 1) if facts.classes else (-1, -1)
    scales = _single(facts.mix(limits.guidance, limits.class_ratio).scales)
    return [
        _that("requests", "no seed comes twice in a part, or a request would count double",
            gxe.ExpectCompoundColumnsToBeUnique(column_list=["part_id", "seed"])),
        _that("seeds", "no seed is in two parts, or programs would be judged on noise that they were fitted to",
            gxe.ExpectColumnValuesToBeInSet(column="parts", value_set=[1])),
        _that("requests", "every label is one that the network knows, or it cannot be asked for",
            gxe.ExpectColumnValuesToBeBetween(column="label", min_value=low, max_value=high)),
        _that("requests", "every guidance scale is one of teacher_bank.guidance, or programs are fitted to another one",
            gxe.ExpectColumnValuesToBeInSet(column="scale", value_set=scales)),
        _that("requests", "label and scale are what the seed draws, or the bank was made for other requests",
            gxe.ExpectColumnValuesToBeInSet(column="as_drawn", value_set=[True])),
        _that("requests", "every endpoint is finite, or the errors to it are not",
            gxe.ExpectColumnValuesToBeInSet(column="finite", value_set=[True])),
    ]  # fmt: skip


def _expect_of_parts(facts: NetworkFacts, limits: GateLimits) -> list[TableExpectation]:
    return [
        _that("parts", "every part has as many requests as teacher_bank asks for, left out ones included, or some got "
            "lost", gxe.ExpectColumnValuesToBeInSet(column="missing", value_set=[0])),
        _that("parts", "hardly any request is left out for want of a finite endpoint (validate.sampler.max_left_out), "
            "or the others are no fair sample",
            gxe.ExpectColumnValuesToBeBetween(column="left_out_share", max_value=limits.max_left_out)),
        _that("parts", "endpoints have the shape of the network's samples, or they are another network's",
            gxe.ExpectColumnValuesToBeInSet(column="shape", value_set=[_shape(facts.shape)])),
        _that("parts", f"nearly all values of endpoints lie in [-{_range(facts):g}, {_range(facts):g}] "
            "(validate.sampler.max_outside), or the network is not trained",
            gxe.ExpectColumnValuesToBeBetween(column="outside_share", max_value=limits.max_outside)),
        _that("parts", "the teacher is near Heun's method with four times as many calls "
            "(validate.sampler.max_teacher_error), or its endpoints are no truth to be measured by",
            gxe.ExpectColumnValuesToBeBetween(column="teacher_error", max_value=limits.max_teacher_error)),
        _that("bank", "all parts have the same teacher, or their errors do not compare",
            gxe.ExpectColumnValuesToBeInSet(column="teachers", value_set=[1])),
    ]  # fmt: skip


def _expect_of_shares(limits: GateLimits) -> list[TableExpectation]:
    least = limits.least_chance
    return [
        _that("labels", "no label is missing that chance would not leave out, or nothing is known of it",
            gxe.ExpectColumnValuesToBeBetween(column="chance_of_none", min_value=least)),
        _that("labels", "labels are asked for as often as teacher_bank.class_ratio says, as far as chance allows, or "
            "means over requests mean something else",
            gxe.ExpectColumnValuesToBeBetween(column="chance", min_value=least)),
        _that("scales", "every guidance scale is asked for in every part, or nothing can be fitted to it or said of it",
            gxe.ExpectColumnValuesToBeBetween(column="requests", min_value=1)),
        _that("scales", "guidance scales are asked for equally often, as far as chance allows, or means over requests "
            "mean something else", gxe.ExpectColumnValuesToBeBetween(column="chance", min_value=least)),
    ]  # fmt: skip


def _expect_of_pictures(facts: NetworkFacts, limits: GateLimits) -> list[TableExpectation]:
    return [
        _that("splits", "every split has pictures, or nothing can be learned, chosen or measured",
            gxe.ExpectColumnValuesToBeBetween(column="pictures", min_value=1)),
        _that("classes", "every class has train pictures, or the network cannot draw it",
            gxe.ExpectColumnValuesToBeBetween(column="train_pictures", min_value=1)),
        _that("pictures", "hardly any held-out picture is a train picture as well, or remembering looks like learning",
            gxe.ExpectColumnValuesToBeBetween(column="leaked_share", max_value=limits.max_leaked)),
        _that("pictures", "most files could be read as pictures, or what was learned is not what was meant",
            gxe.ExpectColumnValuesToBeBetween(column="rejected_share", max_value=limits.max_rejected)),
        _that("pictures", "hardly any picture is of one tone, or there is nothing on it to learn",
            gxe.ExpectColumnValuesToBeBetween(column="flat_share", max_value=limits.max_flat)),
        _that("pictures", "pictures have the shape of the network's samples, or they are not what it was taught",
            gxe.ExpectColumnValuesToBeInSet(column="shape", value_set=[_shape(facts.shape)])),
        _that("pictures", "pictures have the network's classes, or labels mean something else",
            gxe.ExpectColumnValuesToBeInSet(column="classes_match", value_set=[True])),
    ]  # fmt: skip


def _that(table: str, meaning: str, expectation: Any) -> TableExpectation:
    return TableExpectation(table, expectation, meaning)


def _requests(bank: Bank, facts: NetworkFacts, mix: RequestMix) -> pd.DataFrame:
    """One row per request; `as_drawn` is empty where label or scale are none, which is reported by itself."""
    labels, scales = bank.labels.numpy(), bank.scales.double().numpy()
    expected_labels, expected_scales = mix.draw(bank.seeds.tolist())
    as_drawn = ((bank.labels == expected_labels) & (bank.scales == expected_scales)).numpy().astype(object)
    known = (labels >= 0) & (labels < facts.classes) if facts.classes else labels == -1
    as_drawn[~(known & np.isin(scales, _single(mix.scales)))] = None
    return pd.DataFrame(
        {
            "part_id": bank.part,
            "request_id": np.arange(len(bank)),
            "seed": bank.seeds.numpy(),
            "label": labels,
            "scale": scales,
            "as_drawn": as_drawn,
            "finite": bank.endpoints.isfinite().flatten(1).all(dim=1).numpy(),
        }
    )


def _parts_of(requests: pd.DataFrame) -> pd.DataFrame:
    """One row per seed: in how many parts it is, and in which."""
    grouped = requests.groupby("seed", sort=True)["part_id"]
    return pd.DataFrame(
        {"parts": grouped.nunique(), "in_parts": grouped.agg(lambda parts: " ".join(sorted(set(parts))))}
    ).reset_index()


def _part(bank: Bank, facts: NetworkFacts, limits: GateLimits) -> dict[str, Any]:
    asked = len(bank) + len(bank.left_out)
    values = bank.endpoints[bank.endpoints.isfinite()]
    error = bank.check.median / facts.sigma_data
    return {
        "part_id": bank.part,
        "requests": len(bank),
        "missing": limits.requests[bank.part] - asked,
        "left_out_share": len(bank.left_out) / max(1, asked),
        "shape": _shape(bank.endpoints.shape[1:]),
        "outside_share": float((values.abs() > _range(facts)).double().mean()) if len(values) else 1.0,
        # What was not measured is not near: nan would count as no value at all.
        "teacher_error": math.inf if math.isnan(error) else error,
    }


def _shares(banks: Sequence[Bank], column: str, values: Sequence[float], weights: Sequence[float]) -> pd.DataFrame:
    """One row per part and value: how often it comes, and how likely honest draws are that far off or further.

    Counts of honest draws are binomial. Chances are multiplied with the number of rows (Bonferroni), so that one limit
    holds for the table as a whole. The chance is empty where a value is missing, which is reported by itself.
    """
    from scipy.stats import binom

    shares: dict[float, float] = {}
    for value, weight in zip(values, weights, strict=True):
        shares[value] = shares.get(value, 0.0) + weight / sum(weights)
    rows, tests = [], len(banks) * len(shares)
    for bank in banks:
        drawn = (bank.labels if column == "label" else bank.scales).double().numpy()
        for value, unbounded in shares.items():
            share = min(unbounded, 1.0)  # a sum of shares may round to above 1
            count, total = int((drawn == value).sum()), len(bank)
            tail = min(binom.cdf(count, total, share), binom.sf(count - 1, total, share))
            chance = min(1.0, 2 * float(tail) * tests)
            none = min(1.0, (1 - share) ** total * tests)
            rows.append(
                {
                    "part_id": bank.part,
                    f"{column}_id": value,
                    "requests": count,
                    "expected": total * share,
                    "chance": chance if count else math.nan,
                    "chance_of_none": 1.0 if count else none,
                }
            )
    columns = ["part_id", f"{column}_id", "requests", "expected", "chance", "chance_of_none"]
    return pd.DataFrame(rows, columns=columns)


def _picture_tables(pictures: ClassPictures, facts: NetworkFacts) -> dict[str, pd.DataFrame]:
    bytes_of, splits = pictures.pictures.numpy(), pictures.splits.numpy()
    hashes = np.array([hashlib.sha256(picture.tobytes()).hexdigest() for picture in bytes_of], dtype=object)
    train = splits == SPLITS.index("train")
    taught, held_out = set(hashes[train].tolist()), hashes[~train].tolist()
    flat = bytes_of.reshape(len(bytes_of), -1)
    count, rejected = len(pictures), len(pictures.rejected)
    names = pictures.class_names
    per_class = np.bincount(pictures.labels.numpy()[train], minlength=len(names))
    return {
        "splits": pd.DataFrame(
            {"split": list(SPLITS), "pictures": [int((splits == number).sum()) for number in range(len(SPLITS))]}
        ),
        "classes": pd.DataFrame({"class": list(names), "train_pictures": per_class}),
        "pictures": pd.DataFrame(
            {
                "pictures": [count],
                "leaked_share": [sum(one in taught for one in held_out) / max(1, len(held_out))],
                "rejected_share": [rejected / max(1, count + rejected)],
                "flat_share": [float((flat.min(axis=1) == flat.max(axis=1)).mean()) if count else 1.0],
                "shape": [_shape(pictures.pictures.shape[1:])],
                "classes_match": [names == facts.names],
            }
        ),
    }


def _range(facts: NetworkFacts) -> float:
    return LATENT_RANGE if facts.latent else PIXEL_RANGE


def _shape(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))


def _single(scales: Sequence[float]) -> list[float]:
    """Scales as a bank keeps them: in single precision, 1.1 is another number."""
    return [float(np.float32(scale)) for scale in scales]
