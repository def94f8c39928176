"""The Python interface for notebooks and scripts: train, load_run and load_config."""

import base64
import contextlib
import io
import json
import re
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import purejaxdqn
from purejaxdqn import ConfigError, api, load_config, load_run
from purejaxdqn.core.config import Config
from purejaxdqn.core.plan import make_plan
from purejaxdqn.runs import opening, runner
from purejaxdqn.runs.population import BEGINNING
from purejaxdqn.system.faults import UserError
from tests.conftest import TINY, quick_compiler


@pytest.fixture(scope="module")
def said():
    """What ``run`` wrote to standard error."""
    return io.StringIO()


@pytest.fixture(scope="module")
def run(tmp_path_factory, said):
    """A run by ``train``, and the metrics that its callback saw."""
    seen, config = [], load_config("cartpole_cleanrl", TINY, num_seeds=2)
    with quick_compiler(), contextlib.redirect_stderr(said):
        folder = tmp_path_factory.mktemp("api") / "run"
        found = api.train(config, out=folder, progress=False, callback=seen.append)
    return found, seen


def test_train_leaves_a_run_directory_with_its_results(run):
    found, seen = run
    written = json.loads((found.folder / "summary.json").read_text())
    assert found.summary == {key: value for key, value in written.items() if key != "summary_sha256"}
    assert found.summary["stopped_at"] is None
    assert len(found.metrics) == 2 * seen[-1].env_step.shape[1] + 2  # the last epoch ends the run anyway
    assert list(found.metrics.columns)[:2] == ["seed_index", "env_step"]
    assert [part.env_step.shape[1] for part in seen] == list(range(1, len(seen) + 1))
    assert found.evaluate(episodes=3).shape == (2, 3)
    assert [found.policy(index)(np.zeros((3, 4), np.float32)).shape for index in (0, 1)] == [(3,), (3,)]
    assert repr(found).startswith(f"Run(folder={found.folder!r}")


def test_training_without_progress_prints_nothing(run, said):
    assert said.getvalue() == ""


@pytest.mark.parametrize("quiet", [True, False])
def test_an_early_end_is_said_unless_that_is_progress_nobody_wants(quiet, config, capsys):
    options = runner.RunOptions(quiet=quiet, callback=lambda metrics: True)
    recorder = runner._Recorder(SimpleNamespace(config=config), None, None, None, BEGINNING, options, None)
    assert recorder._ends_early(SimpleNamespace(env_step=80, parts=(), metrics=None))
    line = "stopped at step 80: the callback returned True\n"
    assert capsys.readouterr().err == ("" if quiet else line)


@pytest.mark.parametrize("progress", [True, False])
def test_playing_and_filming_name_their_phase_unless_it_is_not_wanted(progress, run, monkeypatch, tmp_path):
    phases = []

    def status(text, *, quiet):
        phases.append((text, quiet))
        raise InterruptedError

    monkeypatch.setattr(api, "Status", status)
    for call in (run[0].evaluate, lambda **about: run[0].film(tmp_path / "a.gif", **about)):
        with pytest.raises(InterruptedError):
            call(progress=progress)
    assert phases == [("compiling and playing", not progress), ("playing an episode and drawing it", not progress)]


def test_a_run_is_loaded_as_it_was_trained(run):
    found, _ = run
    loaded = load_run(found.folder)
    assert (loaded.config, loaded.summary["iqm"]) == (found.config, found.summary["iqm"])
    np.testing.assert_array_equal(loaded.evaluate(episodes=2), found.evaluate(episodes=2))
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        load_run(found.folder / "nothing")


def test_metrics_without_pandas_are_columns_by_name(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    metrics = run[0].metrics
    assert metrics["eval_return"].shape == metrics["env_step"].shape
    assert metrics["env_step"][0, -1] == 600


def test_pictures_and_films_show_themselves_in_a_notebook(run, tmp_path):
    found, _ = run
    (content,) = found.plot()._repr_mimebundle_().values()
    assert base64.b64decode(content)[1:4] == b"PNG"
    film = found.film(seed_index=1, seed=2)
    assert film.path == found.folder / "episode-1-2.gif"
    assert base64.b64decode(film._repr_mimebundle_()["image/gif"])[:3] == b"GIF"
    assert found.film(seed_index=1, seed=2) == film  # which is there
    with pytest.raises(UserError, match="2 is not an agent"):
        found.film(tmp_path / "x.gif", seed_index=2)
    with pytest.raises(UserError, match="exists"):
        found.film(film.path)


def test_a_picture_is_saved_in_other_formats_and_a_film_as_it_is(run, tmp_path):
    found, _ = run
    picture, film = found.plot(), found.film()
    for name, head in (("x.pdf", b"%PDF"), ("x.svg", b"<?xml"), ("x.png", b"\x89PNG")):
        assert picture.save(tmp_path / name) == tmp_path / name
        assert (tmp_path / name).read_bytes().startswith(head)
    assert (tmp_path / "x.png").read_bytes() == picture.path.read_bytes()
    assert film.save(str(tmp_path / "x.gif")).read_bytes() == film.path.read_bytes()
    for one, name, line in (
        (picture, "x.gif", r"must end in \.png or \.pdf or \.svg"),
        (film, "x.pdf", r"must end in \.gif"),
        (picture, "nowhere/x.pdf", "cannot be written: No such file"),
    ):
        with pytest.raises(UserError, match=line):
            one.save(tmp_path / name)


@pytest.mark.slow
def test_a_callback_ends_a_run_which_can_be_resumed(tmp_path, quietly):
    config = load_config("cartpole_cleanrl", TINY)
    found = []

    def in_a_thread():  # where no signal handler can be installed
        callback = lambda metrics: metrics.env_step[0, -1] >= 200  # noqa: E731
        found.append(api.train(config, out=tmp_path / "run", progress=False, callback=callback))

    with quick_compiler():
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
        (run,) = found
        stopped = run.summary["stopped_at"]
        assert 200 <= stopped < 600
        assert run.metrics["env_step"].max() == stopped
        whole = api.train(config, out=tmp_path / "whole", progress=False)
        from purejaxdqn.train import main

        code, _, err = quietly(main, "--resume", run.folder, "--quiet", "--no-cache")
        assert (code, [line for line in err if "finished" in line]) == (0, [])
    assert (run.folder / "policy.safetensors").read_bytes() == (whole.folder / "policy.safetensors").read_bytes()
    assert load_run(run.folder).summary["stopped_at"] is None


def test_the_package_shows_its_interface_and_train_is_a_function_in_any_order():
    assert {"train", "load_run", "load_config", "run_many", "Run"} <= set(dir(purejaxdqn))
    code = (
        "import purejaxdqn, inspect\n"
        "assert inspect.isfunction(purejaxdqn.train)\n"
        "from purejaxdqn.train import main\n"
        "try: purejaxdqn.train('nothing')\n"
        "except purejaxdqn.ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert "nothing is neither a file nor a shipped one" in done.stdout


CONTRACT = {
    *("load_config", "make_train", "run_many", "evaluate_policy", "load_policy", "configure_cpu", "from_gymnax"),
    *("train", "load_run", "Run", "Result", "HParams", "Config", "ConfigError", "UserError"),
}
"""The public names: those of ../shared/contract.md, and the types that their signatures and Raises name."""
RUN = ("config", "summary", "metrics", "policy", "plot", "film")


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_every_public_name_is_imported_from_the_package(name):
    assert name in purejaxdqn.__all__
    assert name in dir(purejaxdqn)
    assert getattr(purejaxdqn, name) is not None


def test_the_package_has_these_names_and_no_others():
    assert set(purejaxdqn.__all__) == CONTRACT
    assert set(RUN) <= set(dir(purejaxdqn.Run)) | set(purejaxdqn.Run.__dataclass_fields__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        purejaxdqn.nothing  # noqa: B018


def test_what_is_wrong_with_a_folder_is_the_packages_own_error(tmp_path):
    for call in (purejaxdqn.load_run, purejaxdqn.load_policy):
        with pytest.raises(purejaxdqn.UserError, match="nothing"):
            call(tmp_path / "nothing")
    assert issubclass(purejaxdqn.ConfigError, purejaxdqn.UserError)


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (("gamma=0.9", "network.hidden=[8, 8]", "optimizer.eps=1e-4"), {}),
        ((["gamma=0.9"], ["network.hidden=[8, 8]", "optimizer.eps=1e-4"]), {}),
        ((), {"gamma": 0.9, "network": {"hidden": (8, 8)}, "optimizer.eps": 1e-4}),
        (("gamma=0.5",), {"gamma": np.float64(0.9), "network.hidden": np.array([8, 8]), "optimizer": {"eps": 1e-4}}),
    ],
)
def test_overrides_are_words_lists_of_words_or_values(arguments, values):
    config = load_config("cartpole_cleanrl", *arguments, **values)
    assert (config.gamma, config.network.hidden, config.optimizer.eps) == (0.9, (8, 8), 1e-4)


def test_values_of_unknown_keys_and_wrong_types_are_named():
    with pytest.raises(ConfigError) as caught:
        load_config("cartpole_cleanrl", gama=0.9, num_seeds="3", **{"network.hidden": 64})
    assert caught.value.lines == (
        "num_seeds: '3' must be an integer",
        "network.hidden: 64 must be a list",
        "gama: unknown key; did you mean 'gamma'?",
    )


def test_a_string_where_a_list_is_wanted_is_one_error():
    with pytest.raises(ConfigError) as caught:
        load_config("cartpole_cleanrl", **{"network.hidden": "64, 64", "env.observe": "0"})
    assert sorted(caught.value.lines) == [
        "env.observe: '0' must be null or a list of numbers from 0 on",
        "network.hidden: '64, 64' must be a list",
    ]
    with pytest.raises(ConfigError) as caught:
        load_config("cartpole_cleanrl", "network.hidden=64 64")
    assert caught.value.lines == ("network.hidden: '64 64' must be a list",)
    assert load_config("cartpole_cleanrl", log="wandb").log == ("wandb",)  # which takes one name, too


def test_a_config_with_faults_is_refused_before_there_is_a_directory(config, tmp_path):
    wrong = Config.model_validate({**config.model_dump(), "total_timesteps": 1000, "schedule": {"warmup": 5000}})
    with pytest.raises(UserError, match=r"total_timesteps: 1000 leaves no steps after schedule\.warmup"):
        api.train(wrong, out=tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())


def test_configure_cpu_after_jax_has_started_warns_and_goes_on():
    code = (
        "import warnings, jax, purejaxdqn; jax.devices()\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always'); purejaxdqn.configure_cpu(devices=2)\n"
        "print(caught[0].message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout == "configure_cpu has no effect: JAX has already started\n"


def test_each_evaluation_may_end_a_run_with_an_early_end():
    config = load_config("cartpole_cleanrl", [*TINY, "total_timesteps=2480", "evaluation.every=40", "stop.return=400"])
    epochs = make_plan(config).epochs
    assert epochs == 60  # by default there would be 20 segments
    assert opening._choose_segments(config, None, None) == (epochs, 1)
    assert opening._choose_segments(config, 1, None) == (1, epochs)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ("cartpole_cleanrl", "cartpole_cleanrl"),
        (["cartpole_cleanrl", "rainbow"], "cartpole_cleanrl+rainbow"),
        (load_config("cartpole_cleanrl"), "CartPole-v1"),
    ],
    ids=["a name", "names", "a Config"],
)
def test_the_default_directory_has_the_name_of_the_config(config, name, monkeypatch):
    def open_run(folders, *_, **__):
        raise UserError(str(next(iter(folders)).parent))

    monkeypatch.setattr("purejaxdqn.runs.opening.open_run", open_run)
    with pytest.raises(UserError, match=rf"^runs/{re.escape(name)}$"):
        api.train(config)
