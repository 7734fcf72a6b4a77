"""What `docker/` holds is sound, as far as can be told without a container engine."""

import fnmatch
import os
import re
import shlex
import shutil
import socket
import string
import subprocess
import warnings
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from typer.main import get_command

from sweeps.cli import app

try:
    import tomllib
except ImportError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

TOKEN = re.compile(r"\b[0-9a-f]{32,}\b")


@pytest.fixture(scope="module")
def folder(repository):
    return repository / "docker"


@pytest.fixture(scope="module")
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def requirements(project):
    extras = [each for of_one in project["optional-dependencies"].values() for each in of_one]
    return [Requirement(each) for each in (*project["dependencies"], *extras)]


@pytest.fixture(scope="module")
def steps(folder):
    """Return the instructions of the Dockerfile, as (name, arguments)."""
    lines = [x for x in (folder / "Dockerfile").read_text().splitlines() if x[:1] != "#"]
    text = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def compose(folder):
    return yaml.safe_load((folder / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def job(folder):
    return yaml.safe_load((folder / "rayjob.yaml").read_text())


def stages(steps):
    """Return the Dockerfile's stages: name to base and instructions."""
    found = {}
    for name, arguments in steps:
        if name == "FROM":
            base, *named = arguments.split()
            current = found.setdefault(named[-1] if named else "last", (base, []))
        elif found:
            current[1].append((name, arguments))
    return found


def check_command(words):
    """Assert that a command of Ray or of this project has the options that it is given."""
    if words[0] == "ray":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's own, about parts of it that are not used.
            from ray.scripts.scripts import cli as command
    elif words[0] == "mg-sweep":
        command = get_command(app)
    else:
        pytest.fail(f"what is {words[0]}?")
    context, rest = None, list(words[1:])
    while hasattr(command, "commands"):
        name = rest.pop(0)
        command = command.commands[name]
    context = command.make_context(name, [word for word in rest if word])
    return context.params


def test_the_base_is_pinned_by_a_digest_that_has_no_default(steps):
    arguments = dict(step[1].partition("=")[::2] for step in steps if step[0] == "ARG")
    assert arguments["BASE_DIGEST"] == ""
    found = stages(steps)
    assert len(found) > 2
    for name, (base, _) in found.items():
        known = {f"torch-{device}" for device in ("cpu", "cuda")} if "$" in base else {base}
        assert base == "${BASE}@${BASE_DIGEST}" or known <= found.keys(), name
    assert arguments["DEVICE"] == "cpu"


def test_the_image_runs_as_a_plain_user_and_says_how_it_is(steps):
    _, last = stages(steps)["last"]
    (user,) = (arguments for name, arguments in last if name == "USER")
    assert user == "1000:1000"
    assert "--uid 1000" in " ".join(arguments for name, arguments in last if name == "RUN")
    assert last.index(("USER", user)) > max(i for i, step in enumerate(last) if step[0] == "RUN")
    (check,) = (arguments for name, arguments in last if name == "HEALTHCHECK")
    command = re.search(r'"(ray health-check [^"]*)"', check)[1]
    assert check_command(shlex.split(command))["address"] == "$RAY_HEAD"


def test_what_is_copied_is_there_and_nothing_else_is_sent(steps, repository, folder):
    ignore = (folder / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = set()
    for name, arguments in steps:
        if name in {"COPY", "ADD"} and "--from" not in arguments:
            copied |= set(arguments.split()[:-1])
    assert copied
    for source in copied:
        assert (repository / source).exists(), source
        assert any(fnmatch.fnmatch(source, rule) for rule in allowed), source
    assert set(allowed) == copied


def test_versions_are_those_of_the_project(steps, job, requirements):
    by_name = {each.name: each for each in requirements}
    for name, arguments in steps:
        words = shlex.split(arguments) if name == "RUN" and "torch" in arguments else []
        for word in words:
            if word.startswith("torch"):
                assert str(Requirement(word)) == str(by_name[Requirement(word).name])
    arguments = dict(step[1].partition("=")[::2] for step in steps if step[0] == "ARG")
    version = arguments["RAY_VERSION"]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == version
    for each in requirements:
        assert each.name != "ray" or each.specifier.contains(version)


def test_every_extra_that_is_installed_exists(steps, project, repository):
    texts = [arguments for name, arguments in steps if name == "RUN"]
    texts.append((repository / "sweeps" / "voc_full.yaml").read_text())
    named = {extra for text in texts for found in re.findall(r"'\.\[(.*?)\]'", text)
             for extra in found.split(",")}  # fmt: skip
    assert named
    assert named <= project["optional-dependencies"].keys()


def test_no_secret_is_in_any_file(folder, repository):
    for path in [*folder.iterdir(), repository / "sweeps" / "voc_full.yaml"]:
        text = re.sub(r"sha256:\S+", "", path.read_text())
        assert not TOKEN.search(text), path
        assert not re.search(r"RAY_AUTH_TOKEN=", text), path


def test_the_composed_cluster_has_a_head_and_two_workers_on_one_store(compose, repository):
    head, worker = compose["services"]["head"], compose["services"]["worker"]
    assert worker["deploy"]["replicas"] == 2
    assert worker["depends_on"] == {"head": {"condition": "service_healthy"}}
    assert head["image"] == worker["image"]
    for service in (head, worker):
        assert "store:/store" in service["volumes"]
        assert service["shm_size"] == "2gb"
    assert "store" in compose["volumes"]
    build = head["build"]
    assert (repository / "docker" / build["context"] / build["dockerfile"]).is_file()
    assert build["args"]["BASE_DIGEST"].startswith("${BASE_DIGEST:?")


def test_the_composed_cluster_asks_for_a_token_and_shows_itself_to_this_machine_only(compose):
    (secret,) = compose["secrets"]
    assert compose["secrets"][secret] == {"file": "${HOME}/.ray/auth_token"}
    for service in compose["services"].values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == f"/run/secrets/{secret}"
        assert service["secrets"] == [secret]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        check_command(shlex.split(service["command"]))


def test_the_job_on_kubernetes_asks_for_a_token(job, repository):
    cluster = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert cluster["authOptions"] == {"mode": "token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in container["env"]
        options = [f"--{key}={value}" for key, value in group["rayStartParams"].items()]
        check_command(["ray", "start", *options])
    python, script, file, *options = shlex.split(job["spec"]["entrypoint"])
    assert python == "python"
    for path in (script, file):  # What the image copies there.
        assert (repository / path.removeprefix("/home/ray/")).is_file()
    assert check_command(["mg-sweep", "run", file, *options])["store"].startswith("s3://")


def test_the_batch_script_asks_for_a_token_and_ends_with_the_driver(folder):
    script = folder / "slurm.sh"
    found = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    text = script.read_text().replace("\\\n", " ")
    assert "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=" in text
    assert re.search(r'\(umask 077 && .* >"\$RAY_AUTH_TOKEN_PATH"\)', text)
    starts = re.findall(r"ray start ([^&\n]*)", text)
    assert len(starts) == 2
    for options in starts:
        words = shlex.split(options.replace('"${resources[@]}"', "--num-cpus=1"))
        check_command(["ray", "start", *words, *(["--port=1"] if "--port=$port" in words else [])])


# What a container does with the finished image, as its user: the head of the composed cluster,
# with trials of its own, the health check, and a small sweep.
USE = """
ip link set lo up
exec chroot --userspec=1000:1000 {root} env -i {environment} HOME=/home/ray bash -euc '
cd /home/ray
mkdir .ray && head -c 32 /dev/urandom | od -An -tx1 | tr -d " \\n" > .ray/auth_token
timeout 30 {health} >/dev/null 2>&1 || echo unwell without a head
{start} >head.log 2>&1 &
for second in $(seq 120); do sleep 1; {health} >/dev/null 2>&1 && break; done
echo health $?
RAY_AUTH_MODE=disabled {health} >/dev/null 2>&1 || echo refused
python sweeps/run.py sweeps/demo.yaml --store /store/demo --set baseline.epochs=1 \
  --set guided.epochs=1 --set data.options.train=64 --set "grid={grid}"
'
"""
GRID = "{model: vanilla_tiny, attribution: ixg, layer: final, loss: {energy: 0.01}}"


class Root:
    """A root directory that the steps of a stage are carried out in.

    Args:
        path: of the directory, which holds a Debian.
        environment: of the stage's base.
    """

    def __init__(self, path, environment):
        self.path = path
        self.environment = environment
        self.place = "/"
        self.n_run = 0

    def carry_out(self, steps, repository, build=None):
        """Carry out the instructions of a stage; those on how to start a container wait."""
        for name, arguments in steps:
            expanded = string.Template(arguments).safe_substitute(self.environment)
            if name in {"ENV", "ARG"}:
                pairs = [word.partition("=")[::2] for word in shlex.split(expanded)]
                self.environment |= dict(pairs)
            elif name == "WORKDIR":
                self.place = expanded
                self.inside(expanded).mkdir(parents=True, exist_ok=True)
            elif name == "COPY":
                self._copy(expanded.split(), repository, build)
            elif name == "RUN":
                self.run(arguments)
                self.n_run += 1
            else:
                assert name in {"USER", "HEALTHCHECK", "CMD"}, name

    def inside(self, path):
        return self.path / os.path.join(self.place, path).lstrip("/")

    def run(self, command):
        pairs = [f"{key}={value}" for key, value in self.environment.items()]
        step = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={self.path}/proc"]
        step += ["chroot", str(self.path), "env", "-i", f"--chdir={self.place}", *pairs]
        found = subprocess.run([*step, "sh", "-c", command], capture_output=True, text=True)
        assert found.returncode == 0, f"{command}\n{found.stdout[-3000:]}{found.stderr[-3000:]}"

    def _copy(self, words, repository, build):
        *sources, target = (word for word in words if not word.startswith("--"))
        if words[0].startswith("--from="):
            (source,) = sources
            build.inside(source).rename(self.inside(target))
            return
        for source in sources:
            path = repository / source
            if path.is_dir():
                ignore = shutil.ignore_patterns("__pycache__")
                shutil.copytree(path, self.inside(target), dirs_exist_ok=True, ignore=ignore)
            else:
                shutil.copy(path, self.inside(target))


@pytest.fixture(scope="module")
def debian(tmp_path_factory):
    """Make two root directories that hold what the base image does: Debian and Python."""
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        pytest.skip("a root directory of its own needs root and debootstrap")
    folder = tmp_path_factory.mktemp("image")
    first, second = folder / "build", folder / "last"
    packages = "--include=python3,python3-venv,ca-certificates"
    make = ["debootstrap", "--variant=minbase", packages, "bookworm", str(first)]
    found = subprocess.run(make, capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"no Debian to be had: {found.stderr[-200:] or found.stdout[-200:]}")
    # The network of this machine, and whom it trusts.
    for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"):
        shutil.copy(path, first / path.lstrip("/"))
    subprocess.run(["cp", "--archive", str(first), str(second)], check=True)
    yield first, second
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_steps_of_the_image_give_one_that_works(steps, debian, repository, compose):
    # Not tried here: the digest of the base, the layers, the CPU build where PyTorch's own index
    # cannot be reached (the CUDA one stands in for it), and a container engine altogether.
    try:
        socket.getaddrinfo("download.pytorch.org", 443)
        device = "cpu"
    except OSError:
        device = "cuda"
    found = stages(steps)
    certificates = "/etc/ssl/certs/ca-certificates.crt"
    outside = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PIP_CERT": certificates}
    build, last = (Root(path, dict(outside)) for path in debian)
    for name in ("base", "venv", f"torch-{device}", "build"):
        build.carry_out(found[name][1], repository)
    for name in ("base", "last"):
        last.carry_out(found[name][1], repository, build)
    assert build.n_run + last.n_run == sum(name == "RUN" for name, _ in steps) - 1
    said = use(last, compose)
    for line in ("unwell without a head", "health 0", "refused", "2 complete of 2 trials"):
        assert line in said.splitlines(), said


def use(root, compose):
    """Start the image's Ray as its user, in a network of its own, and run a sweep there."""
    health = "ray health-check --address $RAY_HEAD"
    start = compose["services"]["head"]["command"].replace(
        "--num-cpus=0", "--num-cpus=1 --node-ip-address=127.0.0.1"
    )
    pairs = [f"{key}={value}" for key, value in root.environment.items()]
    script = USE.format(
        root=root.path, environment=shlex.join(pairs), start=start, health=health, grid=GRID
    )
    own = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    (root.path / "dev" / "shm").mkdir(exist_ok=True)
    mounts = f"mount -t tmpfs tmpfs {root.path}/dev/shm"
    command = [*own, f"--mount-proc={root.path}/proc", "bash", "-c", f"{mounts}\n{script}"]
    found = subprocess.run(command, capture_output=True, text=True)
    log = Path(root.path / "home" / "ray" / "head.log").read_text()
    assert found.returncode == 0, found.stdout + found.stderr + log
    return found.stdout
