"""Networks: noisy layers, dueling streams, fractions, and the convolution, each against its formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from purejaxdqn.core.config import Config
from purejaxdqn.dqn.heads import HEADS
from purejaxdqn.dqn.networks import Convolution, Dense, NoisyDense, _Noise, make_network, noise_size
from purejaxdqn.dqn.types import Quantiles
from tests.conftest import mostly_slow

B, A, K, INPUTS = 5, 3, 4, 6


def network(distribution="scalar", *, atoms=K, **choices):
    described = {"kind": distribution, "atoms": 1 if distribution == "scalar" else atoms}
    defaults = {"torso": "mlp", "hidden": [8, 7], "activation": "relu", "layer_norm": False}
    off = {"dueling": False, "noisy": False}
    config = Config.model_validate({"distribution": described, "network": {**defaults, **off, **choices}})
    head = HEADS.make(config)
    net = make_network(config, num_actions=A, outputs=head.outputs, fractions=head.fractions)
    return net._replace(init=jax.jit(net.init), apply=jax.jit(net.apply))


@functools.cache
def obs(*shape):
    return jax.random.normal(jax.random.key(9), (B, *(shape or (INPUTS,))))


def params_of(net, x=None, sigma=0.5):
    return net.init(jax.random.key(0), obs()[:1] if x is None else x[:1], sigma)


def f(noise):
    return np.sign(noise) * np.sqrt(np.abs(noise))


def test_noise_is_handed_out_in_order_as_the_papers_f():
    values = np.array([[0.0, -0.0, 1e-12, -4.0, 2.25, -1e-3], [7.0, 3.0, -3.0, 0.0, -1e-20, 5.0]], np.float32)
    noise = _Noise(jnp.asarray(values))
    np.testing.assert_allclose(np.concatenate([noise.take(4), noise.take(2)]), f(values).T, rtol=3e-7)


def test_a_noisy_layer_is_the_papers_formula():
    """Fortunato et al. 2018, eq. 9 to 11, with the matrix of noise written out, for a shared draw and one an item."""
    layer, x = NoisyDense(3, 0.5), obs().T
    params = layer.init(jax.random.key(1), x, None, None)
    mu, sigma, bias, bias_sigma = (
        np.asarray(params["params"][name], np.float64) for name in ("weight", "weight_sigma", "bias", "bias_sigma")
    )
    np.testing.assert_allclose(sigma, 0.5 / np.sqrt(INPUTS), rtol=1e-6)
    np.testing.assert_allclose(bias_sigma, 0.5 / np.sqrt(INPUTS), rtol=1e-6)
    assert np.abs(mu).max() <= 1 / np.sqrt(INPUTS)
    assert np.abs(bias).max() <= 1 / np.sqrt(INPUTS)
    generator = np.random.default_rng(0)
    before, after = f(generator.normal(size=(B, INPUTS))), f(generator.normal(size=(B, 3)))
    wanted = np.stack(
        [(mu + sigma * np.outer(after[b], before[b])) @ x[:, b] + bias + bias_sigma * after[b] for b in range(B)],
        axis=-1,
    )
    ours = layer.apply(params, x, jnp.asarray(before.T, jnp.float32), jnp.asarray(after.T, jnp.float32))
    np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-5)
    shared = layer.apply(params, x, jnp.asarray(before[0], jnp.float32), jnp.asarray(after[0], jnp.float32))
    np.testing.assert_allclose(shared[:, 0], wanted[:, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.apply(params, x, None, None), mu @ x + bias[:, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dueling", mostly_slow([False, True], fast=[True]))
@pytest.mark.parametrize("distribution", mostly_slow(["scalar", "quantile", "iqn", "fqf"], fast=["scalar"]))
@pytest.mark.slow
def test_all_noise_is_used_and_each_draw_is_its_own(distribution, dueling):
    net = network(distribution, noisy=True, dueling=dueling, activation="tanh")  # no unit is dead
    params = params_of(net)
    size = noise_size(params)
    layers = [(INPUTS, 8), (8, 7), (7, {"scalar": A, "quantile": A * K, "iqn": A, "fqf": A}[distribution])]
    if dueling:
        layers += [(8, 7), (7, K if distribution == "quantile" else 1)]
    assert size == sum(map(sum, layers))
    fractions = jnp.linspace(0.02, 0.98, 16)

    def output(noise):
        return jax.tree.leaves(net.apply(params, obs(), noise, fractions))[0]

    noise = jax.random.normal(jax.random.key(2), (size,))
    assert np.all(jax.grad(lambda noise: jnp.sum(jnp.sin(3 * output(noise))))(noise) != 0)
    np.testing.assert_allclose(output(jnp.tile(noise, (B, 1))), output(noise), rtol=1e-4, atol=1e-5)
    assert not np.allclose(output(noise), output(-noise))
    np.testing.assert_array_equal(output(None), output(jnp.zeros(size)))


def test_without_noisy_layers_there_is_no_noise():
    assert noise_size(params_of(network(dueling=True))) == 0


def test_sigma_sets_the_initial_noise_alone():
    low, high = (params_of(network(noisy=True), sigma=sigma)["params"] for sigma in (0.1, 0.4))
    for name in low:
        np.testing.assert_allclose(4 * low[name]["weight_sigma"], high[name]["weight_sigma"], rtol=1e-6)
        np.testing.assert_array_equal(low[name]["weight"], high[name]["weight"])


@pytest.mark.parametrize("distribution", ["scalar", "categorical"])
def test_dueling_is_the_value_plus_advantages_less_their_mean(distribution):
    """Wang et al. 2016, eq. 9, from the layers by hand; the streams share all but the last hidden layer."""
    net = network(distribution, dueling=True)
    params = params_of(net)
    layers = [params["params"][f"Dense_{i}"] for i in range(5)]
    atoms = K if distribution == "categorical" else 1

    def dense(x, layer):
        return x @ np.asarray(layer["weight"], np.float64).T + np.asarray(layer["bias"], np.float64)

    shared = np.maximum(0, dense(np.asarray(obs(), np.float64), layers[0]))
    advantages = dense(np.maximum(0, dense(shared, layers[1])), layers[2]).reshape(B, A, atoms)
    value = dense(np.maximum(0, dense(shared, layers[3])), layers[4]).reshape(B, 1, atoms)
    wanted = value + advantages - advantages.mean(1, keepdims=True)
    np.testing.assert_allclose(
        net.apply(params, obs(), None, None)[0].reshape(B, A, atoms), wanted, rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_the_convolution_is_flaxs():
    x = (jax.random.uniform(jax.random.key(3), (B, 10, 10, 4)) < 0.3).astype(jnp.float32)
    ours, theirs = Convolution(16), nn.Conv(16, (3, 3), padding="VALID")
    params = theirs.init(jax.random.key(4), x)
    params = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(5), leaf.shape), params)

    def apply(params):
        """Ours of their parameters, with the batch last."""
        kernel, bias = params["params"]["kernel"], params["params"]["bias"]
        mine = {"params": {"weight": jnp.transpose(kernel, (3, 2, 0, 1)), "bias": bias}}
        return jnp.transpose(ours.apply(mine, jnp.transpose(x, (3, 1, 2, 0))), (3, 1, 2, 0))

    def their_apply(params):
        return theirs.apply(params, x)

    np.testing.assert_allclose(apply(params), their_apply(params), rtol=1e-5, atol=1e-5)

    def gradient(apply):
        return jax.grad(lambda params: jnp.mean(jnp.sin(apply(params))))(params)

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), gradient(apply), gradient(their_apply)
    )


@pytest.mark.parametrize("distribution", mostly_slow(["scalar", "categorical"], fast=["scalar"]))
def test_a_plain_network_is_flaxs_with_the_same_start(distribution):
    """Layers of ``flax.linen.Dense`` from the transposed weights; and drawn from the same distribution."""
    net = network(distribution, hidden=(64, 64))
    params = params_of(net)["params"]
    x = obs()
    for i in range(3):
        layer = params[f"Dense_{i}"]
        assert layer["weight"].shape == (layer["bias"].size, x.shape[-1])
        x = nn.Dense(layer["bias"].size).apply({"params": {"kernel": layer["weight"].T, "bias": layer["bias"]}}, x)
        x = jax.nn.relu(x) if i < 2 else x
    np.testing.assert_allclose(
        net.apply({"params": params}, obs(), None, None)[0].reshape(B, -1), x, rtol=1e-4, atol=1e-5
    )
    hidden = params["Dense_1"]["weight"]
    theirs = nn.Dense(64).init(jax.random.key(0), jnp.zeros((1, 64)))["params"]["kernel"]
    np.testing.assert_allclose(np.std(hidden), np.std(theirs), rtol=0.05)
    first = params["Dense_0"]["weight"]  # fan-in is 6 and fan-out 64
    np.testing.assert_allclose(np.std(first), 1 / np.sqrt(INPUTS), rtol=0.15)
    assert not np.any(params["Dense_1"]["bias"])


@pytest.mark.parametrize(("width", "inputs", "batch"), [(8, 6, 5), (130, 128, 5), (3, 5, 3300), (130, 128, 129)])
def test_a_layers_gradients_are_flaxs_whatever_its_size(width, inputs, batch):
    """Small, with a large weight matrix, with a large input, with both: each has its own way to the gradient."""
    ours, theirs = Dense(width), nn.Dense(width)
    x = jax.random.normal(jax.random.key(1), (batch, inputs))
    params = theirs.init(jax.random.key(2), x)

    def our_loss(params, x):
        mine = {"params": {"weight": params["params"]["kernel"].T, "bias": params["params"]["bias"]}}
        return jnp.mean(jnp.sin(ours.apply(mine, x.T).T))

    def their_loss(params, x):
        return jnp.mean(jnp.sin(theirs.apply(params, x)))

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-7),
        *(jax.jit(jax.grad(loss, argnums=(0, 1)))(params, x) for loss in (our_loss, their_loss)),
    )


def test_the_minatar_network_is_a_convolution_and_a_hidden_layer():
    images = obs(10, 10, 4) > 0
    net = network(torso="minatar_cnn", hidden=(128,))
    params = params_of(net, images)["params"]
    shapes = {name: layer["weight"].shape for name, layer in params.items()}
    assert shapes == {"Convolution_0": (16, 4, 3, 3), "Dense_0": (128, 16 * 8 * 8), "Dense_1": (A, 128)}
    # Channels stand first where the image becomes a column, as in PyTorch.
    kernel = jnp.transpose(params["Convolution_0"]["weight"], (2, 3, 1, 0))
    convolved = nn.Conv(16, (3, 3), padding="VALID").apply(
        {"params": {"kernel": kernel, "bias": params["Convolution_0"]["bias"]}}, images.astype(jnp.float32)
    )
    x = jax.nn.relu(jnp.transpose(convolved, (0, 3, 1, 2))).reshape(B, -1)
    x = jax.nn.relu(x @ params["Dense_0"]["weight"].T) @ params["Dense_1"]["weight"].T
    np.testing.assert_allclose(net.apply({"params": params}, images, None, None)[0], x, rtol=1e-4, atol=1e-5)


def test_minatars_network_is_one_case_of_the_convolutional_one():
    images = obs(10, 10, 4) > 0
    ours, theirs = (network(torso=torso, hidden=(128,)) for torso in ("cnn", "minatar_cnn"))
    params = params_of(theirs, images)
    np.testing.assert_array_equal(*(net.apply(params, images, None, None)[0] for net in (ours, theirs)))


@pytest.mark.slow
def test_a_convolutional_network_takes_pictures_of_any_size_and_merges_their_last_axes():
    images = obs(7, 8, 2, 3) > 0
    net = network(torso="cnn", channels=(5, 4), kernels=(3, 2), strides=(2, 1), hidden=(16,))
    params = params_of(net, images)["params"]
    shapes = {name: layer["weight"].shape for name, layer in params.items()}
    assert shapes == {
        "Convolution_0": (5, 6, 3, 3),
        "Convolution_1": (4, 5, 2, 2),
        "Dense_0": (16, 4 * 2 * 2),
        "Dense_1": (A, 16),
    }
    x = images.reshape(B, 7, 8, 6).astype(jnp.float32)
    for name, stride in (("Convolution_0", 2), ("Convolution_1", 1)):
        weight, bias = params[name]["weight"], params[name]["bias"]
        x = jax.lax.conv_general_dilated(
            x, weight, (stride, stride), "VALID", dimension_numbers=("NHWC", "OIHW", "NHWC")
        )
        x = jax.nn.relu(x + bias)
    x = jnp.transpose(x, (0, 3, 1, 2)).reshape(B, -1)
    x = jax.nn.relu(x @ params["Dense_0"]["weight"].T) @ params["Dense_1"]["weight"].T
    np.testing.assert_allclose(net.apply({"params": params}, images, None, None)[0], x, rtol=1e-4, atol=1e-5)


def test_an_implicit_network_is_the_papers_formula():
    """Dabney et al. 2018b, section 3.1 and eq. 4: the last hidden layer times the embedding of the fraction."""
    net = network("iqn")
    params = params_of(net)
    fractions = jax.random.uniform(jax.random.key(6), (B, K))
    out, _ = net.apply(params, obs(), None, fractions)
    layer = {
        name: jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"][name]) for name in params["params"]
    }

    def dense(x, name):
        return x @ layer[name]["weight"].T + layer[name]["bias"]

    hidden = np.asarray(obs(), np.float64)
    for name in ("Dense_0", "Dense_1"):
        hidden = np.maximum(0, dense(hidden, name))
    for k in range(K):
        cosines = np.cos(np.pi * np.arange(64) * np.asarray(fractions, np.float64)[:, k : k + 1])
        wanted = dense(hidden * np.maximum(0, dense(cosines, "embedding")), "Dense_2")
        np.testing.assert_allclose(out.values[:, :, k], wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(out.fractions, fractions)
    np.testing.assert_allclose(out.widths, 1 / K)


@pytest.mark.parametrize("seed", range(3))
def test_proposed_fractions_are_in_order_and_make_up_the_whole(seed):
    net = network("fqf", atoms=9)
    params = net.init(jax.random.key(seed), obs()[:1], 0.5)
    params["params"]["fractions"]["weight"] *= 300.0  # far from even
    out, _ = net.apply(params, obs(), None, None)
    assert isinstance(out, Quantiles)
    assert out.values.shape == (B, A, 9)
    assert out.edge_values.shape == (B, A, 8)
    assert np.ptp(out.widths) > 0.1
    np.testing.assert_allclose(out.widths.sum(-1), 1, rtol=1e-5)
    everything = np.empty((B, 17))
    everything[:, ::2], everything[:, 1::2] = out.fractions, out.edges
    assert np.all(np.diff(everything) >= 0)
    assert np.all((everything > 0) & (everything < 1))
    np.testing.assert_allclose(out.edges, np.cumsum(out.widths, -1)[:, :-1], rtol=1e-5)


def test_values_and_edge_values_are_the_quantile_function_at_fractions_and_edges():
    """Yang et al. 2019, section 3.2, from the layers by hand."""
    net = network("fqf")
    params = params_of(net)
    params["params"]["fractions"]["weight"] *= 300.0  # far from even
    out, _ = net.apply(params, obs(), None, None)
    layer = jax.tree.map(lambda x: np.asarray(x, np.float64), params["params"])

    def dense(x, name):
        return x @ layer[name]["weight"].T + layer[name]["bias"]

    hidden = np.asarray(obs(), np.float64)
    for name in ("Dense_0", "Dense_1"):
        hidden = np.maximum(0, dense(hidden, name))
    for fractions, values in ((out.fractions, out.values), (out.edges, out.edge_values)):
        assert fractions.shape[-1] == values.shape[-1]
        cosines = np.cos(np.pi * np.arange(64) * np.asarray(fractions, np.float64)[..., None])
        wanted = dense(hidden[:, None] * np.maximum(0, dense(cosines, "embedding")), "Dense_2")
        np.testing.assert_allclose(np.swapaxes(values, 1, 2), wanted, rtol=1e-3, atol=1e-4)


def test_the_fraction_loss_moves_the_proposal_alone_and_the_quantile_loss_all_else():
    net = network("fqf")
    params = params_of(net)
    for part, moved in (("edges", {"fractions"}), ("values", {"Dense_0", "Dense_1", "Dense_2", "embedding"})):
        grads = jax.grad(
            lambda params, part=part: jnp.sum(getattr(net.apply(params, obs(), None, None)[0], part) ** 2)
        )(params)
        assert {name for name, leaf in grads["params"].items() if np.any(leaf["weight"])} == moved


def test_layer_norm_stands_before_the_activation():
    net = network(layer_norm=True, hidden=(16,), activation="tanh")
    params = params_of(net)
    layer, scaled = params["params"]["Dense_0"], obs() * 100.0
    hidden = scaled @ layer["weight"].T + layer["bias"]
    normal = (hidden - hidden.mean(-1, keepdims=True)) / hidden.std(-1, keepdims=True)
    last = params["params"]["Dense_1"]
    wanted = np.tanh(normal) @ last["weight"].T + last["bias"]
    np.testing.assert_allclose(net.apply(params, scaled, None, None)[0], wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(12,), (4, 3)])
def test_the_one_hot_torso_is_the_first_layer_of_an_mlp(shape):
    """With its weights transposed; an observation of zeros gives the bias."""
    embedded, mlp = network(torso="one_hot", hidden=[7]), network(hidden=[7, 7])
    x = jnp.eye(12)[jnp.array([11, 0, 5, 5, 3])].at[4].set(0.0).reshape(B, *shape)
    params = params_of(embedded, x)["params"]
    first = {"weight": params["Embedding_0"]["embedding"].T, "bias": params["Embedding_0"]["bias"]}
    rest = {f"Dense_{n}": params[f"Dense_{n - 1}"] for n in (1, 2)}
    np.testing.assert_allclose(
        embedded.apply({"params": params}, x, None, None)[0],
        mlp.apply({"params": {"Dense_0": first, **rest}}, x, None, None)[0],
        rtol=1e-5,
        atol=1e-6,
    )
