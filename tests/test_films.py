"""Episodes drawn: the right episode, the right number of pictures, and what is in them."""

import itertools
import json
import shutil
import subprocess
from types import SimpleNamespace

import gymnasium
import imageio_ffmpeg
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

from purejaxdqn import load_config
from purejaxdqn.config.building import make_algorithm, policy_shapes
from purejaxdqn.core.evaluation import greedy_returns
from purejaxdqn.core.keys import episodes_key
from purejaxdqn.environments import registry
from purejaxdqn.environments.batched import Single
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.environments.suites import sparse
from purejaxdqn.evaluate import main as evaluate
from purejaxdqn.pictures import films
from purejaxdqn.pictures.drawings import CLASSIC, choose_drawing
from purejaxdqn.policies.episodes import Episode, record_episode
from purejaxdqn.system.faults import UserError
from tests.conftest import TINY, TRAINABLE, first_with_each_environment, jit_barely, tiny_for


def pictures_of(path):
    with Image.open(path) as film:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]


def test_a_gif_shows_the_episode_that_evaluation_counts(finished_run, quietly, tmp_path):
    path = tmp_path / "out.gif"
    arguments = [finished_run, "--episodes", 1, "--seed", 5, "--seed-index", 2]
    code, out, err = quietly(evaluate, *arguments, "--json", "--gif", path)
    assert code == 0
    score = json.loads("".join(out))["mean"]
    steps = int(score)  # CartPole pays 1 a step
    assert err == [f"{path}: agent 2, return {score:g} in {steps} steps, terminated; {steps + 1} frames"]
    pictures = pictures_of(path)
    assert len(pictures) == steps + 1 > 5
    assert all(np.any(one != other) for one, other in itertools.pairwise(pictures))
    body = [picture[films._HEADER :] for picture in pictures]
    assert all(np.any(one != other) for one, other in itertools.pairwise(body))  # not the text alone
    with Image.open(path) as film:
        assert film.info["duration"] == 30  # GIFs count in hundredths of a second
        assert film.info["loop"] == 0


def test_a_film_shows_the_evaluated_episode_where_steps_draw_random_numbers(monkeypatch, jitted_barely):
    """Rewards are random numbers; an episode that resets in the film alone would show others."""

    def step(key, state, action, params):
        return jnp.zeros(3), state, jax.random.uniform(key), jnp.bool_(False), jnp.bool_(False)

    single = Single("noise", 2, lambda key, params: (jnp.zeros(3), 0), step, time_limit=6)
    config = load_config("cartpole_cleanrl", TINY)
    monkeypatch.setattr(registry, "underlying_environment", lambda *_: single)
    env = make_environment(**config.env.making())
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), policy_shapes(config, env))

    def values(view):
        return jnp.zeros((1, 2)), view.memory

    play = jit_barely(lambda key: greedy_returns(env, values, (), key, episodes=1))
    film = record_episode(config, params, seed=5)
    np.testing.assert_allclose(film.rewards.sum(), play(episodes_key(5)), rtol=1e-6)
    assert len(film.rewards) == 6 and film.ending == "cut off by the time limit"


@pytest.mark.slow
def test_an_mp4_holds_the_same_episode(finished_run, quietly, tmp_path):
    path = tmp_path / "out.mp4"
    code, out, err = quietly(evaluate, finished_run, "--episodes", 1, "--gif", path)
    assert (code, len(out)) == (0, 4)  # three agents and the mean; what was drawn stands on standard error
    frames = int(err[0].rsplit("; ", maxsplit=1)[1].split()[0])
    decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = np.frombuffer(subprocess.run(decode, capture_output=True, check=True).stdout, np.uint8)
    shown = shown.reshape(-1, 430, 600, 3)
    assert len(shown) == frames - 1 + round(films._LAST_SECONDS * 30)
    assert np.mean(shown[0] != shown[-1]) > 0.001
    np.testing.assert_allclose(shown[0][:5, :5], films._PAPER * np.ones((5, 5, 3)), atol=12)


def test_a_film_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    config, episode = walk(9)
    right = films._with_header

    def failing(*these):
        if these[2].startswith("step 5"):
            raise OSError(28, "No space left on device")
        return right(*these)

    monkeypatch.setattr(films, "_with_header", failing)
    for suffix in films.SUFFIXES:
        with pytest.raises(UserError, match="cannot be written: No space left on device"):
            films.write_film(tmp_path / f"out{suffix}", episode, config, seed_index=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", films.SUFFIXES)
def test_what_a_kill_leaves_of_a_film_does_not_have_its_name(tmp_path, monkeypatch, suffix):
    """And is no obstacle to the film."""
    path, seen = tmp_path / f"out{suffix}", []
    right = films._with_header

    def looking(*these):
        seen.append(path.exists())
        return right(*these)

    monkeypatch.setattr(films, "_with_header", looking)
    (tmp_path / f".out{suffix}.part").write_text("half")
    config, episode = walk(9)
    films.write_film(path, episode, config, seed_index=0)
    assert set(seen) == {False}
    assert list(tmp_path.iterdir()) == [path]


def walk(steps, env_id="Breakout-MinAtar"):
    """An episode in which one cell of a picture moves on at each step and every other step pays."""
    config = load_config("cartpole_cleanrl", [*TINY, f"env.id={env_id}"])
    obs = np.zeros((steps + 1, 100, 4), bool)
    obs[np.arange(steps + 1), np.arange(steps + 1) % 100, 1] = True
    return config, Episode(
        obs.reshape(-1, 10, 10, 4), [None] * steps, np.resize([1.0, 0.0], steps), "cut off by the time limit"
    )


@pytest.mark.parametrize(("steps", "stride", "shown"), [(9, 1, [*range(10)]), (35, 4, [*range(0, 35, 4), 35])])
def test_of_a_long_episode_every_nth_step_is_drawn_and_the_last(steps, stride, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(films, "MAX_FRAMES", 10)
    texts = []
    right = films._with_header
    monkeypatch.setattr(films, "_with_header", lambda *these: texts.append(these[1:]) or right(*these))
    config, episode = walk(steps)
    film = films.write_film(tmp_path / "out.gif", episode, config, seed_index=7)
    assert film == (len(shown), stride, len(episode.rewards))
    assert texts == [("Breakout-MinAtar, agent 7", f"step {n}   return {(n + 1) // 2}") for n in shown]
    pictures = pictures_of(tmp_path / "out.gif")
    assert len(pictures) == len(shown)
    for n, picture in zip(shown, pictures, strict=True):
        row, column = divmod(n % 100, 10)
        cell = picture[films._HEADER + 40 * row + 20, 10 + 40 * column + 20]
        np.testing.assert_allclose(cell, (230, 159, 0), atol=8)  # the second channel's colour


def test_return_and_step_are_written_in_the_picture():
    blank = Image.new("RGB", (420, 100))
    frames = [np.asarray(films._with_header(blank, "x", text)) for text in ("", "step 1", "step 2")]
    header = [np.any(frame[: films._HEADER] != frames[0][: films._HEADER], axis=-1) for frame in frames]
    assert header[1].sum() > 50
    assert np.any(header[1] != header[2])
    assert all(np.all(frame[films._HEADER :] == frames[0][films._HEADER :]) for frame in frames)


STATES = {
    "CartPole-v1": ([0.5, 0.1, 0.1, -0.2], [0.5, 0.1, 0.1, -0.2]),
    "MountainCar-v0": ([-0.3, 0.01], [-0.3, 0.01]),
    "Acrobot-v1": ([np.cos(2.5), np.sin(2.5), np.cos(-1), np.sin(-1), 0.3, 0.2], [2.5, -1, 0.3, 0.2]),
}


def after_a_step(env_id, state):
    """What one of our environments shows after a step, and the state that it is in then."""
    single = sparse.make(env_id.removeprefix("sparse:"), {})
    obs, state, *_ = single.step(jax.random.key(0), state, jnp.int32(2), single.params)
    return np.asarray(obs), np.asarray(state)


OURS = {
    "sparse:MountainCar": lambda: sparse.Car(*map(jnp.float32, (-0.3, 0.01))),
    "sparse:CartPoleSwingUp": lambda: sparse.Pole(*map(jnp.float32, (1.5, 0.6, 2.5, 0.3))),
}


@pytest.mark.parametrize("env_id", CLASSIC)
def test_classic_control_looks_as_gymnasium_draws_it(env_id):
    obs, state = STATES[env_id] if env_id in STATES else after_a_step(env_id, OURS[env_id]())
    env = gymnasium.make(CLASSIC[env_id].gymnasium_id, render_mode="rgb_array").unwrapped
    env.reset(seed=1)
    if env_id == "sparse:CartPoleSwingUp":
        env.x_threshold = 3.0  # where the cart leaves its track
    env.state = np.array(state)
    config = load_config("cartpole_cleanrl", [*TINY, f"env.id={env_id}"])
    ours = choose_drawing(config, np.array([obs])).draw(np.float32(obs), None)
    np.testing.assert_array_equal(np.asarray(ours), env.render())


def test_a_longer_pole_is_drawn_longer():
    drawn = []
    for length in (0.5, 1.0):
        config = load_config("cartpole_cleanrl", [*TINY, f"env.params.length={length}"])
        drawn.append(np.asarray(choose_drawing(config, np.zeros((1, 4))).draw(np.zeros(4), None)))
    pole = [np.all(picture == (202, 152, 101), axis=-1).any(1).sum() for picture in drawn]
    assert pole[1] > 1.8 * pole[0] > 0


def centre(picture, place, cells):
    size = picture.width // cells
    return picture.getpixel((place[1] * size + size // 2, place[0] * size + size // 2))


@pytest.mark.parametrize(
    ("env_id", "obs", "state", "cells", "places"),
    [
        ("FourRooms-misc", np.array([4, 1, 8, 9]), None, 13, [(4, 1), (8, 9)]),
        ("MetaMaze-misc", np.zeros(15), SimpleNamespace(pos=[3, 5], goal=[9, 1]), 11, [(3, 5), (9, 1)]),
        (
            "MetaMaze-misc",
            np.zeros(15),
            SimpleNamespace(env_state=SimpleNamespace(env_state=SimpleNamespace(pos=[3, 5], goal=[9, 1]))),
            11,
            [(3, 5), (9, 1)],
        ),
        ("FrozenLake-misc", np.array(6), None, 4, [(1, 2), (3, 3)]),
    ],
)
def test_a_grid_world_shows_its_agent_its_goal_and_its_walls(env_id, obs, state, cells, places):
    config = load_config("cartpole_cleanrl", [*TINY, f"env.id={env_id}"])
    picture = choose_drawing(config, obs[None]).draw(obs, state)
    assert [centre(picture, place, cells) for place in places] == [(31, 95, 168), (64, 156, 92)]
    corner = centre(picture, (0, 0), cells)
    assert corner == ((205, 208, 214) if env_id == "FrozenLake-misc" else (24, 27, 33))


DISCRETE = [name for name, path in TRAINABLE.items() if "env: {id" in path.read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("name", first_with_each_environment(DISCRETE))
def test_every_environment_with_a_config_can_be_drawn(name, tmp_path, monkeypatch, jitted_barely):
    monkeypatch.setattr(films, "MAX_FRAMES", 40)
    config = load_config(name, tiny_for(name))
    algorithm = make_algorithm(config, make_environment(**config.env.making()))
    params = jax.jit(lambda key: algorithm.policy(algorithm.init(config.hparams(), key)))(jax.random.key(0))
    episode = record_episode(config, params, seed=0)
    film = films.write_film(tmp_path / "out.gif", episode, config, seed_index=0)
    pictures = pictures_of(tmp_path / "out.gif")
    assert len(pictures) == film.frames <= films.MAX_FRAMES + 1
    assert all(np.any(one != other) for one, other in itertools.pairwise(pictures))


@pytest.mark.parametrize(
    ("env_id", "shape"), [("Catch-bsuite", (10, 5)), ("UmbrellaChain-bsuite", (3,)), ("BernoulliBandit-misc", (4,))]
)
def test_boards_and_vectors_have_a_drawing_that_follows_them(env_id, shape):
    config = load_config("cartpole_cleanrl", [*TINY, f"env.id={env_id}"])
    obs = np.zeros((3, *shape))
    obs[1].flat[1], obs[2].flat[1] = 0.4, -1.0
    draw = choose_drawing(config, obs).draw
    blank, some, more = (np.asarray(draw(one, None)) for one in obs)
    assert np.any(blank != some)
    assert np.any(some != more)
    np.testing.assert_array_equal(blank, draw(obs[0], None))


def test_numbers_that_never_change_can_be_drawn():
    config = load_config("cartpole_cleanrl", [*TINY, "env.id=SimpleBandit-bsuite"])
    for obs in (np.ones((2, 1, 1), bool), np.zeros((2, 5))):
        assert choose_drawing(config, obs).draw(obs[0], None).width > 10


def test_of_a_long_vector_the_first_numbers_are_drawn_and_the_rest_counted():
    config = load_config("cartpole_cleanrl", [*TINY, "env.id=UmbrellaChain-bsuite"])
    sizes = [choose_drawing(config, np.ones((1, n))).draw(np.ones(n), None).height for n in (39, 40, 41, 1000)]
    assert sizes == [16 * 39 + 8, 16 * 40 + 8, 16 * 41 + 8, 16 * 41 + 8]


def test_pictures_that_are_colours_already_are_shown_as_they_are():
    config = load_config("cartpole_cleanrl", [*TINY, "env.id=Pong-misc"])
    obs = np.random.default_rng(0).integers(0, 256, (1, 20, 10, 3)).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(choose_drawing(config, obs).draw(obs[0], None))[::20, ::20], obs[0])


@pytest.fixture
def runs(finished_run, tmp_path, monkeypatch):
    """A working directory with a run, one that is not finished, and a file; nothing in it may be played."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("purejaxdqn.policies.policies.evaluate_policy", lambda *_, **__: pytest.fail("it played"))
    for name in ("run", "unfinished"):
        shutil.copytree(finished_run, name)
    (tmp_path / "unfinished" / "policy.safetensors").unlink()
    (tmp_path / "taken.gif").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--gif", "out.gif"], "not a finished run"),
        (["unfinished", "--gif", "out.gif"], "not a finished run"),
        (["run", "--gif", "out.avi"], "out.avi must end in .gif or .mp4"),
        (["run", "--gif", "out"], "out must end in .gif or .mp4"),
        (["run", "--gif", "taken.gif"], "taken.gif exists"),
        (["run", "--gif", "none/out.gif"], "there is no directory none"),
        (["run", "--gif", "a" * 300 + ".gif"], "cannot be written"),
        (["run", "--gif", "out.gif", "--seed-index", "3"], "3 is not an agent"),
        (["run", "--gif", "out.gif", "--backend", "gymnasium"], "leave out --backend"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_played(arguments, message, runs, quietly):
    before = sorted(runs.rglob("*"))
    code, out, err = quietly(evaluate, *arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert sorted(runs.rglob("*")) == before
    assert (runs / "taken.gif").read_text() == "mine"


@pytest.mark.parametrize(("name", "needs"), [("out.gif", "pygame"), ("out.mp4", "imageio_ffmpeg")])
def test_a_missing_extra_is_refused_with_the_line_that_installs_it(name, needs, runs, quietly, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    before = sorted(runs.rglob("*"))
    code, _, err = quietly(evaluate, "run", "--gif", name)
    assert (code, len(err)) == (2, 1)
    assert f"needs {needs}: pip install 'purejaxdqn[video]'" in err[0]
    assert sorted(runs.rglob("*")) == before
