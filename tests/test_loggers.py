"""Live logs: what TensorBoard and Weights & Biases are told, and that neither can stop a run."""

import json
import struct

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from purejaxdqn import load_config
from purejaxdqn.core.types import EpochRow
from purejaxdqn.runs import loggers
from purejaxdqn.runs.command_line import parser, read_draft
from purejaxdqn.runs.log_values import final_values, hyper_parameters, points
from purejaxdqn.runs.metrics import metrics_from_rows, read_metrics
from purejaxdqn.train import main as train
from tests.conftest import TINY

RUN = ["--config", "cartpole_cleanrl", "--quiet", *TINY, "num_seeds=2", "checkpoint={every: 120, keep: 9}"]


def part(episode_return):
    """Two seeds, one epoch."""
    column = np.array(episode_return, np.float32)[:, None]
    values = dict.fromkeys(EpochRow._fields, column)
    rows = EpochRow(**{**values, "env_step": np.full((2, 1), 40), "eval_returns": column[..., None]})
    return metrics_from_rows(rows, solved_at=None)


def events(folder):
    """(tag, step) -> value in all event files, the later ones over the earlier, and the steps purged from."""
    found, purged = {}, []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            if event.session_log.status == event.session_log.START:
                purged.append(event.step)
                found = {key: value for key, value in found.items() if key[1] < event.step}
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found, purged


def test_points_are_per_seed_and_the_mean_over_what_is_known():
    (step, values), *rest = points(part([1.0, 4.0]))
    assert (step, rest) == (40, [])
    assert {name: values[f"episode_return/{name}"] for name in ("seed_0", "seed_1", "mean")} == {
        "seed_0": 1.0, "seed_1": 4.0, "mean": 2.5,
    }  # fmt: skip
    assert not [name for name in values if name.startswith(("env_step", "success_rate"))]
    ((_, values),) = points(part([np.nan, 4.0]))
    assert "episode_return/seed_0" not in values
    assert values["episode_return/mean"] == 4.0
    assert not list(next(points(part([np.nan, np.nan])))[1])


@pytest.mark.slow
def test_tensorboard_holds_the_metrics_also_of_a_resumed_run(quietly, tmp_path):
    path = tmp_path / "run"
    assert quietly(train, *RUN, "--out", path, "--log", "tensorboard")[0] == 0
    metrics = read_metrics(path / "metrics.csv")

    def check():
        found, purged = events(path)
        for name in ("eval_return", "loss"):
            for seed, column in enumerate(getattr(metrics, name)):
                logged = [found[f"{name}/seed_{seed}", step] for step in metrics.env_step[0]]
                np.testing.assert_allclose(logged, column, rtol=1e-6)
            means = [found[f"{name}/mean", step] for step in metrics.env_step[0]]
            np.testing.assert_allclose(means, getattr(metrics, name).mean(0), rtol=1e-6)
        return purged

    check()
    for name in ("440", "560", "600"):
        (path / "checkpoints" / name).rename(tmp_path / name)
    (path / "summary.json").unlink()
    assert quietly(train, "--resume", path, "--quiet")[0] == 0
    assert 321 in check()


@pytest.mark.slow
def test_wandb_offline_takes_the_run(quietly, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is an extra; CI has it")
    monkeypatch.setenv("WANDB_MODE", "offline")
    path = tmp_path / "run"
    code, _, err = quietly(train, *RUN, "--out", path, "--log", "wandb")
    assert (code, [line for line in err if "warning" in line]) == (0, [])
    (record,) = (path / "wandb").glob("offline-run-*/*.wandb")
    assert f"log: wandb writes to {record.parent} (wandb sync {record.parent})" in err
    data = record.read_bytes()
    assert (path / "wandb" / "run_id").read_text().encode() in data
    assert data.count(b"eval_return/seed_1") >= 13
    assert b"eval_return/mean" in data
    assert all(key in data for key in (b"target_every", b"final/eval_return_iqm", b"speed/env_steps_per_second"))


class Failing:
    """A logger that fails from its second part on."""

    where = "nowhere"

    def __init__(self, *_, **__):
        self.parts = 0

    def write(self, part):
        self.parts += 1
        if self.parts > 1:
            raise ConnectionError("no route to host")

    def close(self):
        raise AssertionError("it was left out")


def test_a_failing_logger_warns_once_and_the_run_goes_on(quietly, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "WeightsAndBiases", Failing)
    code, _, err = quietly(train, *RUN, "--out", tmp_path / "run", "log=[csv,wandb]")
    warning = "warning: log: wandb failed and is not used any more: no route to host"
    assert (code, [line for line in err if "compiled" not in line]) == (0, ["log: wandb writes to nowhere", warning])
    assert read_metrics(tmp_path / "run" / "metrics.csv").loss.shape == (2, 13)


@pytest.mark.slow
def test_a_logger_that_cannot_be_opened_is_left_out_too(quietly, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise PermissionError("not here")

    monkeypatch.setattr(loggers, "TensorBoard", failing)
    code, _, err = quietly(train, *RUN, "--out", tmp_path / "run", "log=tensorboard")
    assert code == 0
    assert "warning: log: tensorboard failed and is not used any more: not here" in err
    assert read_metrics(tmp_path / "run" / "metrics.csv").loss.shape == (2, 13)  # written at the end


def test_a_missing_extra_is_refused_with_the_line_that_installs_it(quietly, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "is_installed", lambda name: False)
    code, out, err = quietly(train, *RUN, "--out", tmp_path / "run", "--log", "wandb", "--log", "tensorboard")
    assert (code, out) == (2, [])
    assert err == [
        "error: log: wandb needs wandb: pip install 'purejaxdqn[wandb]'",
        "error: log: tensorboard needs tensorboardX: pip install 'purejaxdqn[tensorboard]'",
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_option_adds_to_the_logs_of_the_config(tmp_path):
    path = tmp_path / "logs.yaml"
    path.write_text("log: [tensorboard]\n")
    draft = read_draft(parser().parse_intermixed_args(["--config", "catch", "--config", str(path), "--log", "wandb"]))
    assert draft.config.log == ("csv", "tensorboard", "wandb")


def test_logs_are_names_once_each():
    assert load_config("cartpole_cleanrl").log == ("csv",)
    assert load_config("cartpole_cleanrl", ["log=tensorboard"]).log == ("tensorboard",)
    assert load_config("cartpole_cleanrl", ["log=[csv,wandb,csv]"]).log == ("csv", "wandb")


def test_hyper_parameters_are_single_values_by_dotted_keys():
    config = load_config("cartpole_cleanrl", [*TINY, "env.params.gravity=9", "optimizer.max_grad_norm=null"])
    found = hyper_parameters(config)
    expected = {"optimizer.learning_rate": 1e-3, "network.hidden": "[16, 16]", "env.params.gravity": 9.0, "seed": 0}
    assert expected.items() <= found.items()
    assert found["network.dueling"] is False
    assert not {"optimizer.max_grad_norm", "log", "checkpoint.keep", "stop.return"} & set(found)
    assert all(isinstance(value, bool | int | float | str) for value in found.values())


def test_final_values_are_the_score_and_the_speed_without_what_is_not_finite():
    summary = {"iqm": 9.0, "final_eval_return": [8.0, None], "env_steps_per_second": 50, "run_seconds": 2.5}
    assert final_values({**summary, "compile_seconds": 3}) == {
        "final/eval_return_iqm": 9.0,
        "final/eval_return_seed_0": 8.0,
        "speed/env_steps_per_second": 50.0,
        "speed/run_seconds": 2.5,
        "speed/compile_seconds": 3.0,
    }


def hparams_of(folder):
    """Hyper-parameters, names of metrics, and status, as TensorBoard's tab HPARAMS reads them."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    found = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    found.setdefault(value.tag, HParamsPluginData.FromString(value.metadata.plugin_data.content))
    session = found["_hparams_/session_start_info"].session_start_info.hparams
    values = {key: getattr(value, value.WhichOneof("kind")) for key, value in session.items()}
    metrics = [one.name.tag for one in found["_hparams_/experiment"].experiment.metric_infos]
    ended = "_hparams_/session_end_info" in found and found["_hparams_/session_end_info"].session_end_info.status
    return values, metrics, ended


@pytest.mark.slow
def test_tensorboard_gets_hyper_parameters_the_final_score_and_the_speed(quietly, barely_compiled, tmp_path):
    path = tmp_path / "run"
    code, _, err = quietly(train, *RUN, "--out", path, "--log", "tensorboard")
    place = path / "tensorboard"
    assert (code, err.count(f"log: tensorboard writes to {place} (tensorboard --logdir {place})")) == (0, 1)
    values, metrics, ended = hparams_of(path)
    assert (values["optimizer.learning_rate"], values["network.hidden"]) == (1e-3, "[16, 16]")
    summary, (found, _) = json.loads((path / "summary.json").read_text()), events(path)
    assert metrics == ["final/eval_return_iqm", "speed/env_steps_per_second"]
    assert [found[name, 600] for name in metrics] == pytest.approx([summary["iqm"], summary["env_steps_per_second"]])
    assert found["final/eval_return_seed_1", 600] == pytest.approx(summary["final_eval_return"][1])
    assert ended == 1  # STATUS_SUCCESS
