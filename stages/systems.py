"""The table of systems: name to the row that the pipeline works with. A fourth agent is one more line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vernissage.retoucher.system import RetoucherSystem
from vernissage.sampler.system import SamplerSystem
from vernissage.sculptor.system import SculptorSystem

if TYPE_CHECKING:
    from vernissage.pipeline.systems import System

SYSTEMS: dict[str, System] = {system.name: system for system in (RetoucherSystem(), SamplerSystem(), SculptorSystem())}
