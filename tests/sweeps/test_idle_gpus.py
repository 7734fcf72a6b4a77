"""GPUs that are there and that no trial asks for are spoken of."""

import pytest

from sweeps.drive import idle_gpus
from sweeps.spec import load_spec


@pytest.mark.parametrize("settings", [["resources.gpu=0.5"], ["device=cpu"], ["device=cuda:0"]])
def test_who_has_decided_is_told_nothing(sweep, write, settings):
    assert idle_gpus(load_spec(write(sweep), settings), 2) is None


def test_the_line_to_write_is_one_of_a_sweep_file(sweep, write):
    spec = load_spec(write(sweep), ["resources.cpu=2"])
    assert idle_gpus(spec, 0) is None
    said = idle_gpus(spec, 2)
    assert said.startswith("2 GPUs are visible, and trials run on the CPU")
    text = write(sweep).read_text() + said.splitlines()[1] + "\n"
    found = load_spec(write(text), []).resources
    assert (found.cpu, found.gpu) == (2, 1)


def test_a_run_on_ray_says_so(sweep, write, mg_sweep):
    sweep["grid"] |= {"attribution": "gradcam", "layer": "final", "loss": {"energy": 0.1}}
    sweep["baseline"]["epochs"] = sweep["guided"]["epochs"] = 1
    said = mg_sweep("run", write(sweep), "--num-gpus", "1").stdout
    assert "a GPU is visible, and trials run on the CPU, since they ask for none" in said
    assert "2 complete of 2 trials" in said
