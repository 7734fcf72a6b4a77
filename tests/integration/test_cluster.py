"""A cluster of two machines, launched over ssh as a user does: `ray up`, `ray submit`, `ray down`.

The machines are namespaces of this one (network, processes, mounts, host name), each with a home
folder and an ssh server of its own; the user stands in a third network between them. Nothing that
runs there outlives the test.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from finished import TIMES

from mg_core.store import ResultStore

N_TRIALS = 5
TOOLS = ("ip", "nsenter", "rsync", "ssh", "ssh-keygen", "tmux", "unshare", "/usr/sbin/sshd")

# The network: a switch that the user's own commands stand at too.
SWITCH = "ip link add switch type bridge && ip address add {user}/24 dev switch && \
ip link set lo up && ip link set switch up && echo ready && exec sleep infinity"

# A machine: waits for its cable; root's home is a folder of its own by way of /etc/passwd.
MACHINE = """
set -e
mount --make-rprivate /
mount --bind {folder}/passwd /etc/passwd
mkdir -p /tmp/ray /run/sshd
mount --bind {folder}/ray /tmp/ray
mount -t tmpfs -o size=1g tmpfs /dev/shm
hostname {name}
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip link set lo up
ip address add {address}/24 dev eth0
ip link set eth0 up
exec /usr/sbin/sshd -D -e -f {folder}/sshd_config
"""

SSHD = """
ListenAddress {address}
HostKey {hostkey}
PidFile none
AuthorizedKeysFile {key}.pub
PasswordAuthentication no
UsePAM no
StrictModes no
"""

# One machine alone would be done with such short trials before the other one has started a process.
MEETING = """
import os, socket, time
from pathlib import Path
from mg_core.losses import LOSSES

@LOSSES.register("together")
def together(attributions, masks):
    place = os.environ.get("MEETING", "")
    if place and Path(place, "../shared/store/attempts").is_dir():  # Not where it is rehearsed.
        Path(place, socket.gethostname()).touch()
        until = time.monotonic() + 120
        while len(os.listdir(place)) < 2 and time.monotonic() < until:
            time.sleep(0.1)
    return LOSSES["energy"](attributions, masks)
"""


def unavailable():
    """Say why no such machines can be made here; none if they can."""
    if os.geteuid() != 0:
        return "machines are namespaces here, which only root can make"
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"not installed: {', '.join(missing)} (openssh-server, rsync, iproute2, tmux)"
    probe = ["unshare", "--net", "--pid", "--uts", "--mount-proc", "--fork"]
    probe += ["ip", "link", "add", "switch", "type", "bridge"]
    found = subprocess.run(probe, capture_output=True, text=True)
    return f"no namespaces can be made here: {found.stderr.strip()}" if found.returncode else None


@pytest.fixture(scope="module", autouse=True)
def _possible():
    if reason := unavailable():
        pytest.skip(reason)


def wait(condition, what, seconds=60):
    """Wait until something is there, and return it."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, f"no {what} after {seconds} s"
        time.sleep(0.1)
    return found


class Network:
    """A switch with machines at it, and the user's end of it."""

    def __init__(self, folder, addresses):
        self.folder = folder
        self.addresses = addresses
        self.meeting = folder / "meeting"
        self.user = self._user()
        self._started = []

    def start(self):
        """Start the switch and the machines; the user's address ends in 1."""
        self.meeting.mkdir()
        (self.folder / "meeting.py").write_text(MEETING)
        for name in ("key", "hostkey"):
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)]
            subprocess.run(make, check=True)
        user = f"{self.addresses[0].rpartition('.')[0]}.1"
        self.switch = self._start("switch", ["--net"], SWITCH.format(user=user))
        wait(lambda: "ready" in (self.folder / "switch.log").read_text(), "switch")
        for number, address in enumerate(self.addresses):
            self._plug(number, address)

    def _start(self, name, namespaces, script):
        """Start a process in new namespaces that end with it, and return its id."""
        command = ["unshare", *namespaces, "--fork", "--kill-child", "bash", "-c", script]
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        self._started.append(process)
        own = os.readlink("/proc/self/ns/net")
        wait(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != own, f"namespace {name}")
        return str(process.pid)

    def _plug(self, number, address):
        name = f"machine{number}"
        folder = self.folder / name
        for part in ("home", "ray"):
            (folder / part).mkdir(parents=True)
        # Ray is installed here already; where pip would put it, there it is.
        (folder / "home" / ".mg-sweep").symlink_to(sys.prefix)
        # /tmp is the host's, where its own tmux may listen.
        settings = {"TMUX_TMPDIR": "~", "PYTHONPATH": self.folder, "MEETING": self.meeting}
        lines = [f"export {key}={value}\n" for key, value in settings.items()]
        (folder / "home" / ".bashrc").write_text("".join(lines))
        (folder / "passwd").write_text(
            "".join(
                f"root:*:0:0:root:{folder}/home:/bin/bash\n" if line.startswith("root:") else line
                for line in Path("/etc/passwd").read_text().splitlines(keepends=True)
            )
        )
        keys = {"key": self.folder / "key", "hostkey": self.folder / "hostkey"}
        (folder / "sshd_config").write_text(SSHD.format(address=address, **keys))
        script = MACHINE.format(folder=folder, name=name, address=address)
        machine = self._start(name, ["--net", "--pid", "--mount-proc", "--uts"], script)
        cable = ["ip", "link", "add", f"port{number}", "type", "veth", "peer", "eth0"]
        self.at_switch([*cable, "netns", machine], check=True)
        plug = ["ip", "link", "set", f"port{number}", "master", "switch", "up"]
        self.at_switch(plug, check=True)

    def _user(self):
        """Give the user a home with a token and a key, and return the environment."""
        home = self.folder / "user"
        (home / ".ray").mkdir(parents=True)
        (home / ".ray" / "auth_token").write_text("a-token-of-this-test-alone-0123456789")
        others = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TMUX"))}
        path = f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}"
        places = dict.fromkeys(("HOME", "RAY_TMPDIR", "TMPDIR"), str(home))
        return {**others, **places, "PATH": path}

    def at_switch(self, command, **options):
        """Run a command in the network between the machines."""
        command = ["nsenter", "--net", "--target", self.switch, *map(str, command)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, **options)

    def ray(self, *arguments, cwd=None):
        """Run `ray` as the user, and return what it said."""
        found = self.at_switch(["ray", *arguments], cwd=cwd, env=self.user)
        said = found.stdout + found.stderr
        assert found.returncode == 0, said
        return said

    def end(self):
        """End both machines and the network, with all that runs there."""
        for process in reversed(self._started):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def shipped(repository):
    """Return the cluster file of the project."""
    return yaml.safe_load((repository / "sweeps" / "voc_full.yaml").read_text())


@pytest.fixture(scope="module")
def network(shipped, tmp_path_factory):
    """Make two machines at the addresses that the file of the project names."""
    provider = shipped["provider"]
    addresses = [provider["head_ip"], provider["worker_ips"][0]]
    network = Network(tmp_path_factory.mktemp("cluster"), addresses)
    try:
        network.start()
        yield network
    finally:
        network.end()


@pytest.fixture(scope="module")
def file(shipped, network, small_sweep):
    """Write a cluster file: that of the project, with a small sweep and what is this host's."""
    store = network.folder / "shared" / "store"
    sweep = {**small_sweep, "store": str(store), "imports": ["meeting"]}
    sweep["grid"] = {**sweep["grid"], "layer": "final", "loss": {"together": [0.01, 0.1]}}
    install = [command for command in shipped["setup_commands"] if "pip install" in command]
    assert len(install) == 1
    starts = {
        key: [command.replace("ray start", "ray start --num-cpus=1") for command in shipped[key]]
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
    }
    cluster = {
        **shipped,
        **starts,
        "cluster_name": "two",
        "provider": {**shipped["provider"], "worker_ips": network.addresses[1:]},
        "auth": {"ssh_user": "root", "ssh_private_key": str(network.folder / "key")},
        "setup_commands": [c for c in shipped["setup_commands"] if c not in install],
        "metadata": {"sweep": sweep},
    }
    path = network.folder / "small.yaml"
    path.write_text(yaml.safe_dump(cluster))
    return path


@pytest.fixture(scope="module")
def cluster(network, file, repository):
    """Launch the cluster and wait for its second node."""
    network.ray("up", "-y", file, cwd=repository)

    def nodes():
        return "2 local.cluster.node" in network.ray("exec", file, "ray status")

    wait(nodes, "second node", 240)
    return network


@pytest.fixture(scope="module")
def store(cluster, file, repository):
    """Submit the sweep, wait until its driver has left, and return the store."""
    cluster.ray("submit", "--tmux", file, repository / "sweeps" / "run.py")
    place = cluster.folder / "shared" / "store"
    store = ResultStore(str(place))

    def is_done():
        # The driver holds the lock until it has swept up.
        found = store.progress() if place.exists() else {}
        n_complete = sum(progress.is_complete for progress in found.values())
        return n_complete == N_TRIALS and not (place / "lock.json").exists()

    wait(is_done, "complete sweep", 240)
    return store


def connect(network, address, port):
    """Try a port as the user, and return what comes of it."""
    code = f"import socket; socket.create_connection(('{address}', {port}), 5)"
    return network.at_switch([sys.executable, "-c", code]).stderr


def test_the_sweep_of_the_cluster_file_runs_on_both_machines(store, file, command):
    attempts = store.attempts().values()
    assert {attempt["how"] for attempt in attempts} == {"complete"}
    assert {attempt["host"] for attempt in attempts} == {"machine0", "machine1"}
    # The same file, on this machine alone: the same table, bit for bit.
    alone = file.parent / "alone"
    run = [*command, "run", file, "--runner", "inline", "--store", alone]
    environment = {**os.environ, "PYTHONPATH": str(file.parent)}
    subprocess.run(list(map(str, run)), check=True, capture_output=True, env=environment)
    assert store.rows().drop_columns(TIMES) == ResultStore(str(alone)).rows().drop_columns(TIMES)


def test_what_no_machine_has_is_refused_at_once(cluster, file, repository):
    # Options behind the script reach the sweep.
    elsewhere = ["--store", cluster.folder / "shared" / "other", "--set", "resources.gpu=1"]
    script = repository / "sweeps" / "run.py"
    command = ["ray", "submit", file, script, "--", *elsewhere]
    found = cluster.at_switch(command, env=cluster.user)
    assert found.returncode != 0
    said = " ".join((found.stdout + found.stderr).split())
    assert "a trial asks for 1 GPUs where the largest node has 0" in said
    assert "Traceback" not in said


def test_without_the_token_nobody_is_let_in(cluster):
    head = cluster.addresses[0]
    status = ["ray", "status", "--address", f"{head}:6379"]
    mode = {**cluster.user, "RAY_AUTH_MODE": "token"}
    assert cluster.at_switch(status, env=mode).returncode == 0
    found = cluster.at_switch(status, env={**cluster.user, "HOME": str(cluster.folder)})
    assert found.returncode != 0
    assert "uthenticat" in found.stdout + found.stderr
    # The dashboard, which would take jobs, is not to be reached from elsewhere.
    assert "ConnectionRefusedError" in connect(cluster, head, 8265)


def test_the_token_stays_out_of_store_and_logs(store, cluster):
    token = (Path(cluster.user["HOME"]) / ".ray" / "auth_token").read_bytes()
    shared = [p for p in (cluster.folder / "shared").rglob("*") if p.is_file()]
    logs = [p for p in cluster.folder.glob("machine*/ray/session_*/logs/**/*") if p.is_file()]
    assert shared
    assert logs
    assert not [path for path in shared + logs if token in path.read_bytes()]


def test_down_ends_the_cluster(cluster, store, file):
    cluster.ray("down", "-y", file)
    assert "ConnectionRefusedError" in connect(cluster, cluster.addresses[0], 6379)
