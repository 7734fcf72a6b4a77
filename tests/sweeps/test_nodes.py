"""Data that are wrong on the nodes of a cluster are said before any trial starts."""

import re
import shutil

import pytest
from room import Room

from mg_core.data.drawn.birds import BirdsOptions, write_birds


@pytest.fixture
def address():
    """Return the address of a cluster with two nodes."""
    room = Room()
    yield room.address
    room.close()


def test_data_that_are_wrong_on_a_node_stop_a_sweep_before_its_trials(
    address, sweep, write, mg_sweep, tmp_path
):
    birds = tmp_path / "birds"
    write_birds(birds, BirdsOptions(train=24, val=12, test=12, size=24))
    sweep["data"] = {"name": "waterbirds100", "root": str(birds), "image_size": 24}
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final", "loss": {"energy": 0.01}}
    (table,) = birds.rglob("metadata.csv")
    shutil.move(table, tmp_path / "kept.csv")
    said = mg_sweep("run", write(sweep), "--address", address, code=2)
    assert "error: node " in said.stderr
    assert "metadata.csv" in said.stderr
    assert not (tmp_path / "store" / "attempts").exists()
    said = mg_sweep("check", write(sweep), "--address", address, code=2).stderr
    assert "error: node " in said
    assert "metadata.csv" in said
    shutil.move(tmp_path / "kept.csv", table)
    said = mg_sweep("check", write(sweep), RAY_ADDRESS=address).stdout
    said = " ".join(said.split())
    assert "1 of 1 work" in said
    assert re.search(r"on cpu \(node \S+; 2 nodes alike\) with 2 trials at a time", said)
    said = mg_sweep("run", write(sweep), "--address", address)
    assert "reading the data on 2 nodes" in said.stdout
    assert "2 complete" in mg_sweep("plan", write(sweep)).stdout
