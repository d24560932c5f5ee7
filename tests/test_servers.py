"""Servers that the runner starts: real processes that speak the protocol, asked by a notebook."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import yaml
from test_run import Project

from sgvl.common import process_group
from sgvl.common.errors import InputError
from sgvl.run import servers
from sgvl.run.rehearsal import parameters
from sgvl.run.units import load_units

ASKS = """\
import json
import os
import urllib.request
direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def ask(text):
    messages = [{"role": "user", "content": text}]
    body = json.dumps({"model": server["model"], "messages": messages}).encode()
    with direct.open(urllib.request.Request(server["url"] + "/chat/completions", body)) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]
"""
SERVED = [sys.executable, "-m", "sgvl.run.rehearsal.server", "{port}", "{model}"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for counts."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(is_so) -> None:
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("it never was")


class Served(Project):
    """A project whose first two notebooks ask one server, and whose third asks none."""

    def __init__(self, root):
        super().__init__(root)
        self.url = f"http://127.0.0.1:{free_port()}/v1"
        spec = {"url": self.url, "model": "a/model"}
        for name in ("01_data", "02_ask"):
            asks = f"ran('{name}', ask('Caption: {name}'))"
            self.notebook(name, ASKS, asks, parameters="server: dict = {}")
            self.parameters(name, yaml.safe_dump({"server": spec}))
        self.notebook("03_train", "import os; ran('03_train', 'done')", needs=["02_ask"])
        self.parameters("03_train")
        self.declare(SERVED)

    def declare(self, command, **more):
        server = {"url": self.url, "model": "a/model", "command": command} | more
        (self.root / "params/nano/servers.yaml").write_text(yaml.safe_dump({"captioner": server}))

    @property
    def log(self):
        return self.root / "runs/nano/servers/captioner.log"


@pytest.fixture
def project(tmp_path):
    return Served(tmp_path / "a {checkout}, non-ASCII é")


def test_a_server_is_started_once_for_its_units_and_stopped_before_the_next(project):
    """It notes its process; the third notebook finds neither that nor an answer at its URL."""
    noting = "import os, sys; print(os.getpid(), flush=True); os.execv(sys.argv[1], sys.argv[1:])"
    project.declare([sys.executable, "-c", noting, *SERVED])
    looks = f"from sgvl.run.servers import models_at; assert models_at({project.url!r}) is None"
    project.notebook("03_train", looks, "ran('03_train', 'done')", needs=["02_ask"])
    code, out, _ = project.run("nano", "--dry-run")
    assert code == 0 and out.count("# server captioner, while 0") == 2
    assert "a/model  # server captioner, while 02_ask runs\npapermill" in out
    assert not project.log.exists(), "a dry run starts nothing"
    code, out, err = project.run("nano")
    assert code == 0, out + err
    assert project.newly_run() == ["01_data", "02_ask", "03_train"]
    assert out.count("server captioner: ") == 1, "the second unit finds it running"
    assert (project.root / "runs/nano/02_ask.txt").read_text().startswith("02_ask and a ")
    (pid,) = [int(line) for line in project.log.read_text().splitlines() if line.isdigit()]
    assert gone(pid)


@pytest.mark.slow
def test_a_server_of_the_users_own_is_asked_and_left_alone(project):
    command = [word.format(port=project.url[17:-3], model="a/model") for word in SERVED]
    own = subprocess.Popen(command)
    try:
        wait_until(lambda: servers.models_at(project.url) == ["a/model"])
        project.declare(["no-such-program"])
        assert project.run("nano", "--only", "02_ask")[0] == 0
        assert not project.log.exists() and own.poll() is None
    finally:
        own.kill()
        own.wait()
    code, _, err = project.run("nano", "--only", "02_ask", "--force")
    assert code == 2 and "server captioner: no-such-program is not installed" in err


DIES = """\
import os, sys
from sgvl.run.rehearsal import server
def die(_):
    print("engine died", flush=True)
    os._exit(5)
server.ANSWERS["/chat/completions"] = die
server.serve(int(sys.argv[1]), sys.argv[2])
"""
CRASHES = "import sys; print('CUDA out of memory'); sys.exit(3)"


def test_a_crash_of_a_server_is_shown_with_its_log(project):
    project.declare([sys.executable, "-c", CRASHES])
    code, _, err = project.run("nano")
    assert code == 4 and "ended with exit code 3" in err and "CUDA out of memory" in err
    assert project.newly_run() == []
    found = project.status(4)
    assert "failed" in found["02_ask"] and "skipped" not in found["01_data"]
    # One that crashes while it is asked: the reason of its unit is the crash.
    project.declare([SERVED[0], "-c", DIES, *SERVED[3:]])
    code, _, err = project.run("nano", "--only", "02_ask")
    assert code == 4 and "ended with exit code 5" in err and "engine died" in err
    assert project.receipt("02_ask")["reason"].startswith("server captioner (http://127.0.0.1:")


@pytest.mark.slow
def test_a_server_that_is_slow_or_serves_another_model_is_named(project):
    project.declare([sys.executable, "-c", "import time; time.sleep(60)"], patience=1)
    code, _, err = project.run("nano", "--only", "02_ask")
    assert code == 4 and "does not list a/model after 1 s (`patience`)" in err
    project.declare([*SERVED[:4], "another/model"])
    code, _, err = project.run("nano", "--only", "02_ask")
    assert code == 4 and "serves another/model, not a/model" in err


@pytest.mark.slow
def test_a_server_ends_with_its_run_also_when_that_is_killed(project):
    asks = "ran('02_ask', ask('Caption: x')); import time; time.sleep(600)"
    project.notebook("02_ask", ASKS, asks, parameters="server: dict = {}")
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = project.start("nano", "--only", "02_ask")
        project.wait_for("runs/nano/02_ask.txt")
        assert servers.models_at(project.url) == ["a/model"]
        process.send_signal(number)
        process.communicate(timeout=60)
        wait_until(lambda: servers.models_at(project.url) is None)
        (project.root / "runs/nano/02_ask.txt").unlink()


def test_a_whole_process_group_ends(tmp_path):
    """A child that ignores the first signal, and one that outlives the command, end too."""
    starts = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; "
    starts += "time.sleep(600)']); print(p.pid, flush=True); "
    with (tmp_path / "log").open("wb") as log:
        waiting = process_group.start([sys.executable, "-c", starts + "p.wait()"], log)
        pids = lambda: [int(line) for line in (tmp_path / "log").read_text().split()]  # noqa: E731
        wait_until(pids)
        assert process_group.end(waiting) == 128 + signal.SIGTERM
        leaving = process_group.start([sys.executable, "-c", starts + "sys.exit(7)"], log)
        assert leaving.wait(60) == 7
        absent = process_group.start(["no-such-program"], log)
        assert absent.wait(60) == process_group.NOT_FOUND
    *pids, told = (tmp_path / "log").read_text().split(maxsplit=2)
    assert all(gone(int(pid)) for pid in pids) and told.startswith("no-such-program: No such file")


def test_a_system_without_process_groups_is_refused_in_one_line(monkeypatch):
    monkeypatch.delattr(os, "killpg")
    with pytest.raises(InputError, match="on Windows, run this in WSL$"):
        process_group.start([sys.executable, "-c", ""], subprocess.PIPE)


def test_all_that_is_wrong_with_declarations_is_named_before_anything_runs(project):
    good = {"url": project.url, "model": "a/model"}
    wrong = {
        "other": (
            good | {"model": "b/model"},
            "model 'b/model', but 01_data asks it for 'a/model'",
        ),
        "unasked": (good | {"url": "http://127.0.0.1:1/v1"}, "no unit asks it; did you mean http"),
        "away": (good | {"url": "http://10.0.0.1:8000/v1"}, "expected http://localhost:PORT/v1"),
        "key": (good | {"gpu": [0]}, "gpu: no such parameter; did you mean gpus?"),
        "type": (good | {"gpus": "0"}, "gpus: got the text '0', expected list[int]"),
        "short": ({"url": project.url}, "model: is missing"),
        "nothing": (good | {"command": []}, "command: got"),
        "../name": (good, "use letters"),
        "text": ("vllm", "expected `key: value` lines, got 'vllm'"),
    }
    text = yaml.safe_dump({name: dict(v) if v != "vllm" else v for name, (v, _) in wrong.items()})
    (project.root / "params/nano/servers.yaml").write_text(text)
    code, out, err = project.run("nano", "--dry-run")
    assert code == 2 and not out and "Traceback" not in err
    for name, (_, said) in wrong.items():
        lines = [ln for ln in err.splitlines() if "params/nano/servers.yaml: " in ln and name in ln]
        assert any(said in line for line in lines), (name, err)


def test_servers_of_a_rehearsal_are_stand_ins_at_ports_of_their_own(tmp_path):
    units = load_units("paper")
    real = servers.declared("paper", units)
    rehearsed = parameters.Rehearsed("paper", "paper_rehearsal", tmp_path, real)
    values = rehearsed.parameters("02_recaption", units["02_recaption"].parameters)
    small = parameters.servers(real)
    for name in ("captioner", "recaptioner"):
        assert values[name]["url"] == small[name]["url"] != real[name].url
        assert values[name]["model"] == small[name]["model"] == real[name].model
        assert small[name]["command"][2] == "sgvl.run.rehearsal.server"
    assert real["captioner"].shown().startswith("CUDA_VISIBLE_DEVICES=0,1,2,3 vllm serve Qwen/")
    with pytest.raises(InputError, match="vllm is not installed"):
        servers.need_commands([units["02_recaption"]], real)


def test_the_server_of_rollouts_is_asked_by_its_training(tmp_path):
    """By TRL's own setting, which names it without /v1; a rehearsal generates without it."""
    plain = load_units("paper")["04_grpo.full"]
    settings = {"use_vllm": True, "vllm_mode": "server"}
    settings |= {"vllm_server_base_url": "http://localhost:8002"}
    parameters_ = plain.parameters | {"settings": plain.parameters["settings"] | settings}
    unit = dataclasses.replace(plain, parameters=parameters_)
    server = servers.Server(
        url="http://localhost:8002/v1", model="a/model", gpus=[7],
        variables={"VLLM_SERVER_DEV_MODE": "1"},
    )  # fmt: skip
    known = {"rollouts": server}
    assert servers.asked_by(unit, known) == ["rollouts"]
    assert servers.asked_by(plain, known) == []
    assert server.shown().startswith("CUDA_VISIBLE_DEVICES=7 VLLM_SERVER_DEV_MODE=1 vllm serve a/")
    rehearsed = parameters.Rehearsed("paper", "paper_rehearsal", tmp_path, known)
    small = rehearsed.parameters("04_grpo.full", parameters_)["settings"]
    assert small["use_vllm"] is False
    assert f"{small['vllm_server_base_url']}/v1" == parameters.servers(known)["rollouts"]["url"]
