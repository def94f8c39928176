"""The gallery of trained agents, and ``evaluate`` of an exported policy, wherever it is."""

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import load_file, save_file

from benchmarks import gallery
from purejaxdqn import load_policy
from purejaxdqn.environments.importing import is_installed
from purejaxdqn.environments.listed import suite_of
from purejaxdqn.evaluate import main as evaluate
from purejaxdqn.export import main as export
from purejaxdqn.policies.gallery import find_agent, shipped_agents
from purejaxdqn.system.faults import UserError
from tests.conftest import ROOT, mostly_slow
from tests.test_trust import strange  # noqa: F401

ROWS = {row["agent"]: row for row in gallery.read_rows()}
CARDS = {
    name: json.loads((folder / "policy.json").read_text(encoding="utf-8")) for name, folder in shipped_agents().items()
}


@pytest.fixture(scope="module")
def run(finished_run, tmp_path_factory):
    """The run with another agent 1, whose Q-values have the opposite sign; agents of a tiny run all act alike."""
    folder = shutil.copytree(finished_run, tmp_path_factory.mktemp("changed") / "run")
    weights = {name: leaf.copy() for name, leaf in load_file(folder / "policy.safetensors").items()}
    for name in [name for name in weights if "/Dense_2/" in name]:
        weights[name][1] *= -1
    save_file(weights, folder / "policy.safetensors")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    del summary["policy_sha256"], summary["summary_sha256"]
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """Agent 1 of the run, as weights alone."""
    folder = tmp_path_factory.mktemp("exported") / "policy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("purejaxdqn.system.runtime.configure_cpu", lambda: None)
        assert export([str(run), "--format", "safetensors", "--seed-index", "1", "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("backend", ["gymnax", "gymnasium"])
def test_an_exported_policy_plays_as_the_agent_of_its_run(backend, exported, run, quietly):
    def returns(*arguments):
        code, out, err = quietly(evaluate, *arguments, "--episodes", 7, "--backend", backend, "--json")
        assert code == 0, err
        return json.loads(out[0])["returns"]

    mine = returns(exported)
    assert mine == returns(run, "--seed-index", 1)
    assert mine != returns(run, "--seed-index", 0)


def test_an_exported_policy_is_filmed_and_told_in_words(exported, quietly, tmp_path):
    film = tmp_path / "film.gif"
    code, out, err = quietly(evaluate, exported, "--episodes", 2, "--gif", film)
    assert (code, len(out)) == (0, 2)
    assert out[0].startswith("agent 0: mean ")
    assert str(film) in err[-1]
    assert film.read_bytes()[:4] == b"GIF8"


@pytest.mark.parametrize(("steps", "frames"), [(3, 4), (100_000, None)])
def test_a_film_may_show_the_first_steps_alone(steps, frames, exported, quietly, tmp_path):
    film = tmp_path / "film.gif"
    code, _, err = quietly(evaluate, exported, "--episodes", 2, "--gif", film, "--gif-steps", steps)
    assert code == 0
    assert ("4 frames of its first 3 steps" in err[-1]) == bool(frames)
    with Image.open(film) as shown:
        assert shown.n_frames == frames or (not frames and shown.n_frames > 4)


@pytest.mark.parametrize("options", [("--gif-steps", 3), ("--gif", "film.gif", "--gif-steps", 0)])
def test_steps_of_a_film_that_make_no_sense_are_refused(options, exported, quietly):
    code, out, err = quietly(evaluate, exported, *options)
    assert (code, out, len(err)) == (2, [], 1)
    assert "--gif-steps: " in err[0]


def change(folder, name, old, new):
    text = (folder / name).read_text(encoding="utf-8")
    assert old in text
    (folder / name).write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda folder: (folder / "policy.safetensors").write_bytes(b""), "policy.safetensors is damaged"),
        (lambda folder: (folder / "config.yaml").unlink(), "config.yaml"),
        (lambda folder: change(folder, "config.yaml", "gamma: 0.99", "gamma: 0.98"), "does not match the digest"),
        (lambda folder: change(folder, "policy.json", '"n": 2', '"n": 3'), "does not fit the network"),
        (
            lambda folder: change(folder, "policy.json", '"env_id": "CartPole-v1"', '"env_id": "Catch-bsuite"'),
            "was trained on Catch-bsuite with 2 actions",
        ),
    ],
    ids=["weights", "no config", "another config", "actions", "another environment"],
)
def test_a_damaged_exported_folder_is_refused_in_a_line(edit, message, exported, quietly, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "policy")
    edit(folder)
    code, out, err = quietly(evaluate, folder, "--episodes", 2)
    assert (code, out) == (2, [])
    assert len(err) <= 2 and all(line.startswith("error: ") for line in err)
    assert any(message in line for line in err)


def test_an_exported_folder_has_agent_0_alone(exported, quietly):
    code, _, err = quietly(evaluate, exported, "--seed-index", 1)
    assert (code, len(err)) == (2, 1)
    assert "it has no agent 1, only agent 0" in err[0]


def test_playing_a_strangers_export_imports_its_module_with_trust_alone(exported, strange, quietly):  # noqa: F811
    """Its digest of the config is left out, as an older export would."""
    folder = shutil.copytree(exported, strange.parent / "policy")
    change(folder, "config.yaml", "id: CartPole-v1", "id: strange:World")
    card = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
    del card["config_sha256"]
    (folder / "policy.json").write_text(json.dumps(card | {"env_id": "strange:World"}), encoding="utf-8")
    code, _, err = quietly(evaluate, folder, "--episodes", 2)
    assert (code, len(err)) == (2, 1)
    assert "--trust" in err[0]
    assert not os.path.exists("mark")
    assert quietly(evaluate, folder, "--episodes", 2, "--trust")[0] == 0
    assert os.path.exists("mark")


def test_a_name_of_the_gallery_is_found_from_anywhere_and_a_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_agent(gallery.Path("agents/catch")) == ROOT / "agents" / "catch"
    load_policy("agents/catch")
    with pytest.raises(UserError, match="did you mean 'catch'"):
        find_agent(gallery.Path("agents/cach"))
    assert find_agent(gallery.Path("agent/cach")) == gallery.Path("agent/cach")
    (tmp_path / "agents" / "catch").mkdir(parents=True)
    assert find_agent(gallery.Path("agents/catch")) == gallery.Path("agents/catch")


def test_the_gallery_is_small():
    assert 0 < gallery.total_size(gallery.AGENTS_DIRECTORY) <= gallery.SIZE_LIMIT


def test_every_agent_of_the_table_is_there_with_its_film_and_its_card():
    assert list(ROWS) == [name for name in gallery.AGENTS if name in ROWS]
    assert (
        sorted(ROWS)
        == sorted(CARDS)
        == sorted(path.name for path in gallery.AGENTS_DIRECTORY.iterdir() if path.is_dir())
    )
    for name, row in ROWS.items():
        folder, card = gallery.AGENTS_DIRECTORY / name, CARDS[name]
        assert gallery.film_of(folder).stat().st_size <= gallery.FILM_LIMIT
        assert (folder / "README.md").is_file()
        assert card["evaluation"]["mean_return"] == pytest.approx(float(row["return"]))
        assert (card["env_id"], card["training"]["seed_index"]) == (row["environment"], int(row["seed_index"]))
        assert int(row["seed_index"]) == gallery.median_seed(json.loads(row["returns"]))
        assert row["command"] == gallery.AGENTS[name].command


@pytest.mark.parametrize("name", mostly_slow(sorted(CARDS), fast=["catch"]))
def test_an_agent_plays_to_the_score_of_its_card(name, quietly):
    """Within four standard errors of both means, and a hundredth for games that draw no random number."""
    suite, card = suite_of(CARDS[name]["env_id"]), CARDS[name]["evaluation"]
    if suite and not is_installed(suite):
        pytest.skip(f"{suite} is not installed")
    code, out, _ = quietly(evaluate, gallery.AGENTS_DIRECTORY / name, "--episodes", 100, "--seed", 17, "--json")
    assert code == 0
    returns = np.array(json.loads(out[0])["returns"])
    error = returns.std() * np.sqrt(1 / 100 + 1 / card["episodes"])
    assert abs(returns.mean() - card["mean_return"]) <= 4 * error + 0.01 * abs(card["mean_return"])


@pytest.mark.parametrize(
    ("returns", "index"),
    [([3.0, 1.0, 2.0], 2), ([4.0, 1.0, 2.0, 3.0], 2), ([5.0, 5.0, 5.0], 0), ([None, 2.0, 1.0], 2), ([7.0], 0)],
)
def test_the_median_seed_is_taken_and_not_the_best(returns, index):
    assert gallery.median_seed(returns) == index


@pytest.mark.parametrize("limit", [4_000, 1_000_000])
def test_a_film_is_made_smaller_and_cut_after_what_the_limit_holds(limit, tmp_path):
    frames = []
    for k in range(40):  # only the last one has this blue
        frame = Image.new("RGB", (560, 400), "white")
        ImageDraw.Draw(frame).rectangle([10 * k, 0, 10 * k + 80, 400], fill="red" if k < 39 else "blue")
        frames.append(frame)
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:], duration=[40] * 39 + [1500])
    gallery.shrink(tmp_path / "film.gif", tmp_path / "small.gif", limit=limit)
    size = (tmp_path / "small.gif").stat().st_size
    assert limit / 2 < size <= limit or limit == 1_000_000
    with Image.open(tmp_path / "small.gif") as small:
        count = small.n_frames
        assert small.size == (280, 200)
        assert 2 < count < 40 if limit == 4_000 else count == 40
        for k in range(count):  # every step of the first ones
            small.seek(k)
            assert small.info["duration"] == (1500 if k == count - 1 else 40)
            red, _, blue = small.convert("RGB").getpixel((5 * k + 20, 100))
            assert (blue > red) == (k == 39)


def test_a_row_of_the_table_is_replaced_and_the_order_kept(tmp_path):
    table, summary = tmp_path / "gallery.csv", {"env_id": "x", "total_timesteps": 9, "final_eval_return": [1.0, 2.0]}
    for name, index in (("pong", 0), ("catch", 1), ("pong", 1)):
        gallery.write_row(table, name, gallery.AGENTS[name], summary, index)
    assert [(row["agent"], row["return"]) for row in gallery.read_rows(table)] == [("catch", "2.0"), ("pong", "2.0")]


def test_the_page_shows_every_agent():
    page = gallery.page()
    for name, row in ROWS.items():
        assert f"## {name}\n" in page and row["command"] in page


@pytest.mark.parametrize("commit", ["abc1234", "abc1234-dirty"])
def test_all_agents_are_trained_before_the_first_is_exported(commit, monkeypatch, capsys, tmp_path):
    """An export changes the tree, and the card of an agent that is trained afterwards would say so."""
    order = []
    monkeypatch.setattr(gallery.harness, "commit", lambda: commit)
    monkeypatch.setattr(gallery, "AGENTS_DIRECTORY", tmp_path)
    monkeypatch.setattr(gallery, "train", lambda name, *_: order.append(("train", name)))
    monkeypatch.setattr(gallery, "add", lambda name, *_: order.append(("add", name)))
    monkeypatch.setattr("sys.argv", ["gallery", "catch", "pong", "--runs", str(tmp_path)])
    gallery.main()
    assert order == [("train", "catch"), ("train", "pong"), ("add", "catch"), ("add", "pong")]
    assert ("not committed" in capsys.readouterr().err) == commit.endswith("-dirty")
