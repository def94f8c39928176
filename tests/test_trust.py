"""Whose modules are imported: never those of a stranger's run directory unless the user says so."""

import os
import shutil
import sys

import pytest

from purejaxdqn import load_config, load_policy
from purejaxdqn.config import trust
from purejaxdqn.config.reading import read_config
from purejaxdqn.config.trust import SIGNATURE_FILE, check_trust, sign
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.environments.wrappers import EnvironmentRefusedError
from purejaxdqn.evaluate import main as evaluate
from purejaxdqn.export import main as export
from purejaxdqn.plot import main as plot
from purejaxdqn.report import main as report
from purejaxdqn.runs import directory
from purejaxdqn.system.faults import UserError
from purejaxdqn.train import main as train
from tests.conftest import TINY

IMPORTING = {
    "evaluate": (evaluate, "--episodes", "2"),
    "export": (export, "--format", "safetensors"),
    "resume": (train, "--quiet", "total_timesteps=640", "--resume"),
}


@pytest.fixture
def strange(finished_run, tmp_path, monkeypatch):
    """A stranger's run in the working directory, beside the module that it names, which leaves a mark when imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("id: CartPole-v1", "id: strange:World"))
    (tmp_path / "strange.py").write_text(
        "import gymnax\nopen('mark', 'a').close()\nWorld = gymnax.environments.CartPole\n", encoding="utf-8"
    )
    yield run
    sys.modules.pop("strange", None)


@pytest.mark.parametrize("main", [plot, report])
def test_pictures_and_reports_import_nothing(main, strange, quietly):
    assert quietly(main, strange)[0] == 0
    assert not os.path.exists("mark")


@pytest.mark.parametrize("name", IMPORTING)
def test_a_strangers_module_is_named_and_not_imported(name, strange, quietly):
    code, out, err = quietly(*IMPORTING[name], strange)
    assert (code, out, len(err)) == (2, [], 1)
    assert "'strange:World'" in err[0]
    assert "--trust" in err[0]
    assert "imports its module 'strange'" in err[0]
    assert not os.path.exists("mark")
    with pytest.raises(UserError, match="imports its module 'strange'"):
        load_policy(strange)


def test_with_trust_it_is_imported(strange, quietly):
    (strange / "summary.json").unlink()  # whose digest of the config would be a warning
    assert quietly(evaluate, strange, "--episodes", "2", "--trust")[::2] == (0, [])
    assert os.path.exists("mark")
    load_policy(strange, trust=True)


@pytest.mark.parametrize("name", IMPORTING)
def test_nothing_is_imported_from_inside_a_run_directory(name, strange, quietly, monkeypatch):
    shutil.move("strange.py", strange)
    monkeypatch.chdir(strange)
    code, out, err = quietly(*IMPORTING[name], ".", "--trust")
    assert (code, out, len(err)) == (2, [], 1)
    assert "whose module is inside this folder and never imported" in err[0]
    assert not os.path.exists("mark")


@pytest.mark.parametrize("link", ["to the run", "out of the run"])
def test_a_link_does_not_hide_that_a_module_is_inside(link, strange, monkeypatch):
    if link == "to the run":
        shutil.move("strange.py", strange)
        os.symlink(strange / "strange.py", "strange.py")
    else:
        os.symlink(os.path.abspath("strange.py"), strange / "strange.py")
        monkeypatch.chdir(strange)
    with pytest.raises(UserError, match="never imported"):
        check_trust(strange, read_config(strange / "config.yaml").config, trust=True)


def test_a_run_that_this_user_started_is_trusted_wherever_it_is(strange, tmp_path):
    config = read_config("cartpole_cleanrl", [*TINY, "env.id=strange:World"]).config
    folder = directory.create_directory([tmp_path / "mine"], config)
    assert (folder / SIGNATURE_FILE).is_file()
    moved = shutil.move(folder, tmp_path / "moved")
    check_trust(moved, config, trust=False)
    assert (tmp_path / "state" / "purejaxdqn" / "key").stat().st_mode & 0o777 == 0o600
    for override in ("env.id=strange:Other", "env.kwargs.size=3"):
        other = read_config("cartpole_cleanrl", [*TINY, "env.id=strange:World", override]).config
        with pytest.raises(UserError, match="--trust"):
            check_trust(moved, other, trust=False)
    (tmp_path / "state" / "purejaxdqn" / "key").write_bytes(b"another" * 5)
    with pytest.raises(UserError, match="--trust"):
        check_trust(moved, config, trust=False)


def test_a_run_on_gymnax_is_neither_signed_nor_asked_about(strange, tmp_path):
    config = load_config("cartpole_cleanrl", TINY)
    folder = directory.create_directory([tmp_path / "mine"], config)
    assert not (folder / SIGNATURE_FILE).exists()
    check_trust(folder, config, trust=False)


def test_without_a_place_for_a_key_a_run_stays_unsigned(strange, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    config = read_config(strange / "config.yaml").config
    sign(strange, config)
    assert not (strange / SIGNATURE_FILE).exists()
    assert not trust._is_signed(strange, config)


@pytest.mark.parametrize("env_id", ["__main__:World", "json.__main__:World", "purejaxdqn.__main__:World"])
def test_a_program_is_never_imported(env_id):
    with pytest.raises(EnvironmentRefusedError, match="is a program, which is never imported"):
        make_environment(env_id)
