"""PQN's benchmark: the contenders do the same work, and the tables of rates and parts are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import contenders, memory, pqn, pqn_parts, recurrent
from benchmarks.baselines import scan_pqn, scan_recurrent_pqn
from benchmarks.baselines.setting import MEMORY_SIZE, RECURRENT, ROLLOUT_SETTINGS
from benchmarks.contenders import OURS, PRODUCTS, Contender
from benchmarks.pqn_products import LAYOUTS, flops_of, forward_flops, gradients, output, products, shapes_of
from purejaxdqn import load_config
from purejaxdqn.config.building import make_parts, make_program
from purejaxdqn.core.plan import batch_size_of, make_plan
from purejaxdqn.environments.registry import make_environment
from purejaxdqn.system.compiling import WITHOUT_YNN, compile_known

SETTINGS = pytest.mark.parametrize("setting", ROLLOUT_SETTINGS.values(), ids=ROLLOUT_SETTINGS)
CARTPOLE = ROLLOUT_SETTINGS["CartPole"]
SMALL = CARTPOLE._replace(num_envs=4, steps=6, epochs=2, minibatches=3, hidden=(5,))


def config_of(setting, rollouts=2):
    return load_config(
        pqn_parts.CONFIGS, [*pqn_parts.overrides_of(setting), f"total_timesteps={rollouts * setting.rollout}"]
    )


@SETTINGS
def test_ours_has_the_network_the_rollouts_and_the_numbers_of_the_setting(setting):
    config = config_of(setting)
    assert (config.optimizer.name, config.loss, config.network.layer_norm) == ("radam", "squared", True)
    assert not config.optimizer.anneal
    assert (make_plan(config).rollout, batch_size_of(config)) == (setting.steps, setting.batch_size)
    assert (config.rollout.epochs, config.rollout.minibatches) == (setting.epochs, setting.minibatches)
    numbers = config.hparams()
    for name in ("gamma", "optimizer_learning_rate", "optimizer_max_grad_norm", "rollout_lambda", "exploration_end"):
        of = {"rollout_lambda": "trace", "exploration_end": "epsilon_end"}.get(name, name.removeprefix("optimizer_"))
        assert getattr(numbers, name) == np.float32(getattr(setting, of))
    assert (numbers.exploration_start, numbers.exploration_fraction) == (1, np.float32(setting.exploration_fraction))


@SETTINGS
def test_the_plain_scan_has_our_network(setting):
    env = make_environment(setting.env_id)
    obs = jnp.zeros((1, *env.obs_shape))
    theirs = scan_pqn.QNetwork(setting.hidden, env.num_actions, setting.convolution)
    init = make_parts(config_of(setting), env).network.init
    found = [
        sorted(sorted(leaf.shape) for leaf in jax.tree.leaves(params))
        for params in (
            jax.eval_shape(theirs.init, jax.random.key(0), obs),
            jax.eval_shape(init, jax.random.key(0), obs, jnp.zeros(())),
        )
    ]
    assert found[0] == found[1]


def test_the_operations_of_cartpoles_products_are_those_counted_by_hand():
    weights = 4 * 256 + 256 * 256 + 256 * 2
    by_hand = 2 * 2_048 * (2 * weights + 4 * (3 * weights - 4 * 256))
    assert flops_of(CARTPOLE) == by_hand
    assert forward_flops(CARTPOLE) == 2 * 2_048 * weights


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_products_are_those_of_a_network_without_activations_and_of_its_gradients(layout):
    rng, rows = np.random.default_rng(0), layout == "rows"
    shapes = shapes_of(ROLLOUT_SETTINGS["Breakout"]._replace(hidden=(7,)))
    assert shapes == [(16, 36), (7, 1024), (3, 7)]
    weights = [rng.normal(size=shape[::-1] if rows else shape).astype(np.float32) for shape in shapes]
    x = rng.normal(size=(2 * 64, 36) if rows else (36, 2 * 64)).astype(np.float32)
    half_square = jax.jit(jax.grad(lambda weights: jnp.sum(output(weights, x, layout)[0] ** 2) / 2))
    for found, wanted in zip(gradients(weights, x, layout)[::-1], half_square(weights), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(jnp.abs(wanted).max()))


@pytest.mark.slow
def test_products_are_timed():
    assert 0 < products(SMALL, "columns", ynn=False)() < 1


def test_with_one_seed_the_products_have_the_faster_number_of_threads_and_with_eight_a_core_each(monkeypatch):
    asked = []

    def start(module, contender, task, *, seeds, env):
        asked.append(dict(env))
        return {"rate": 2.0 if env else 3.0}

    monkeypatch.setattr(contenders, "run", start)
    assert pqn.run("CartPole", PRODUCTS, 1, 20)["rate"] == 3.0
    assert pqn.run("CartPole", PRODUCTS, 8, 20)["rate"] == 2.0
    assert pqn.run("CartPole", OURS, 8, 20)["rate"] == 3.0
    assert asked == [{"NPROC": "1"}, {}, {"NPROC": "1"}, {}]


def test_ratios_are_of_the_same_round():
    found = {
        "other": [{"rate": rate, "compile_seconds": 1.0} for rate in (10.0, 20.0, 40.0)],
        OURS: [{"rate": rate, "compile_seconds": 1.0} for rate in (20.0, 60.0, 80.0)],
        PRODUCTS: [{"rate": rate, "compile_seconds": 0.0} for rate in (40.0, 80.0, 100.0)],
    }
    names = {"other": Contender(1, {8: 3.0}), OURS: Contender(1), PRODUCTS: Contender(1, {1: 0.7})}
    other, ours, limit = contenders.rows_of(found, names, 8, target="target")
    assert [other[name] for name in ("purejaxdqn is faster by", "at least by", "at most by")] == [2.0, 2.0, 3.0]
    assert other["target"] == 3.0
    assert (other["steps a second"], other["lowest"], other["highest"]) == (20.0, 10.0, 40.0)
    assert other["products alone are faster by"] == 4.0
    assert ours["purejaxdqn is faster by"] == 1.0
    assert (limit["purejaxdqn is faster by"], limit["target"]) == (0.75, "")


def test_the_parts_and_what_is_left_make_up_the_whole():
    seconds = {name: 1e-3 * n for n, name in enumerate(pqn_parts.variants(config_of(SMALL)), 10)}
    assert set(seconds) == {pqn_parts.WHOLE, pqn_parts.ACTING, *pqn_parts.LEFT_OUT}
    seconds |= {pqn_parts.WHOLE: 60e-3, pqn_parts.ACTING: 16e-3, pqn_parts.PRODUCTS: 12e-3, pqn_parts.SHUFFLE: 1e-3}
    seconds[pqn_parts.AS_OURS] = 14e-3
    *parts, last = pqn_parts.table_of(seconds, SMALL)
    by_part = {row["part"]: row["milliseconds"] for row in parts}
    assert by_part["Q-values for acting"] == pytest.approx(16 - 12)
    assert by_part["layer normalisation"] == pytest.approx(60 - 15)
    assert by_part["products, by layout and library"] == pytest.approx(14 - 12)
    assert last["milliseconds"] == 60
    assert sum(row["milliseconds"] for row in parts) == pytest.approx(60)
    assert sum(row["of these, products"] for row in parts) == pytest.approx(last["of these, products"]) == 12
    assert sum(row["the others' share"] for row in parts) == pytest.approx(last["the others' share"]) == 0.8


def test_the_bytes_of_a_rollout_are_those_of_its_steps():
    program = make_program(config := config_of(SMALL))
    state = jax.eval_shape(program.init, config.hparams(), jax.random.key(0))
    of_a_step = 2 * 4 * 4 + 4 + 4 + 1 + 1  # obs, next_obs, action, reward, terminated, truncated
    assert memory.rollout_bytes(program, state) == SMALL.rollout * of_a_step


def test_a_row_of_memory_adds_the_working_copy_of_one_run_where_there_are_more():
    found = {"state": 8e6, "compiled": 12e6}
    alone, together = (memory.row(found, seeds, {"a (MB)": 8e6, "b (MB)": 2e6}) for seeds in (1, 8))
    assert (alone["sum (MB)"], alone["ratio"]) == (10, 1.2)
    assert (together["working copy of one run (MB)"], together["sum (MB)"]) == (1, 11)


@pytest.mark.slow
def test_a_run_keeps_its_rollout_once():
    """Another copy of Breakout's 3.3 MB, of 7.7 in all, would be seen (half a minute)."""
    config = memory.config_of(ROLLOUT_SETTINGS["Breakout"])
    kept = memory.working_memory(config)
    found = memory.measure(config, 1)
    assert kept["rollout (MB)"] > 3e6
    assert found["compiled"] < found["state"] + kept["rollout (MB)"] / 2 + kept["a gradient step (MB)"] * 1.1 + 1e6


@pytest.mark.slow
def test_every_program_without_a_part_is_smaller_and_without_q_values_has_fewer_products():
    """Counted in the compiled programs (a minute)."""

    def counts(program):
        hparams = config_of(SMALL).hparams()
        state = jax.eval_shape(program.init, hparams, jax.random.key(0))
        lowered = jax.jit(lambda hparams, state: program.segment(hparams, state, 1)).lower(hparams, state)
        text = compile_known(lowered, WITHOUT_YNN)[0].as_text()  # YNN would hide products in its fusions
        return len(text.splitlines()), text.count(" dot(")

    found = {name: counts(make()) for name, make in pqn_parts.variants(config_of(SMALL)).items()}
    lines, products = ({name: pair[n] for name, pair in found.items()} for n in (0, 1))
    assert lines[pqn_parts.ACTING] < lines[pqn_parts.WHOLE]
    assert all(lines[name] < lines[of] for name, of in pqn_parts.LEFT_OUT.items())
    fewer = {name: products[of] - products[name] for name, of in pqn_parts.LEFT_OUT.items()}
    layers = 2
    assert fewer == dict.fromkeys(fewer, 0) | {"Q-values for acting": layers, "values for targets": layers}


def test_the_recurrent_contenders_do_the_same_work():
    config = load_config("memory_chain", recurrent.overrides())
    one = RECURRENT
    assert (make_plan(config).rollout, make_plan(config).num_envs) == (one.steps, one.num_envs)
    assert (config.rollout.epochs, config.rollout.minibatches) == (one.epochs, one.minibatches)
    assert config.network.hidden == one.hidden
    assert config.network.memory_size == MEMORY_SIZE
    for name in recurrent.MEMORIES:  # the widened layer has the products of the memory in whose place it stands
        widened = recurrent.products_of(name) // (2 * recurrent.WIDTH)
        assert 2 * recurrent.WIDTH * widened == recurrent.products_of(name)


@pytest.mark.slow
def test_the_plain_recurrent_scan_remembers():
    """MemoryChain of length 3 with a small network: the sign is right more often than by chance."""
    setting = RECURRENT._replace(hidden=(16, 16), num_envs=16, steps=16, minibatches=2, learning_rate=3e-3)
    train = scan_recurrent_pqn.make_train(
        setting, 120 * setting.rollout, memory_size=16, env_params={"memory_length": 3}
    )
    _, finished = jax.jit(train)(jax.random.key(0))
    first, last = (float(jnp.nanmean(part)) for part in (finished[:10], finished[-20:]))
    assert first < 0.4
    assert last > 0.8


@pytest.mark.slow
def test_the_plain_scan_learns_from_its_rollouts():
    """CartPole with a small network: returns beyond those of random actions."""
    setting = CARTPOLE._replace(hidden=(32,), steps=16, minibatches=4, learning_rate=2e-3)
    _, finished = jax.jit(scan_pqn.make_train(setting, 120 * setting.rollout))(jax.random.key(0))
    assert finished.shape == (120, setting.steps, setting.num_envs)
    first, last = (float(jnp.nanmean(part)) for part in (finished[:20], finished[-20:]))
    assert first < 30
    assert last > 60
