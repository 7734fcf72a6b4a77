"""Sweeps that things happen to end with the table of one that nothing happened to."""

import faults
import pytest
import yaml

SHORT = ["driver", "cut write", "cut write", "full disk", "two drivers", "driver", "full disk"]
SHORT_OF_DAMAGE = ["flipped bit", "swapped files", "files of others", "flipped bit"]
SHORT_ON_S3 = ["storage", "storage"]
SHORT_ON_RAY = ["trial", "node", "driver on Ray", "zombie"]


@pytest.fixture(scope="module")
def expected(small_sweep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(small_sweep))
    (folder / "undisturbed").mkdir()
    return file, faults.undisturbed(file, folder / "undisturbed")


@pytest.mark.slow
def test_a_short_campaign(expected, tmp_path):
    file, table = expected
    done = [kind for kind, _ in faults.campaign(file, tmp_path, table, 1, SHORT)]
    assert done == SHORT


def test_a_short_campaign_of_damage(expected, tmp_path):
    file, table = expected
    done = [kind for kind, _ in faults.campaign(file, tmp_path, table, 4, SHORT_OF_DAMAGE)]
    assert done == SHORT_OF_DAMAGE


def test_a_short_campaign_on_object_storage(expected, tmp_path):
    pytest.importorskip("moto.server")
    file, table = expected
    done = [kind for kind, _ in faults.campaign(file, tmp_path, table, 1, SHORT_ON_S3)]
    assert done == SHORT_ON_S3


@pytest.mark.slow
def test_a_short_campaign_on_ray(expected, tmp_path):
    file, table = expected
    done = [kind for kind, _ in faults.campaign(file, tmp_path, table, 2, SHORT_ON_RAY)]
    assert done == SHORT_ON_RAY


@pytest.mark.slow
def test_a_hundred_faults(expected, tmp_path):
    file, table = expected
    kinds = faults.drawn(3, 100)
    assert set(kinds) == set(faults.FAULTS)
    assert len(list(faults.campaign(file, tmp_path, table, 3, kinds))) == 100
