"""Random sequential networks for (n, 1, 16, 16) images, as a hypothesis strategy, and whether the engine records what they do."""

import numpy as np
import torch
from hypothesis import strategies as st
from torch import nn

from weightlab import sharing, training
from weightlab.compression.sharing.codebooks import Codebooks
from weightlab.data import Split
from weightlab.errors import UserError
from weightlab.evaluation import Evaluator

IMAGES, CLASSES, KS = 37, 5, (1, 2, 3, 5)
LARGEST = 4000  # numbers of an activation of an image
IDLE = "gives the same answers for all weights"  # a network that is dead, such as one that ends in a ReLU of negative numbers


class Scaled(nn.ReLU):
    """A subclass that does something else than its parent."""

    def forward(self, x):
        return 0.5 * super().forward(x) + 0.1


class Writing(nn.Module):
    """Writes into its input."""

    def forward(self, x):
        return x.mul_(0.7).add_(0.05)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def one(*values):
    return st.sampled_from(values)


def conv(draw, shape):
    groups = draw(one(1, 1, 1, shape[0]))
    outputs = groups * draw(st.integers(1, 4))
    size = draw(one(1, 2, 3, 5, (1, 3), shape[1:]))
    options = {"stride": draw(one(1, 1, 2)), "padding": draw(one(0, 0, 1)), "dilation": draw(one(1, 1, 2))}
    mode = draw(one("zeros", "zeros", "reflect", "circular", "replicate"))
    return nn.Conv2d(shape[0], outputs, size, groups=groups, bias=draw(st.booleans()), padding_mode=mode, **options)


def average(draw, shape):
    options = {"padding": draw(one(0, 0, 1)), "ceil_mode": draw(st.booleans()), "count_include_pad": draw(st.booleans())}
    return nn.AvgPool2d(draw(one(2, 2, 3)), draw(one(2, 2, 1, None)), divisor_override=draw(one(None, None, 1, 3)), **options)


def block(draw, shape):
    """What a compiled kernel knows, or nearly: a convolution, an activation and an average pool."""
    activation, pool = draw(one(nn.Tanh, nn.Tanh, nn.ReLU, nn.ReLU, nn.Sigmoid, Scaled)), average(draw, shape)
    pool = draw(one(nn.AvgPool2d(2), pool))
    return nn.Sequential(nn.Conv2d(shape[0], draw(st.integers(1, 6)), draw(one(3, 5, (1, 3)))), activation(), pool)


def largest(draw, shape):
    return nn.MaxPool2d(draw(one(2, 3)), draw(one(None, 1)), dilation=draw(one(1, 2)), ceil_mode=draw(st.booleans()))


def normalised(draw, shape):
    norm = nn.BatchNorm2d(shape[0], affine=draw(st.booleans()))
    norm.running_mean.uniform_(-0.5, 0.5)
    norm.running_var.uniform_(0.5, 2)
    return norm


def hooked(draw, shape):
    part = nn.Tanh()
    part.register_forward_hook(lambda module, inputs, output: output + 0.2)
    return part


MAPS = {  # what takes (channels, height, width)
    "convolution": conv,
    "block": block,
    "average pool": average,
    "max pool": largest,
    "adaptive average pool": lambda draw, shape: nn.AdaptiveAvgPool2d(draw(one(1, 2, 5))),
    "adaptive max pool": lambda draw, shape: nn.AdaptiveMaxPool2d(draw(one(1, 3))),
    "power average pool": lambda draw, shape: nn.LPPool2d(draw(one(1, 2)), 2),
    "batch norm": normalised,
    "group norm": lambda draw, shape: nn.GroupNorm(draw(one(1, shape[0])), shape[0]),
    "instance norm": lambda draw, shape: nn.InstanceNorm2d(shape[0], affine=draw(st.booleans())),
    "zero pad": lambda draw, shape: nn.ZeroPad2d(draw(one(1, (0, 1, 2, 0)))),
    "upsample": lambda draw, shape: nn.Upsample(scale_factor=2, mode=draw(one("nearest", "bilinear"))),
    "residual": lambda draw, shape: Residual(nn.Conv2d(shape[0], shape[0], 3, padding=1)),
}
ANY = {  # what takes anything
    "tanh": lambda draw, shape: nn.Tanh(),
    "relu": lambda draw, shape: nn.ReLU(inplace=draw(st.booleans())),
    "relu6": lambda draw, shape: nn.ReLU6(inplace=draw(st.booleans())),
    "sigmoid": lambda draw, shape: nn.Sigmoid(),
    "elu": lambda draw, shape: nn.ELU(inplace=draw(st.booleans())),
    "gelu": lambda draw, shape: nn.GELU(),
    "prelu": lambda draw, shape: nn.PReLU(draw(one(1, shape[0]))),
    "linear": lambda draw, shape: nn.Linear(shape[-1], draw(st.integers(1, 20)), bias=draw(st.booleans())),
    "layer norm": lambda draw, shape: nn.LayerNorm(shape[-1]),
    "softmax": lambda draw, shape: nn.Softmax(-1),
    "flatten": lambda draw, shape: nn.Flatten(draw(one(1, len(shape)))),
    "dropout": lambda draw, shape: nn.Dropout(0.5),
    "identity": lambda draw, shape: nn.Identity(),
    "subclass": lambda draw, shape: Scaled(),
    "writing": lambda draw, shape: Writing(),
    "hooked": hooked,
}


@st.composite
def networks(draw):
    """A network in evaluation mode with (n, `CLASSES`) logits, whose parts may be nested."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(draw(st.integers(0, 1000)))
        parts, x = [], torch.rand(2, 1, 16, 16)
        for _ in range(draw(st.integers(1, 7))):
            kinds = [*ANY.values(), *[ANY["linear"]] * 5, *([*MAPS.values(), *[conv, block] * 6] if x.ndim == 4 else [])]
            kinds += [block] * len(kinds) if not parts else []  # every stage before a compiled one is compiled too
            part = draw(one(*kinds))(draw, tuple(x.shape[1:])).eval()
            try:
                y = part(x.clone())
            except (RuntimeError, ValueError):  # it does not fit here
                continue
            if 0 < y[0].numel() <= LARGEST:
                parts.append(part)
                x = y
        parts += [nn.Flatten(), nn.Linear(x[0].numel(), CLASSES)]
        if at := draw(st.integers(0, len(parts) - 1)):
            parts = [nn.Sequential(*parts[:at]), *parts[at:]]
        return nn.Sequential(*parts).eval()


def blobs(n=IMAGES):
    """Images of random brightness, uint8 (n, 1, 16, 16)."""
    coarse = torch.rand(n, 1, 5, 5, generator=torch.Generator().manual_seed(1))
    return (255 * nn.functional.interpolate(coarse, (16, 16), mode="bilinear")).to(torch.uint8)


def disagreement(network):
    """What the engine records otherwise than the network does, "" if nothing; "refused" if it is refused."""
    images, example = blobs(), blobs()[:2].float() / 255
    # As right answers those that it gives, so that no image is far from one plan and near another by chance.
    split = Split("blobs", "validation", images, training.logits(network, images, "cpu").argmax(1))
    books = Codebooks(network, ks=KS, example=example)
    layers, rng = len(books.names), np.random.default_rng(0)
    plans = np.concatenate([[[k] * layers for k in KS], rng.choice(KS, (3, layers))])
    expected = [training.accuracy(sharing.share(network, plan, example=example)[0], split, "cpu") for plan in plans.tolist()]
    try:
        engines = [Evaluator(network, books, [split], "cpu", 1), Evaluator(network, books, [split], "cpu", 1, chunk=8, memory=0)]
    except UserError as error:
        return "refused" if IDLE in str(error) else f"refused for {error}"
    for engine, order in ((engines[0], plans), (engines[1], plans[::-1])):
        found = engine.accuracy(order)[:, 0]
        found = found if order is plans else found[::-1]
        if not np.allclose(found, expected, rtol=0, atol=1e-12):
            return f"recorded {found.tolist()}, but it has {expected}"
    return ""
