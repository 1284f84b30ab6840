"""Trees that the tests of this room learn from, grown once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vernissage.sculptor.prepare.structures import StructureSettings, make_structures

if TYPE_CHECKING:
    from vernissage.sculptor.domain.dataset import Dataset


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("trees")
    settings = StructureSettings(
        train={"normal": 18, "big": 4, "huge": 2}, val={"normal": 6, "big": 2, "huge": 1}, workers=1
    )
    return make_structures(folder / "own", folder / "dataset", settings)
