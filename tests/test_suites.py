"""One contract for the environments of every suite; where a suite is not installed, its tests are skipped."""

import functools
import importlib
import importlib.metadata
import importlib.util
import itertools
import math
import re
import subprocess
import sys
import warnings
from collections import Counter
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import suites
from purejaxdqn import load_config
from purejaxdqn.config.building import Own as Parts
from purejaxdqn.config.building import make_program
from purejaxdqn.config.reading import read_config
from purejaxdqn.config.trust import check_trust
from purejaxdqn.config.yaml_text import ConfigError
from purejaxdqn.core.draws import NO_LEARNING, draw, random_action
from purejaxdqn.core.environment import all_legal, checked_environment
from purejaxdqn.core.keys import data_of_keys
from purejaxdqn.core.rollout import rollout, start_actors
from purejaxdqn.environments import registry
from purejaxdqn.environments.batched import batched
from purejaxdqn.environments.importing import is_installed
from purejaxdqn.environments.listed import GYMNAX, LISTED, SUITES, suite_of, why_refused
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.pictures.films import write_film
from purejaxdqn.policies.episodes import Episode
from tests.conftest import PQN, ROOT, SUITES_OF_CONFIGS, TRAINABLE, jit_barely, jit_quickly, mostly_slow


class Case(NamedTuple):
    env_id: str
    kwargs: dict
    steps: int
    envs: int
    legal_only: bool = True
    resets: int | None = None
    slow: bool = False


CASES = (
    Case("xminigrid:MiniGrid-Empty-5x5", {}, 250, 16, slow=True),
    Case("xminigrid:MiniGrid-DoorKey-5x5", {}, 500, 64, slow=True),
    Case("xminigrid:MiniGrid-EmptyRandom-5x5", {"time_limit": 30}, 100, 16, resets=3, slow=True),
    Case("jumanji:Snake-v1", {"num_rows": 6, "num_cols": 6, "time_limit": 12}, 60, 16, legal_only=False),
    Case("jumanji:Snake-v1", {"num_rows": 4, "num_cols": 4, "time_limit": 60}, 400, 16, slow=True),
    Case("jumanji:Game2048-v1", {"time_limit": 100}, 250, 8),
    Case("jumanji:Maze-v0", {}, 250, 16, slow=True),
    Case("pgx:2048", {"time_limit": 100}, 250, 8),
    Case("octax:brix", {"time_limit": 90}, 400, 3, slow=True),
    Case("octax:pong", {"time_limit": 250}, 600, 3, slow=True),
    Case("craftax:Craftax-Classic-Symbolic-v1", {"time_limit": 150}, 400, 4, slow=True),
)


SAMPLE = {
    *("xminigrid:MiniGrid-MemoryS8", "xminigrid:MiniGrid-FourRooms", "jumanji:Knapsack-v1", "jumanji:TSP-v1"),
    *("jumanji:SlidingTilePuzzle-v0", "octax:squash", "pgx:2048", "craftax:Craftax-Classic-Symbolic-v1"),
}


def needs(env_id):
    return pytest.mark.skipif(not is_installed(suite_of(env_id)), reason=f"{suite_of(env_id)} is not installed")


def named(case):
    illegal, shared = "" if case.legal_only else " with illegal actions", " with shared resets" if case.resets else ""
    return f"{case.env_id}{illegal}{shared}"


def marked(cases):
    for case in cases:
        marks = [needs(case.env_id), *([pytest.mark.slow] if case.slow else [])]
        yield pytest.param(case, marks=marks, id=named(case))


class Own(NamedTuple):
    """A suite's own functions of one environment, called as its documentation says, without the adapter."""

    reset: object  # key -> obs
    step: object  # state, action, key -> obs, reward, whether it ended, legal actions or ()


def own_functions(case):
    suite, name = case.env_id.split(":")
    kwargs = {key: value for key, value in case.kwargs.items() if key != "time_limit"}
    if suite == "xminigrid":
        env, params = importlib.import_module("xminigrid").make(name, **kwargs)

        def step(state, action, key):
            after = env.step(params, state, action)
            return after.observation, after.reward, after.last() & (after.discount == 0), ()

        return Own(lambda key: env.reset(params, key).observation, step)
    if suite == "jumanji":
        limit = {} if name == "Game2048-v1" else {"time_limit": 10**9}  # which it would report as a termination
        env = importlib.import_module("jumanji").make(name, **kwargs, **limit)

        def see(obs):
            if name == "Maze-v0":
                rows, columns = jnp.indices(obs.walls.shape)
                places = [(rows == place.row) & (columns == place.col) for place in obs[:2]]
                return jnp.stack([obs.walls, *places], -1)
            return obs.board if name == "Game2048-v1" else obs.grid

        def step(state, action, key):
            _, after = env.step(state[0], action)
            return see(after.observation), after.reward, after.last(), after.observation.action_mask

        return Own(lambda key: see(env.reset(key)[1].observation), step)
    if suite == "pgx":
        env = importlib.import_module("pgx").make(name)

        def step(state, action, key):
            after = env.step(state, action, key)
            return after.observation, after.rewards[0], after.terminated, after.legal_action_mask

        return Own(lambda key: env.init(key).observation, step)
    if suite == "octax":
        env, _ = importlib.import_module("octax.environments").create_environment(name)

        def step(state, action, key):
            _, frames, reward, terminated, _, _ = env.step(state, action)
            return frames.T.astype(bool), reward, terminated, ()

        return Own(lambda key: env.reset(key)[1].T.astype(bool), step)
    env = importlib.import_module("craftax.craftax_env").make_craftax_env_from_name(name, auto_reset=False)

    def step(state, action, key):
        obs, _, reward, done, _ = env.step(key, state, action, env.default_params)
        return obs, reward, done, ()

    return Own(lambda key: env.reset(key, env.default_params)[0], step)


class Played(NamedTuple):
    """T steps of E environments."""

    before: object  # leaves [T, E, ...]: the actors before each step
    steps: object  # leaves [T, E, ...]
    keys: jax.Array  # [T, E]: of the steps
    episodes: object  # at the end


def jit_for(case, function):
    """A step of octax runs an emulator for so long that it pays to compile it better."""
    return (jit_quickly if suite_of(case.env_id) == "octax" else jit_barely)(function)


@functools.cache
def _played(index):
    case = CASES[index]
    env = checked_environment(
        make_environment(case.env_id, case.kwargs, legal_only=case.legal_only, resets=case.resets)
    )
    draws = draw(jax.random.key(1), case.steps, rollout=1, num_envs=case.envs, learning=NO_LEARNING)[0]

    def act(view, draws, env_step):
        return random_action(draws.choice, view.legal, env.num_actions), ()

    def play(draws):
        def body(actors, draws):
            after, happened = rollout(env, env.default_params, act, actors, draws)
            return after, (actors, jax.tree.map(lambda leaf: leaf[0], happened.steps))

        start = start_actors(env, env.default_params, jax.random.key(0), num_envs=case.envs)
        after, (before, steps) = jax.lax.scan(body, start, draws)
        return before, steps, after.episodes

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before, steps, episodes = jit_for(case, play)(draws)
    return env, Played(before, jax.device_get(steps), draws.env_keys[:, 0], jax.device_get(episodes))


@pytest.fixture
def played(request):
    return _played(CASES.index(request.getfixturevalue("case")))


@pytest.mark.parametrize("case", marked(CASES))
def test_an_adapter_shows_what_its_suite_does(case, played):
    """Observations before any reset, rewards, terminations and legal actions are those of the suite's own step."""
    _, seen = played
    own = own_functions(case)
    step_keys = jax.vmap(jax.vmap(jax.random.split))(seen.keys)[:, :, 1]
    done = (seen.steps.terminated | seen.steps.truncated)[:-1]
    t = done.sum(axis=1).argmax()  # a step in which many episodes end
    assert done[t].any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what octax's own step says
        step = jit_for(case, jax.vmap(jax.vmap(own.step)))
        theirs = step(seen.before.env_state.env_state, seen.steps.action, step_keys)
        resets = jit_for(case, jax.vmap(own.reset))(jax.vmap(jax.random.split)(seen.keys[t])[:, 0])
    next_obs, reward, ended, legal = jax.device_get(theirs)
    np.testing.assert_allclose(seen.steps.next_obs, next_obs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(seen.steps.reward, reward, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(seen.steps.terminated, ended)
    if case.legal_only and not isinstance(legal, tuple):
        np.testing.assert_array_equal(seen.steps.next_legal, legal)
    shown, begun = np.asarray(seen.before.obs[t + 1]), np.asarray(resets)
    taken = np.flatnonzero(done[t]) if case.resets is None else np.arange(done[t].sum()) % case.resets
    np.testing.assert_allclose(shown[done[t]], begun[taken], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(shown[~done[t]], seen.steps.next_obs[t][~done[t]])


@pytest.mark.parametrize("case", marked(CASES))
def test_both_endings_are_told_apart_and_the_time_limit_is_counted(case, played):
    env, seen = played
    terminated, truncated = seen.steps.terminated, seen.steps.truncated
    assert terminated.any()
    assert truncated.any()
    length = np.zeros(case.envs, int)
    returns, finished = np.zeros(case.envs), []
    for t in range(case.steps):
        length += 1
        returns += seen.steps.reward[t]
        np.testing.assert_array_equal(truncated[t], length == env.time_limit)
        for i in np.flatnonzero(terminated[t] | truncated[t]):
            finished.append((i, returns[i], length[i]))
            length[i] = returns[i] = 0
    episodes = seen.episodes
    assert episodes.finished.sum() == len(finished)
    np.testing.assert_allclose(episodes.return_sum.sum(), sum(one[1] for one in finished), rtol=1e-4, atol=1e-4)
    assert episodes.length_sum.sum() == sum(one[2] for one in finished)
    np.testing.assert_array_equal(episodes.episode_length, length)


@pytest.mark.parametrize("case", marked(CASES))
def test_no_illegal_action_is_taken_while_there_is_a_legal_one(case, played):
    _, seen = played
    legal = seen.steps.legal
    assert isinstance(legal, tuple) == (not case.legal_only or not LISTED[case.env_id].illegal)
    if isinstance(legal, tuple):
        return
    taken = np.take_along_axis(legal, seen.steps.action[..., None], -1)[..., 0]
    assert (taken | ~legal.any(-1)).all()
    assert not legal.all()


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["pgx:2048", "jumanji:Snake-v1"])
def test_no_run_on_a_suite_takes_an_illegal_action(env_id):
    """In training, with random and greedy actions, and in evaluation: one would make a return infinite."""
    if not is_installed(suite_of(env_id)):
        pytest.skip(f"{suite_of(env_id)} is not installed")
    single = registry.underlying_environment(env_id, {"time_limit": 25})

    def step(key, state, action, params):
        legal = single.legal(state, params)
        obs, state, reward, terminated, truncated = single.step(key, state, action, params)
        # Where no action is legal, which ends Snake, any may be taken.
        return obs, state, jnp.where(legal[action] | ~legal.any(), reward, jnp.inf), terminated, truncated

    config = load_config("cartpole_cleanrl", [*PQN, "exploration={start: 0.5, end: 0.5}"])
    program = make_program(config, Parts(env=batched(single._replace(step=step))))

    def run(hparams, key):
        state, rows = program.segment(hparams, program.init(hparams, key), program.plan.epochs)
        return rows, program.finish(hparams, state)

    rows, returns = jit_barely(run)(config.hparams(), jax.random.key(0))
    assert rows.episodes.sum() > 20
    assert not np.isinf(rows.episode_return).any()  # nan where no episode ended
    assert np.isfinite(returns).all()


@pytest.mark.parametrize("case", marked(CASES))
def test_resets_have_keys_of_their_own(case, played):
    """No two episodes of a run begin in one state, typed keys inside it included, unless they share a reset."""
    _, seen = played
    ended = (seen.steps.terminated | seen.steps.truncated)[:-1]
    starts = np.concatenate([np.ones((1, case.envs), bool), ended])
    begun = [np.asarray(leaf)[starts] for leaf in jax.tree.leaves(data_of_keys(seen.before.env_state))]
    rows = np.concatenate([leaf.astype(np.float64).reshape(len(leaf), -1) for leaf in begun], axis=1)
    distinct, fresh = len(np.unique(rows, axis=0)), case.envs + np.minimum(ended.sum(1), case.resets or case.envs).sum()
    assert fresh > case.envs
    if case.env_id == "pgx:2048":  # whose state has no key, and whose first board is one of few
        assert distinct > case.envs
    else:
        assert distinct == fresh


@pytest.mark.parametrize("env_id", mostly_slow([one for one in LISTED if one not in GYMNAX], fast=SAMPLE))
def test_what_is_listed_is_what_is_made(env_id):
    if not is_installed(suite_of(env_id)):
        pytest.skip(f"{suite_of(env_id)} is not installed")
    env, row = make_environment(env_id), LISTED[env_id]
    assert (env.obs_shape, str(env.obs_dtype), env.num_actions, env.time_limit, env.legal is not all_legal) == (
        row.shape,
        row.dtype,
        row.actions,
        row.time_limit,
        row.illegal,
    )
    whole = env.bounds is not None and np.issubdtype(env.obs_dtype, np.integer)
    assert row.depth == (env.bounds()[1] + 1 if whole else 1)
    keys = jax.random.split(jax.random.key(0), 2)
    obs, state = jax.eval_shape(env.reset, env.default_params, keys)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        obs_after, state_after, _ = jax.eval_shape(env.step, env.default_params, keys, state, obs, jnp.zeros(2, int))

    def kinds(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), tree)

    assert kinds((obs, state)) == kinds((obs_after, state_after))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", [name for name, suite in SUITES_OF_CONFIGS.items() if suite])
def test_a_config_of_a_suite_is_tested_where_the_suite_is_installed(name):
    if name not in TRAINABLE:
        pytest.skip(f"{SUITES_OF_CONFIGS[name]} is not installed")
    assert make_environment(**load_config(name).env.making()).env_id == load_config(name).env.id


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["xminigrid:MiniGrid-Empty-5x5", "jumanji:Game2048-v1", "pgx:2048", "octax:brix"])
def test_an_episode_of_a_suite_is_drawn_by_its_own_renderer(env_id, tmp_path):
    """Frame by frame another picture, of a state with random keys in it."""
    if not is_installed(suite_of(env_id)):
        pytest.skip(f"{suite_of(env_id)} is not installed")
    config = read_config("cartpole_cleanrl", [f"env.id={env_id}", "env.kwargs.time_limit=6"]).config
    env = make_environment(**config.env.making())
    assert env.render is not None
    reset, step_once = jit_barely(env.reset), jit_barely(env.step)
    keys = jax.random.split(jax.random.key(0), 1)
    obs, state = reset(env.default_params, keys)
    all_obs, states = [obs[0]], []
    for step in range(6):
        states.append(jax.tree.map(lambda leaf: np.asarray(leaf[0]), data_of_keys(state)))
        legal = env.legal(env.default_params, state)
        action = jnp.array([step % 2]) if isinstance(legal, tuple) else jnp.argmax(legal, axis=-1)
        obs, state, _ = step_once(env.default_params, keys, state, obs, action)
        all_obs.append(obs[0])
    episode = Episode(np.array(all_obs), states, np.zeros(6), "cut off by the time limit")
    film = write_film(tmp_path / "out.gif", episode, config, seed_index=0)
    assert film.frames == 7
    with Image.open(tmp_path / "out.gif") as picture:
        assert min(picture.size) > 100


def test_two_packages_that_share_a_folder_draw_classic_control_together():
    """craftax brings pygame, and the extra video pygame-ce."""
    found = {name for name in ("pygame", "pygame-ce") if distribution_exists(name)}
    if len(found) < 2:
        pytest.skip(f"only {', '.join(found) or 'neither'} is installed")
    code = (
        "import os; os.environ |= {'SDL_VIDEODRIVER': 'dummy', 'PYGAME_HIDE_SUPPORT_PROMPT': '1'}\n"
        "import gymnasium, craftax.craftax_env\n"
        "env = gymnasium.make('CartPole-v1', render_mode='rgb_array'); env.reset(seed=0)\n"
        "assert env.render().shape == (400, 600, 3)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def distribution_exists(name):
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def fault(*overrides):
    with pytest.raises(ConfigError) as caught:
        load_config("cartpole_cleanrl", overrides)
    return caught.value.lines


@pytest.mark.parametrize(
    ("env_id", "line"),
    [
        ("xminigrid:Empty", "env.id: xminigrid has no environment 'Empty'; did you mean"),
        (
            "xminigrid:MiniGrid-Empty-5x4",
            "env.id: xminigrid has no environment 'MiniGrid-Empty-5x4'; did you mean 'xminigrid:MiniGrid-Empty-5x5'?",
        ),
        ("xminigrid:XLand-MiniGrid-R1-9x9", "its tasks are downloaded, and nothing here downloads"),
        ("jumanji:Sokoban-v0", "its levels are downloaded, and nothing here downloads"),
        ("jumanji:Tetris-v0", "a step takes several actions; Q-learning needs one discrete action"),
        ("pgx:chess", "it is a game against others, and agents here play alone"),
        ("pgx:minatar-breakout", "gymnax has the same games"),
        ("pgx:2049", "did you mean 'pgx:2048'?"),
        ("MiniGrid-Empty-5x5", "did you mean 'xminigrid:MiniGrid-Empty-5x5'?"),
        ("Game2048-v1", "did you mean 'jumanji:Game2048-v1'?"),
        ("xminigird:MiniGrid-Empty-5x5", "did you mean 'xminigrid:MiniGrid-Empty-5x5'?"),
        ("minigrid:MiniGrid-Empty-5x4", "did you mean 'xminigrid:MiniGrid-Empty-5x5'?"),
        ("Pgx:2048", "did you mean 'pgx:2048'?"),
        ("gymnax:CartPole-v0", "did you mean 'CartPole-v1'?"),
        ("navix:Navix-Empty-5x5-v0", "navix needs an adapter, which docs/own-suite.md has"),
    ],
)
def test_a_name_that_cannot_be_trained_on_is_refused_in_a_line(env_id, line):
    """Before its suite is imported, and whether or not it is installed."""
    (found,) = fault(f"env.id={env_id}")
    assert line in found
    assert found.startswith("env.id: ")


@pytest.mark.parametrize(
    ("env_id", "argument", "line"),
    [
        (
            "xminigrid:MiniGrid-Empty-5x5",
            "max_steps=abc",
            "the time limit of xminigrid:MiniGrid-Empty-5x5: 'abc' is not",
        ),
        ("xminigrid:MiniGrid-Empty-5x5", "max_steps=2.5", "the time limit of xminigrid:MiniGrid-Empty-5x5: 2.5 is not"),
        ("xminigrid:MiniGrid-Empty-5x5", "view_size=0", "cannot be used: its observations have the shape [0, 0, 2]"),
        ("octax:brix", "max_num_steps_per_episodes=0", "the time limit of octax:brix: 0 is not a number of steps"),
        ("pgx:2048", "time_limit=0", "env.kwargs: time_limit: 0 is not a number of steps"),
        ("sparse:CartPoleSwingUp", "move_cost=abc", "sparse:CartPoleSwingUp: step fails: "),
    ],
)
def test_an_argument_that_a_suite_takes_and_cannot_use_is_refused_in_a_line(env_id, argument, line):
    if not is_installed(suite_of(env_id)):
        pytest.skip(f"{suite_of(env_id)} is not installed")
    (found,) = fault(f"env.id={env_id}", f"env.kwargs.{argument}")
    assert line in found
    assert found.startswith("env.kwargs: ")


def test_a_suite_that_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(registry, "is_installed", lambda package: False)
    assert fault("env.id=craftax:Craftax-Symbolic-v1") == (
        "env.id: craftax:Craftax-Symbolic-v1 needs craftax, which is not installed: pip install 'purejaxdqn[craftax]'",
    )


def test_a_folder_without_code_is_no_installed_suite(tmp_path, monkeypatch):
    """Craftax's textures stay when pip uninstalls it."""
    (tmp_path / "octarine").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.util.find_spec("octarine") is not None
    assert not is_installed("octarine")
    (tmp_path / "octarine" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert is_installed("octarine")


@needs("craftax:")
def test_parameters_of_craftax_have_types_of_jax():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make_environment("craftax:Craftax-Classic-Symbolic-v1")
        params = env.with_params({"day_length": 100, "spawn_cow_chance": 0.2})
    assert {name: leaf.dtype for name, leaf in params.items()} == {name: env.params[name] for name in params}


def test_every_suite_has_an_extra_of_its_name():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for suite, one in SUITES.items():
        if one.ours:
            continue
        assert one.install == f"purejaxdqn[{suite}]"
        assert re.search(rf"^{suite} = \[", text, re.M)
        assert not [name for name in one.environments if why_refused(suite, name)]


def test_a_suite_is_no_module_of_the_users_and_never_one_in_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "pgx.py").write_text("open('mark', 'a').close()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.delitem(sys.modules, "pgx", raising=False)
    config = read_config("cartpole_cleanrl", ["env.id=pgx:2048"]).config
    check_trust(tmp_path, config, trust=False)
    if is_installed("pgx"):
        make_environment("pgx:2048")
    assert not (tmp_path / "mark").exists()


def test_rates_are_compared_round_by_round():
    seconds = {"adapter": [2.0, 8.0, 1.0], "suite": [1.0, 4.0, 4.0]}  # in the second round the machine was slow
    assert suites.summarise(seconds, 8) == {"adapter": 4.0, "suite": 2.0, "ratio": 0.5}
    assert suites.summarise({"adapter": [2.0]}, 8) == {"adapter": 4.0}


def test_a_rate_that_is_measured_again_leaves_the_others(tmp_path, monkeypatch):
    written = {}
    (tmp_path / "suites_rates.csv").write_text("environment,ratio\npgx:2048,1\noctax:brix,1\n", encoding="utf-8")
    monkeypatch.setattr(suites.harness, "RESULTS", tmp_path)
    monkeypatch.setattr(suites.harness, "write", written.__setitem__)
    monkeypatch.setitem(suites._PARTS, "rates", lambda _: [{"environment": "pgx:2048", "ratio": 2}])
    monkeypatch.setattr(sys, "argv", ["suites", "--part", "rates", "--only", "pgx:2048"])
    suites.main()
    assert [tuple(row.values()) for row in written["suites_rates"]] == [("pgx:2048", 2), ("octax:brix", "1")]


@pytest.mark.parametrize(("num_envs", "length", "fresh"), [(5, 2, 2), (4, 1, 3), (4, 3, 4)])
def test_the_expected_share_of_shared_states_is_that_of_all_ways_to_end(num_envs, length, fresh):
    shared = ended = 0.0
    for ends in itertools.product((False, True), repeat=num_envs):
        chance = math.prod(1 / length if one else 1 - 1 / length for one in ends)
        groups = Counter(place % fresh for place in range(sum(ends)))
        shared += chance * sum(size for size in groups.values() if size > 1)
        ended += chance * sum(ends)
    assert suites.expected_share(num_envs, length, fresh) == pytest.approx(shared / ended)
    measured, mean_length = suites.shared_starts(suites.coin(length, fresh), num_envs, steps=1_000)
    assert (measured, mean_length) == (pytest.approx(shared / ended, abs=0.05), pytest.approx(length, rel=0.1))
