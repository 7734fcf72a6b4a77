"""Folders of a store that one process makes while another lists them."""

from concurrent.futures import ThreadPoolExecutor

from mg_core.store.files import Files

FOLDERS = 5000
"""Enough for several listings to meet a folder in the making, even on one core."""


def test_a_folder_that_is_made_at_that_moment_can_be_listed(tmp_path):
    files = Files(str(tmp_path))
    with ThreadPoolExecutor(1) as maker:
        for name in map(str, range(FOLDERS)):
            made = maker.submit((tmp_path / name).mkdir)
            while not made.done():
                assert files.keys(name) == []
            made.result()
