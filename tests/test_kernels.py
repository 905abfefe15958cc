"""Compiled kernels against torch, on shapes that do not fit the steps they work in."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from weightlab.evaluation import kernels

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "": lambda y: y}


def drawn(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("images", [1, 100, kernels.LANES + 40])
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(
    ("inputs", "channels", "kernel", "size"), [(1, 6, (5, 5), (32, 32)), (3, 5, (3, 2), (12, 9)), (2, 1, (1, 1), (4, 5))]
)
def test_convolution_with_activation_and_mean(inputs, channels, kernel, size, activation, images):
    x, weights, bias = drawn(inputs, *size, images), drawn(channels, inputs, *kernel), drawn(channels)
    y = F.conv2d(torch.from_numpy(x).movedim(-1, 0), torch.from_numpy(weights), torch.from_numpy(bias))
    expected = F.avg_pool2d(ACTIVATIONS[activation](y), 2).movedim(0, -1).numpy()
    out = np.full(expected.shape, np.nan, dtype=np.float32)
    kernels.convolve(x, weights, bias, activation, out)
    np.testing.assert_allclose(out, expected, atol=2e-5)


def test_a_compiled_convolution_is_found_again():
    """It was a closure over a compiled function, which numba's cache took for another one each time: every process compiled it."""
    x, weights, bias, out = drawn(1, 4, 4, 1), drawn(2, 1, 1, 1), drawn(2), np.empty((2, 2, 2, 1), np.float32)
    for _ in range(2):
        kernels._convolution.cache_clear()
        kernels.convolve(x, weights, bias, "tanh", out)
    assert len(kernels._convolution(1, 1).stats.cache_hits) == 1 and not kernels._convolution(1, 1).stats.cache_misses


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("inputs", "outputs", "images"), [(400, 120, 50), (37, 13, kernels.LANES + 1), (3, 1, 1)])
def test_linear_layer(inputs, outputs, activation, images):
    x, weights, bias = drawn(inputs, images), drawn(outputs, inputs), drawn(outputs)
    expected = ACTIVATIONS[activation](torch.from_numpy(weights) @ torch.from_numpy(x) + torch.from_numpy(bias)[:, None])
    out = np.full((outputs, images), np.nan, dtype=np.float32)
    kernels.linear(x, weights, bias, activation, out)
    np.testing.assert_allclose(out, expected.numpy(), atol=2e-4)


def test_tanh_is_within_a_millionth_everywhere():
    x = np.concatenate([np.linspace(-12, 12, 100_001), [0.0, 1e-30, -1e-30, 1e30]]).astype(np.float32)[None]
    out = np.empty_like(x)
    kernels.linear(x, np.ones((1, 1), np.float32), np.zeros(1, np.float32), "tanh", out)
    np.testing.assert_allclose(out[0], np.tanh(x[0].astype(float)), atol=1e-6)
