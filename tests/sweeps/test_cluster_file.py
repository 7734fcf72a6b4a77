"""The cluster file of the project is one that Ray takes, closed to those without the token."""

import re
import subprocess
import warnings

import pytest
import yaml
from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

STARTS = ("head_start_ray_commands", "worker_start_ray_commands")
METADATA = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def cluster(repository):
    return yaml.safe_load((repository / "sweeps" / "voc_full.yaml").read_text())


def ray_start(command):
    """Return the options of a `ray start` command, as Ray itself reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own, about parts of it that are not used.
        from ray.scripts.scripts import start
    words = re.sub(r"\$\(.*?\)", "ADDRESS", command).split("ray start ")[1].split()
    return start.make_context("ray start", words).params


def test_ray_takes_it_and_passes_its_sweep_on(cluster):
    prepared = prepare_config(fillout_defaults(cluster))
    validate_config(prepared)
    assert prepared["metadata"]["sweep"]["name"] == "voc_full"


def test_nobody_is_let_in_without_the_token(cluster):
    for key in STARTS:
        (command,) = (command for command in cluster[key] if "ray start" in command)
        environment = command.split(";")[0]
        assert "RAY_AUTH_MODE=token" in environment
        assert "RAY_enable_autoscaler_v2=0" in environment
    assert "~/.ray/auth_token" in cluster["file_mounts"]
    assert ray_start(cluster[STARTS[0]][-1])["dashboard_host"] == "127.0.0.1"
    assert ray_start(cluster[STARTS[1]][-1])["address"] == "$RAY_HEAD_IP:6379"


def test_its_commands_are_bash(cluster):
    commands = [command for key in (*STARTS, "setup_commands") for command in cluster[key]]
    for command in commands:
        found = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert found.returncode == 0, f"{command}: {found.stderr}"


def test_its_addresses_belong_to_nobody(cluster):
    # RFC 5737: for documentation. A forgotten one reaches no machine of others.
    provider = cluster["provider"]
    for address in (provider["head_ip"], *provider["worker_ips"]):
        assert address.startswith("192.0.2.")


def test_what_is_mounted_is_what_is_installed(cluster, repository):
    mounts = {k: v for k, v in cluster["file_mounts"].items() if k.startswith("~/model-guidance/")}
    for place, source in mounts.items():
        assert place == f"~/model-guidance/{source}"
        assert (repository / source).exists()
    project = (repository / "pyproject.toml").read_text()
    (packages,) = re.findall(r"wheel\]\npackages = (\[.*\])", project)
    assert set(mounts.values()) == {*yaml.safe_load(packages), *METADATA}
