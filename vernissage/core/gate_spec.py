"""What a gate asks of tables: a wing writes expectations down here, `vernissage.pipeline.gates` checks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame


@dataclass(frozen=True)
class TableExpectation:
    """One thing that must hold for one table.

    Attributes:
        table: Key of the table in `Gate.tables`.
        expectation: An instance of a class from `great_expectations.expectations`.
        meaning: What must hold and why it matters, as one sentence for a reader who does not know the tool.
    """

    table: str
    expectation: Any
    meaning: str


@dataclass(frozen=True)
class Gate:
    """Tables and what must hold for them before the stages behind the gate may run.

    Attributes:
        name: What is being judged, such as `retoucher`.
        tables: Table name to its rows; columns ending in `_id` and a column `file` name a row in the findings.
        expectations: What must hold, in the order in which findings are reported.
    """

    name: str
    tables: Mapping[str, DataFrame]
    expectations: Sequence[TableExpectation]
