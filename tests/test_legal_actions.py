"""Illegal actions are never taken nor valued; and batches of environments that reset themselves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxdqn import load_config
from purejaxdqn.config.building import Own, make_parts, make_program
from purejaxdqn.core.algorithm import ILLEGAL, ActorView, masked
from purejaxdqn.core.config import Config
from purejaxdqn.core.draws import NO_LEARNING, random_action
from purejaxdqn.core.draws import draw as draw_steps
from purejaxdqn.core.evaluation import greedy_returns
from purejaxdqn.core.rollout import rollout, start_actors
from purejaxdqn.core.types import Rollout, Step
from purejaxdqn.dqn import bootstrap, on_rollout
from purejaxdqn.dqn.learner import LearnerState, bootstrapped, draw
from purejaxdqn.dqn.replay import example_step, prioritised_replay, uniform_replay
from purejaxdqn.dqn.rings import fold, make_ring
from purejaxdqn.dqn.types import Transition
from purejaxdqn.dqn.units import single_steps
from purejaxdqn.environments.batched import Single, batched
from purejaxdqn.environments.wrappers import with_sticky_actions
from purejaxdqn.policies.greedy import Policy
from tests.conftest import PQN, SEQUENCES, TINY, jit_barely, jit_quickly, mostly_slow
from tests.probes import Table

GAMMA = 0.5
SUCCESSOR = np.array([[1, 2, 0], [2, 0, 1], [0, 1, 2]])
REWARD = np.array([[0.0, 1.0, 50.0], [0.5, 50.0, 0.0], [50.0, 1.0, 0.25]])
LEGAL = np.array([[True, True, False], [True, False, True], [False, True, True]])
"""Three states; in each the illegal action would pay 50."""


def table(*, time_limit=None, terminal=(False, False, False), random_start=False, illegal_reward=50.0):
    """A ``Single`` of the tables. Its state also counts the illegal actions that were taken."""
    rewards = np.where(LEGAL, REWARD, illegal_reward)

    def observe(state):
        return jax.nn.one_hot(state[0], 3)

    def reset(key, params):
        place = jax.random.randint(key, (), 0, 3) if random_start else 0
        state = (jnp.int32(place), 0)  # the count is weakly typed, as states of suites are
        return observe(state), state

    def step(key, state, action, params):
        place, illegal = state
        illegal = illegal + ~jnp.asarray(LEGAL)[place, action]
        after = (jnp.asarray(SUCCESSOR)[place, action].astype(jnp.int32), illegal)
        ended = jnp.asarray(terminal)[after[0]]
        return observe(after), after, jnp.asarray(rewards, jnp.float32)[place, action], ended, jnp.bool_(False)

    return Single(
        "table", 3, reset, step, legal=lambda state, params: jnp.asarray(LEGAL)[state[0]], time_limit=time_limit
    )


def exact_q(iterations=200):
    """Value iteration over the legal actions."""
    q = np.zeros((3, 3))
    for _ in range(iterations):
        q = REWARD + GAMMA * np.where(LEGAL, q, -np.inf).max(axis=1)[SUCCESSOR]
    return q


REPLAYED = [
    *TINY,
    "total_timesteps=7600",
    "replay={size: 400, batch_size: 64}",
    "schedule={warmup: 400, train_every: 4, gradient_steps: 1, target_every: 240, tau: 1}",
    "optimizer={name: sgd, learning_rate: 1.0}",
    "loss=squared",
]
ROLLED = [
    *PQN,
    "total_timesteps=3200",
    "optimizer={name: sgd, learning_rate: 0.5}",
    "rollout={lambda: 0, epochs: 4, minibatches: 2}",
]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([*REPLAYED, "bootstrap.kind=double"], marks=pytest.mark.slow),
        pytest.param(REPLAYED, marks=pytest.mark.slow),
        pytest.param([*REPLAYED, "replay.kind=prioritised"], marks=pytest.mark.slow),
        pytest.param([*REPLAYED, "bootstrap={kind: munchausen, alpha: 0, temperature: 1e-3}"], marks=pytest.mark.slow),
        ROLLED,
    ],
    ids=["double", "greedy", "prioritised", "soft", "rollouts"],
)
def test_no_illegal_action_is_taken_or_looks_good(overrides):
    """Q-values of legal actions are those of the MDP without the others."""
    env = batched(table(time_limit=9, random_start=True))
    exploring = ["exploration={start: 1, end: 1}", f"gamma={GAMMA}"]
    config = load_config("cartpole_cleanrl", [*overrides, *exploring])
    program = make_program(config, Own(env=env, network=Table(np.zeros((3, 3)))))

    def run(hparams, key):
        state, rows = program.segment(hparams, program.init(hparams, key), program.plan.epochs)
        return state, rows, program.finish(hparams, state)

    state, _, returns = jit_quickly(run)(config.hparams(), jax.random.key(0))
    policy = program.algorithm.policy(state.algorithm)
    q = np.asarray(program.algorithm.values(config.hparams(), policy, ActorView(jnp.eye(3)))[0])
    np.testing.assert_allclose(q[LEGAL], exact_q()[LEGAL], atol=1e-2)
    assert (q[~LEGAL] == 0).all()  # never taken: never learned
    assert returns.max() < 50  # nor when evaluated
    assert int(jnp.max(state.actors.env_state.env_state[1])) == 0


REMEMBERING = ["network.memory=gru", "network.memory_size=8", "ensemble={members: 2, prior_scale: 20}"]


@pytest.mark.parametrize(
    "overrides",
    [
        [*PQN, *REMEMBERING, "rollout={minibatches: 2, lambda: 0.65}"],
        pytest.param([*TINY, *REMEMBERING, *SEQUENCES], marks=pytest.mark.slow),
        pytest.param([*TINY, "ensemble={members: 2, prior_scale: 20}", "n_step=3"], marks=pytest.mark.slow),
        pytest.param([*TINY, "distribution={kind: fqf, atoms: 4}", "network.noisy=true"], marks=pytest.mark.slow),
    ],
    ids=["rollouts", "sequences", "ensemble", "fqf"],
)
def test_whatever_acts_and_remembers_takes_legal_actions(overrides):
    """An illegal action pays infinitely much, and would show in returns and losses."""
    env = batched(table(time_limit=5, random_start=True, illegal_reward=np.inf))
    config = load_config("cartpole_cleanrl", [*overrides, "exploration={start: 0.5, end: 0.5}"])
    program = make_program(config, Own(env=env))

    def run(hparams, key):
        state, rows = program.segment(hparams, program.init(hparams, key), program.plan.epochs)
        return rows, program.finish(hparams, state)

    rows, returns = jit_barely(run)(config.hparams(), jax.random.key(0))
    for found in (rows.episode_return, rows.eval_returns, rows.loss, rows.q_value, returns):
        assert np.isfinite(found).all()
    assert rows.episodes.sum() > 20


@pytest.mark.parametrize(
    ("legal", "message"),
    [
        ({"next_legal": ()}, "with the legal actions at both observations"),
        ({"legal": (), "next_legal": ()}, "with the legal actions at both observations"),
        ({"legal": jnp.ones((8, 2), bool)}, "legal actions"),
        ({"legal": jnp.ones((8, 3))}, "legal actions"),
    ],
)
def test_a_replay_of_your_own_that_loses_the_legal_actions_is_named(legal, message):
    config = load_config("cartpole_cleanrl", TINY)
    replay = uniform_replay(make_ring(size=300, n_step=1, num_envs=4))

    def sample(*arguments):
        batch = replay.sample(*arguments)
        return batch._replace(transition=batch.transition._replace(**legal))

    program = make_program(config, Own(env=batched(table(time_limit=5)), replay=replay._replace(sample=sample)))
    with pytest.raises(AssertionError, match=f"replay.sample.*{message}"):
        jax.eval_shape(program.train, config.hparams(), jax.random.key(0))


def test_a_rollout_has_the_legal_actions_of_both_observations():
    env = batched(table(time_limit=4, random_start=True))
    actors = start_actors(env, (), jax.random.key(0), num_envs=5)
    draws, _ = draw_steps(jax.random.key(1), 1, rollout=30, num_envs=5, learning=NO_LEARNING)

    def act(view, draws, env_step):
        return random_action(draws.choice, view.legal, 3), view.memory

    steps = rollout(env, (), act, actors, jax.tree.map(lambda leaf: leaf[0], draws))[1].steps
    np.testing.assert_array_equal(steps.legal, LEGAL[np.argmax(steps.obs, axis=-1)])
    np.testing.assert_array_equal(steps.next_legal, LEGAL[np.argmax(steps.next_obs, axis=-1)])


def test_a_sticky_action_is_repeated_only_where_it_is_legal():
    """Rewards show which action was executed: an illegal one pays 50."""
    env = with_sticky_actions(batched(table(time_limit=4, random_start=True)), 0.5)
    draws, _ = draw_steps(jax.random.key(1), 1, rollout=100, num_envs=8, learning=NO_LEARNING)

    def act(view, draws, env_step):
        return random_action(draws.choice, view.legal, 3), view.memory

    @jit_barely
    def play(draws):
        return rollout(env, (), act, start_actors(env, (), jax.random.key(0), num_envs=8), draws)[1].steps

    steps = play(jax.tree.map(lambda leaf: leaf[0], draws))
    chosen = REWARD[np.argmax(steps.obs, axis=-1), steps.action]
    assert steps.reward.max() < 50
    assert 0.1 < (steps.reward != chosen).mean() < 0.25  # half of the steps would repeat, if they might


def test_greedy_episodes_take_the_best_legal_action():
    env = batched(table(time_limit=6))

    def values(view):
        return jnp.asarray(np.where(LEGAL, exact_q(), 99.0))[jnp.argmax(view.obs, axis=1)], view.memory

    returns = greedy_returns(env, values, (), jax.random.key(0), episodes=2)
    place, wanted = 0, 0.0
    for _ in range(6):
        action = np.where(LEGAL[place], exact_q()[place], -np.inf).argmax()
        wanted, place = wanted + REWARD[place, action], SUCCESSOR[place, action]
    np.testing.assert_allclose(returns, wanted)


@pytest.mark.parametrize("kind", ["greedy", "double", "munchausen"])
@pytest.mark.parametrize(
    "distribution",
    [
        "distribution.kind=scalar",
        "distribution={kind: categorical, v_min: -9, v_max: 9, atoms: 19}",
        "distribution={kind: hl_gauss, v_min: -9, v_max: 9, atoms: 19}",
        "distribution={kind: quantile, atoms: 19}",
    ],
)
def test_targets_leave_illegal_actions_out(kind, distribution):
    """The value and the reward of random transitions, against NumPy over the legal actions alone."""
    rng, batch = np.random.default_rng(0), 64
    config = load_config(
        "cartpole_cleanrl", [*TINY, f"bootstrap={{kind: {kind}, temperature: 0.5, alpha: 0.7}}", distribution]
    )
    env = batched(table())
    atoms = () if "scalar" in distribution else (19,)
    parts = make_parts(config.static(), env, Own(network=Table(np.zeros((3, 3, *atoms)))))
    tables = {name: jnp.asarray(rng.normal(size=(3, 3, *atoms)), jnp.float32) for name in ("online", "target")}
    learner = LearnerState({"q": tables["online"]}, {"q": tables["target"]}, (), ())
    now, after, action = rng.integers(3, size=(3, batch))
    legal, next_legal = rng.uniform(size=(2, batch, 3)) < 0.5
    legal[np.arange(batch), action] = True
    next_legal[np.arange(batch), rng.integers(3, size=batch)] = True
    reward, discount = rng.normal(size=batch), np.full(batch, 0.9)
    eye = np.eye(3, dtype=np.float32)
    transition = jax.tree.map(
        jnp.asarray,
        Transition(
            eye[now], action, reward.astype(np.float32), discount.astype(np.float32), eye[after], legal, next_legal
        ),
    )
    hparams = config.hparams()
    found = bootstrapped(parts, hparams, learner, transition, draw(parts, learner.online, jax.random.key(0), batch))

    q = {name: np.asarray(parts.head.q_values(hparams, out), np.float64) for name, out in tables.items()}
    for i in range(batch):
        choices = np.flatnonzero(next_legal[i])
        source = q["online" if kind == "double" else "target"][after[i]][choices]
        bonus = entropy = 0.0
        if kind == "munchausen":
            policy = np.exp((source - source.max()) / 0.5)
            policy /= policy.sum()
            entropy = -0.5 * policy @ np.log(policy)
            mine = q["target"][now[i]]
            log_policy = mine[action[i]] / 0.5 - np.log(np.exp(mine[legal[i]] / 0.5).sum())
            bonus = 0.7 * np.clip(0.5 * log_policy, -1, 0)
        else:
            policy = np.eye(len(choices))[source.argmax()]
        out = np.asarray(tables["target"], np.float64)[after[i]][choices]
        if atoms and "quantile" not in distribution:
            out = np.exp(out) / np.exp(out).sum(axis=-1, keepdims=True)
        if "hl_gauss" in distribution:  # the mean of the centres of 19 bins
            out = out @ (-9 + 18 * (np.arange(19) + 0.5) / 19)
        value = found.value.returns if "quantile" in distribution else found.value
        np.testing.assert_allclose(value[i], policy @ out, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.reward[i], reward[i] + bonus + 0.9 * entropy, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["greedy", pytest.param("double", marks=pytest.mark.slow)])
@pytest.mark.parametrize("distribution", ["iqn", pytest.param("fqf", marks=pytest.mark.slow)])
def test_returns_at_drawn_or_proposed_fractions_are_those_of_the_best_legal_action(distribution, kind):
    """Against NumPy over what the two networks give; Q-values are means with the widths of the intervals as weights."""
    rng, batch = np.random.default_rng(0), 16
    config = load_config(
        "cartpole_cleanrl", [*TINY, f"distribution={{kind: {distribution}, atoms: 6}}", f"bootstrap.kind={kind}"]
    )
    parts, hparams = make_parts(config.static(), batched(table())), config.hparams()
    obs, next_obs = rng.normal(size=(2, batch, 3)).astype(np.float32)
    next_legal = rng.uniform(size=(batch, 3)) < 0.5
    next_legal[np.arange(batch), rng.integers(3, size=batch)] = True
    transition = Transition(
        obs, np.zeros(batch, np.int32), np.zeros(batch, np.float32), np.ones(batch, np.float32), next_obs,
        np.ones((batch, 3), bool), next_legal,
    )  # fmt: skip

    @jit_barely
    def both(keys):
        online, target = (parts.network.init(key, next_obs[:1], 0.5) for key in keys[:2])
        draws = draw(parts, online, keys[2], batch)
        found = bootstrapped(parts, hparams, LearnerState(online, target, (), ()), transition, draws)
        deciding = online if kind == "double" else target
        out = parts.network.apply(deciding, next_obs, None, parts.head.acting_fractions(hparams), (), ())[0]
        told = parts.network.apply(target, next_obs, None, draws.target_fractions, (), ())[0]
        return found.value.returns, out.values, out.widths, told.values

    returns, values, widths, told = map(np.asarray, both(jax.random.split(jax.random.key(0), 3)))
    q = (values * widths.reshape(-1, 1, 6)).sum(axis=-1)
    best = np.where(next_legal, q, -np.inf).argmax(axis=-1)
    assert (best != q.argmax(axis=-1)).any()
    np.testing.assert_allclose(returns, told[np.arange(batch), best], rtol=1e-5, atol=1e-6)


def test_lambda_returns_leave_illegal_actions_out():
    """The targets of a rollout with random masks and endings, against a loop."""
    rng, shape, lam = np.random.default_rng(0), (6, 4), 0.65
    config = load_config("cartpole_cleanrl", [*PQN, f"gamma={GAMMA}", f"rollout.lambda={lam}"])
    q = rng.normal(size=(3, 3)).astype(np.float32)
    parts = make_parts(config.static(), batched(table()), Own(network=Table(np.zeros((3, 3)))))
    learner = LearnerState({"q": jnp.asarray(q)}, {"q": jnp.asarray(q)}, (), ())
    places, after = rng.integers(3, size=(2, *shape))
    legal, next_legal = rng.uniform(size=(2, *shape, 3)) < 0.5
    next_legal[..., 0] |= ~next_legal.any(axis=-1)
    reward = rng.normal(size=shape).astype(np.float32)
    terminated, truncated = rng.uniform(size=(2, *shape)) < 0.2
    eye = np.eye(3, dtype=np.float32)
    steps = Step(eye[places], np.zeros(shape, np.int32), reward, terminated, truncated, eye[after], legal, next_legal)
    units = single_steps(*shape)
    targets = functools.partial(on_rollout._targets, parts, units, config.hparams(), learner)
    found = jit_barely(lambda steps: targets(Rollout(steps), jax.random.key(0), 1))(steps)

    value = np.where(next_legal, q[after], -np.inf).max(axis=-1)
    wanted, following = np.zeros(shape), value[-1]
    for t in reversed(range(shape[0])):
        ends = terminated[t] | truncated[t] | (t == shape[0] - 1)
        mixed = np.where(ends, value[t], (1 - lam) * value[t] + lam * following)
        wanted[t] = following = reward[t] + GAMMA * ~terminated[t] * mixed
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_state_in_which_nothing_is_legal_gives_finite_targets():
    """As after a termination, where the discount is 0."""
    q = masked(jnp.ones((2, 3)), jnp.zeros((2, 3), bool))
    assert (q == ILLEGAL).all()
    estimates = bootstrap.Estimates(lambda: q, lambda: q, lambda: jnp.ones((2, 3)), jnp.zeros(2, jnp.int32))
    for kind in (bootstrap.greedy, bootstrap.double, bootstrap.munchausen):
        assert all(np.isfinite(part).all() for part in kind(Config().hparams(), estimates))


def test_n_steps_keep_the_legal_actions_of_their_last_observation():
    steps = Step(
        obs=np.arange(3.0)[:, None],
        action=np.zeros((3, 1), int),
        reward=np.zeros((3, 1)),
        terminated=np.array([[False], [False], [False]]),
        truncated=np.array([[False], [True], [False]]),
        next_obs=np.arange(1.0, 4.0)[:, None],
        legal=np.array([[[1, 0]], [[0, 1]], [[1, 1]]], bool),
        next_legal=np.array([[[0, 1]], [[1, 1]], [[1, 0]]], bool),
    )
    folded = fold(steps, gamma=0.9, scale=1.0, clip=np.inf)
    assert folded.next_obs.tolist() == [2.0]
    assert (folded.legal.tolist(), folded.next_legal.tolist()) == ([[True, False]], [[True, True]])


@pytest.mark.parametrize("kind", mostly_slow([uniform_replay, prioritised_replay], fast=[prioritised_replay]))
def test_replay_keeps_the_legal_actions_beside_the_observations(kind):
    hparams = Config().hparams()
    replay = kind(make_ring(size=40, n_step=2, num_envs=4))
    state = replay.init(example_step(jnp.zeros(3), 3, some_illegal=True))
    rng = np.random.default_rng(0)
    places = rng.integers(3, size=(11, 4))  # a chain of states: next_obs is the next row's obs
    eye = np.eye(3, dtype=np.float32)
    steps = Step(
        eye[places[:-1]], np.zeros((10, 4), np.int32), np.zeros((10, 4), np.float32), np.zeros((10, 4), bool),
        np.zeros((10, 4), bool), eye[places[1:]], LEGAL[places[:-1]], LEGAL[places[1:]],
    )  # fmt: skip
    state = replay.add(hparams, state, jax.tree.map(jnp.asarray, steps))
    transition = replay.sample(hparams, state, jax.random.bits(jax.random.key(0), (32,)), lambda: 1.0).transition
    np.testing.assert_array_equal(transition.legal, LEGAL[np.argmax(transition.obs, axis=1)])
    np.testing.assert_array_equal(transition.next_legal, LEGAL[np.argmax(transition.next_obs, axis=1)])


def play(env, actions, *, num_envs=4, seed=0):
    """Steps with leaves [T, E, ...], and the observations acted on [T + 1, E, O]."""
    reset_key, key = jax.random.split(jax.random.key(seed))
    obs, state = env.reset((), jax.random.split(reset_key, num_envs))
    shown, steps = [obs], []
    step = jax.jit(env.step)
    for t, action in enumerate(actions):
        obs, state, happened = step((), jax.random.split(jax.random.fold_in(key, t), num_envs), state, obs, action)
        shown.append(obs)
        steps.append(happened)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *steps), np.stack(shown)


@pytest.mark.parametrize("resets", [None, 1, 3])
def test_a_batch_resets_what_ended_and_shows_the_true_last_observation(resets):
    actions = np.random.default_rng(1).integers(3, size=(40, 4)).astype(np.int32)
    env = batched(table(time_limit=5, terminal=(False, False, True), random_start=True), resets=resets)
    steps, shown = play(env, actions)
    time = np.zeros(4, int)
    for t in range(40):
        places = shown[t].argmax(axis=1)
        after = SUCCESSOR[places, actions[t]]
        np.testing.assert_array_equal(steps.next_obs[t], np.eye(3)[after])
        np.testing.assert_array_equal(steps.reward[t], REWARD[places, actions[t]])
        time += 1
        np.testing.assert_array_equal(steps.terminated[t], after == 2)
        np.testing.assert_array_equal(steps.truncated[t], time >= 5)
        np.testing.assert_array_equal(steps.next_legal[t], LEGAL[after])
        ended = steps.terminated[t] | steps.truncated[t]
        np.testing.assert_array_equal(shown[t + 1][~ended], steps.next_obs[t][~ended])
        time[ended] = 0
    assert steps.truncated.any() and (steps.terminated & ~steps.truncated).any()


def test_environments_share_fresh_states_where_more_end_than_are_made():
    """Every step ends an episode; an episode shows one random number, that of its start."""
    single = Single(
        "number",
        3,
        reset=lambda key, params: (jax.random.uniform(key, (1,)),) * 2,
        step=lambda key, state, action, params: (state, state, jnp.float32(0), jnp.bool_(True), jnp.bool_(False)),
    )
    starts = {}
    for resets in (None, 2):
        shown = play(batched(single, resets=resets), np.zeros((20, 6), np.int32), num_envs=6)[1][1:, :, 0]
        starts[resets] = [len(np.unique(row)) for row in shown]
        assert len(np.unique(shown)) == sum(starts[resets])  # no state is used again in a later step
    assert starts == {None: [6] * 20, 2: [2] * 20}


def test_the_state_of_a_batch_keeps_its_types():
    env = batched(table(time_limit=5))
    keys = jax.random.split(jax.random.key(0), 2)
    obs, state = env.reset((), keys)
    after = jax.eval_shape(env.step, (), keys, state, obs, jnp.zeros(2, jnp.int32))[1]
    described = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), one)
        for one in (jax.eval_shape(lambda: state), after)
    ]
    assert described[0] == described[1]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(after))


def test_a_batch_needs_a_fresh_state():
    with pytest.raises(ValueError, match="resets: 0 is below 1"):
        batched(table(), resets=0)


def test_a_policy_keeps_to_legal_actions():
    env = batched(table())
    config = load_config("cartpole_cleanrl", TINY)
    network = make_parts(config, env).network
    params = jax.tree.map(jnp.zeros_like, network.init(jax.random.key(0), jnp.zeros((1, 3)), 0.5))
    policy = Policy(config, env, params)  # all Q-values are 0: the first legal action is the best
    np.testing.assert_array_equal(policy(np.eye(3), legal=LEGAL), LEGAL.argmax(axis=1))
    assert policy(np.eye(3)[2], legal=LEGAL[2]) == 1
    with pytest.raises(ValueError, match="has illegal actions"):
        policy(np.eye(3))
    with pytest.raises(ValueError, match="legal is float64"):
        policy(np.eye(3), legal=LEGAL.astype(float))
