"""The progress in the footer of a metrics file."""

import io
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mg_core.errors import InputError
from mg_core.store import ResultStore
from mg_core.store.progress import FOOTER, TAIL_BYTES, Progress, footer_in
from mg_core.store.tables import METRICS, to_parquet

TRIAL = "0123456789abcdef"


@pytest.fixture
def store(tmp_path):
    return ResultStore(str(tmp_path / "store"))


def test_progress_reads_footers_of_any_length(store):
    progress = Progress(TRIAL, "0001-abababab", 1, 3, checkpoints={1: "k" * 70_000})
    table = METRICS.empty_table().replace_schema_metadata({b"progress": progress.footer()})
    store.put(f"metrics/{TRIAL}/0001-abababab.parquet", to_parquet(table))
    assert store.progress() == {TRIAL: progress}


@given(st.integers(0, 40), st.text(max_size=300))
def test_the_quick_way_to_a_footer_gives_what_a_parquet_reader_gives(n_kept, text):
    kept = {epoch: f"checkpoints/{text}/{epoch}" for epoch in range(n_kept)}
    progress = Progress(TRIAL, "0001-abababab", 1, 3, checkpoints=kept)
    table = METRICS.empty_table().replace_schema_metadata({FOOTER: progress.footer()})
    data = to_parquet(table)
    assert footer_in(data) == footer_in(data[-TAIL_BYTES:]) == progress.footer()
    assert footer_in(data) == pq.read_metadata(io.BytesIO(data)).metadata[FOOTER]
    for other in (b"", data[:-1], data[-100:], to_parquet(METRICS.empty_table())):
        assert footer_in(other) is None


def test_a_store_of_a_newer_version_is_refused_in_a_sentence(store):
    progress = replace(Progress(TRIAL, "0001-abababab", 1, 3), format=99)
    table = METRICS.empty_table().replace_schema_metadata({b"progress": progress.footer()})
    store.put(f"metrics/{TRIAL}/0001-abababab.parquet", to_parquet(table))
    with pytest.raises(InputError, match="store format 99, this version reads up to 1"):
        store.progress()
