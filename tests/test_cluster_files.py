"""The cluster files: valid, with options that exist, and with the right answer to each exit code."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

import igos_pl
from igos_pl.cli.main import main

ROOT = Path(igos_pl.__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "configs" / "slurm").glob("*.sbatch"))
KUBERNETES = ROOT / "configs" / "kubernetes" / "indexed-job.yaml"
DOCUMENT = ROOT / "docs" / "cluster.md"

JOB = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "gpu[1-4]",
    "SLURM_NNODES": "4",
    "SLURM_NTASKS_PER_NODE": "8",
    "SLURM_CPUS_PER_TASK": "4",
    "SLURM_ARRAY_JOB_ID": "4700",
    "SLURM_ARRAY_TASK_ID": "2",
    "SLURM_ARRAY_TASK_COUNT": "16",
}

every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


class Run:
    """A job's script, run with commands of SLURM that only write down what they are told.

    Attributes:
        code: the script's exit code.
        srun: the words after ``srun``.
        requeued: the words of each ``scontrol requeue``.
    """

    def __init__(self, script: Path, folder: Path, code: int = 0, **variables: str) -> None:
        commands = {
            "srun": f'printf "%s\\n" "$@" > srun.txt; echo "$MASTER_ADDR" > master.txt; exit {code}',
            "scontrol": 'if [ $1 = show ]; then printf "gpu1\\ngpu2\\n"; else echo "$@" >> requeued.txt; fi',
        }
        binaries = folder / "venv" / "bin"
        binaries.mkdir(parents=True, exist_ok=True)
        (binaries / "activate").write_text(f'export PATH="{binaries}:$PATH"\n')
        for name, text in commands.items():
            (binaries / name).write_text(f"#!/bin/sh\n{text}\n")
            (binaries / name).chmod(0o755)
        clean = {"PATH": os.environ["PATH"], "VENV": "venv", **JOB, **variables}
        done = subprocess.run(["bash", script], cwd=folder, env=clean, check=False, capture_output=True)
        assert done.stderr == b""
        self.code = done.returncode
        self.srun = (folder / "srun.txt").read_text().splitlines()
        self.master = (folder / "master.txt").read_text().strip()
        requeued = folder / "requeued.txt"
        self.requeued = requeued.read_text().splitlines() if requeued.exists() else []
        requeued.unlink(missing_ok=True)

    @property
    def words(self) -> list[str]:
        """Those of igos-pl."""
        return self.srun[self.srun.index("igos-pl") + 1 :]


def settings(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    """What the real parser makes of a command."""
    with pytest.raises(SystemExit) as end:
        main([*words, "--print_config"])
    output = capsys.readouterr()
    assert end.value.code in (0, None), output.err
    found: dict[str, dict[str, object]] = yaml.safe_load(output.out)
    return found


def directives(script: Path) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", script.read_text(), re.MULTILINE)
    assert len(found) == script.read_text().count("#SBATCH")
    return dict(found)


def test_all_are_there() -> None:
    assert [script.stem for script in SCRIPTS] == ["array", "multi_node", "single_node"]


@every_script
def test_scripts_ask_for_what_they_need(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    found = directives(script)
    assert found["requeue"] == ""
    assert found["signal"] == "USR1@120"  # with B: only the script would hear it
    assert found["open-mode"] == "append"
    if script.stem == "array":
        assert (found["array"], found["ntasks"], found["gpus-per-node"]) == ("0-15", "1", "1")
    else:
        assert found["ntasks-per-node"] == found["gpus-per-node"] == "8"
        assert found["nodes"] == {"single_node": "1", "multi_node": "4"}[script.stem]
    # No name that SLURM itself uses, whose value would win over the default: ENVIRONMENT is BATCH in a job.
    names = re.findall(r'^: "\$\{(\w+):=', script.read_text(), re.MULTILINE)
    assert names == ["VENV", "CONFIG", "DATA", "OUTPUT", "OPTIONS", "RESTARTS"]


@every_script
def test_options_are_real(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # the default settings lie there
    options = "--data.batch_size 3 --model.l1 0.5"
    run = Run(script, tmp_path, DATA="/my photos", OUTPUT="/my results", OPTIONS=options)
    found = settings(run.words, capsys)
    assert (found["output"], found["data"]["init_args"]["root"]) == ("/my results", "/my photos")
    assert (found["data"]["init_args"]["batch_size"], found["model"]["l1"]) == (3, 0.5)
    assert found["model"]["network"]["init_args"]["name"] == "resnet50"
    if script.stem == "array":
        assert found["data"]["init_args"]["shard"] == "2/16"
        assert (int(str(found["trainer"]["devices"])), found["trainer"]["num_nodes"]) == (1, 1)
    else:
        assert "--kill-on-bad-exit=1" in run.srun
        assert found["data"]["init_args"]["shard"] is None
        assert (int(str(found["trainer"]["devices"])), found["trainer"]["num_nodes"]) == (8, 4)
    if script.stem == "multi_node":
        assert run.master == "gpu1"
        assert Run(script, tmp_path, MASTER_ADDR="10.0.0.1").master == "10.0.0.1"


@every_script
@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [
        (0, "0", False),
        (1, "0", False),
        (2, "0", False),
        (75, "0", True),
        (75, "99", True),
        (137, "", True),
        (137, "19", True),
        (137, "20", False),
    ],
)
def test_what_follows_on_exit_codes(
    script: Path, tmp_path: Path, code: int, restarts: str, again: bool
) -> None:
    variables = {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    run = Run(script, tmp_path, code, **variables)
    assert run.code == code
    # Of an array's tasks, one has the array's number for its own: with it, all of them would be queued again.
    job = "4700_2" if script.stem == "array" else "4711"
    assert run.requeued == ([f"requeue {job}"] if again else [])


@every_script
def test_missing_environment_is_no_success(script: Path, tmp_path: Path) -> None:
    words = ["bash", script]
    done = subprocess.run(words, cwd=tmp_path, env={"PATH": os.environ["PATH"], **JOB}, check=False)
    assert done.returncode == 2


def test_kubernetes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    job = yaml.safe_load(KUBERNETES.read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    (container,) = pod["containers"]
    values = {entry["name"]: entry["value"] for entry in container["env"]}
    assert values["SHARDS"] == str(spec["completions"])
    assert spec["parallelism"] <= spec["completions"]
    assert spec["backoffLimitPerIndex"] == 4  # five pods, as the document says
    assert "backoffLimit" not in spec  # a shard that always fails would use it up
    assert pod["restartPolicy"] == "Never"  # else a policy for failures is refused
    assert pod["terminationGracePeriodSeconds"] >= 60
    rules = spec["podFailurePolicy"]["rules"]
    actions = {
        code: rule["action"] for rule in rules for code in rule.get("onExitCodes", {}).get("values", [])
    }
    assert actions == {75: "Ignore", 2: "FailJob"}
    assert all(rule["onExitCodes"]["containerName"] == container["name"] for rule in rules[1:])
    assert rules[0] == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {mount["name"] for mount in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert container["command"] == ["/bin/sh", "-c"]
    (line,) = container["args"]
    assert "\n" not in line
    assert line.startswith("exec igos-pl predict ")
    shell = ["sh", "-c", line.replace("exec", "printf '%s\\n'", 1)]
    environment = {**values, "JOB_COMPLETION_INDEX": "3"}
    printed = subprocess.run(shell, env=environment, check=True, capture_output=True, text=True).stdout
    program, *words = printed.splitlines()
    assert program == "igos-pl"
    found = settings(words, capsys)
    assert found["data"]["init_args"]["shard"] == "3/16"
    assert found["data"]["init_args"]["root"] == "/data"
    assert found["output"] == "/results"


def test_commands_in_the_document_are_real(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    blocks = "\n".join(re.findall(r"^```\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL))
    commands = re.findall(r"igos-pl (predict .*)", blocks.replace("\\\n", " "))
    assert len(commands) >= 3
    for command in commands:
        words = shlex.split(command.partition(";")[0].replace("$NODES", "2").replace('"$i/4"', "1/4"))
        assert settings(words, capsys)["data"]["init_args"]["root"] == "/path/to/images"


def test_document_names_every_file() -> None:
    text = DOCUMENT.read_text()
    for path in (*SCRIPTS, KUBERNETES):
        assert str(path.relative_to(ROOT)) in text
