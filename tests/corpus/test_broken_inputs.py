"""A part of the corpus; ``python scripts/broken_inputs.py`` runs all of it."""

import pytest

from tests.corpus.cases import FAULTS
from tests.corpus.supervisor import Supervisor
from tests.corpus.worker import all_cases

pytest.importorskip("rasterio")

_SHORT = [case.name for case in all_cases().values() if case.short]


@pytest.fixture(scope="module")
def supervisor():
    with Supervisor() as running:
        yield running


@pytest.mark.parametrize("name", _SHORT)
def test_is_refused_by_name_or_read_as_it_is(name, supervisor):
    verdict = supervisor.judge(name)
    assert verdict.sound, f"{FAULTS[verdict.outcome]}: {verdict.detail}"


def test_the_whole_corpus_is_large():
    kinds = [case.kind for case in all_cases().values()]
    assert kinds.count("adapter") >= 80
    assert len(kinds) - kinds.count("adapter") >= 200
