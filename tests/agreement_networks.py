"""Small networks of many kinds for (n, 1, 16, 16) images: those that must be measured right, and those that must be refused.

A new kind is one line. Each is a function of this module too, so that a command can be given `agreement_networks:NAME`.
"""

import torch
import torch.nn.functional as F
from torch import nn

from weightlab import backend


class Do(nn.Module):
    """A module that does what a function of its input says."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Residual(nn.Module):
    def __init__(self, channels=6):
        super().__init__()
        self.c = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return x + self.c(x)


class Squeezing(nn.Module):
    """Cannot take a batch of one image."""

    def __init__(self):
        super().__init__()
        self.c, self.l = nn.Conv2d(1, 8, 16), nn.Linear(8, 5)

    def forward(self, x):
        return self.l(torch.relu(self.c(x)).squeeze())


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.attend, self.head = nn.Linear(16, 8), nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(128, 5)

    def forward(self, x):
        x = self.embed(x.flatten(1).reshape(len(x), 16, 16))
        return self.head((x + self.attend(x, x, x)[0]).flatten(1))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.l = nn.Parameter(torch.randn(20, 256) / 16), nn.Linear(20, 5)

    def forward(self, x):
        return self.l(torch.tanh(F.linear(x.flatten(1), self.w)))


class Experts(nn.Module):
    """The second expert is reached by bright images alone."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(256, 9), nn.Linear(256, 9), nn.Linear(9, 5)

    def forward(self, x):
        x = x.flatten(1)
        chosen = (x.mean(1, keepdim=True) > 0.9).float()
        mixed = self.a(x) if not chosen.any() else chosen * self.b(x) + (1 - chosen) * self.a(x)
        return self.head(torch.relu(mixed))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.LSTM(16, 12, batch_first=True), nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.inner(x[:, 0])[0][:, -1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third, self.head = nn.Linear(256, 9), nn.Linear(9, 9), nn.Linear(9, 9), nn.Linear(9, 5)
        self.third.weight = self.second.weight

    def sequence(self):
        return [nn.Flatten(), self.first, nn.Tanh(), self.second, nn.Tanh(), self.third, nn.Tanh(), self.head]

    def forward(self, x):
        return nn.Sequential(*self.sequence())(x)


class Lying(nn.Module):
    """Its sequence is not what it computes."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(256, 9), nn.Linear(9, 5)

    def sequence(self):
        return [nn.Flatten(), self.first, nn.Tanh(), self.second]

    def forward(self, x):
        return -nn.Sequential(*self.sequence())(x)


class Borrowing(nn.Module):
    """Its head computes with the weight of another layer, which it does not own."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(256, 16), nn.Linear(16, 16), nn.Linear(16, 5)
        self.others = [self.b]

    def sequence(self):
        return [nn.Flatten(), self.a, nn.Tanh(), self.b, Do(lambda x: torch.tanh(F.linear(x, self.others[0].weight))), self.c]

    def forward(self, x):
        return nn.Sequential(*self.sequence())(x)


class Saying(nn.Module):
    """`sequence()` says something else."""

    def __init__(self, what):
        super().__init__()
        self.l, self.what = nn.Linear(256, 5), what

    def sequence(self):
        return self.what

    def forward(self, x):
        return self.l(x.flatten(1))


class Remembering(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, x):
        self.asked += 0.1
        return x * (1 + torch.sin(self.asked))


class Kept(nn.Module):
    """Computes with weights that it copied when it was made."""

    def __init__(self):
        super().__init__()
        self.l = nn.Linear(256, 5)
        self.copy = self.l.weight.detach().clone()

    def forward(self, x):
        self.l(x.flatten(1))
        return F.linear(x.flatten(1), self.copy)


def tail(n):
    return nn.Flatten(), nn.Linear(n, 5)


def pooled(pool, n, activation=nn.Tanh):
    return lambda: nn.Sequential(nn.Conv2d(1, 6, 3), activation(), pool, nn.Conv2d(6, 8, 3), activation(), *tail(n))


def hooked(of):
    def make():
        model = nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(), *tail(128))
        of(model).register_forward_hook(lambda module, inputs, output: output * 1.5 + 0.1)
        return model

    return make


def small(name, shorten=lambda inner: None, **options):
    """An architecture of torchvision, perhaps without its last and largest blocks; images are made three-channelled and 32x32."""

    def make():
        inner = getattr(backend.torchvision().models, name)(num_classes=5, **options)
        shorten(inner)
        return nn.Sequential(Do(lambda x: F.interpolate(x, (32, 32)).repeat(1, 3, 1, 1)), inner)

    return make


def short_resnet(inner):
    inner.layer3, inner.layer4, inner.fc = nn.Identity(), nn.Identity(), nn.Linear(128, 5)


def short(blocks, channels):
    def shorten(inner):
        inner.features, inner.classifier = inner.features[:blocks], nn.Linear(channels, 5)

    return shorten


S, C, L, A2 = nn.Sequential, nn.Conv2d, nn.Linear, nn.AvgPool2d
RIGHT = {
    "plain_tanh": pooled(A2(2), 200), "plain_relu": pooled(A2(2), 200, nn.ReLU), "plain_sigmoid": pooled(A2(2), 200, nn.Sigmoid),
    "divisor_tanh": pooled(A2(2, divisor_override=1), 200), "divisor_relu": pooled(A2(2, divisor_override=3), 200, nn.ReLU),
    "pool_ceil": pooled(A2(2, ceil_mode=True), 200), "pool_stride_1": pooled(A2(2, stride=1), 968),
    "pool_padded": pooled(A2(2, padding=1), 288), "pool_uncounted": pooled(A2(2, padding=1, count_include_pad=False), 288),
    "pool_3": pooled(A2(3), 32), "pool_max": pooled(nn.MaxPool2d(2), 200), "pool_lp": pooled(nn.LPPool2d(2, 2), 200, nn.ReLU),
    "pool_adaptive": pooled(nn.AdaptiveAvgPool2d(7), 200), "pool_max_adaptive": pooled(nn.AdaptiveMaxPool2d(7), 200),
    "relu_in_place": lambda: S(C(1, 6, 3), nn.ReLU(inplace=True), A2(2), C(6, 8, 3), nn.ReLU(inplace=True), *tail(200)),
    "writes_first": lambda: S(Do(lambda x: x.mul_(2).sub_(1)), C(1, 6, 3), nn.ReLU(), *tail(1176)),
    "writes_between": lambda: S(C(1, 6, 3), nn.Tanh(), Residual(), Do(lambda x: x.add_(1)), Residual(), *tail(1176)),
    "writes_into_a_stage": lambda: S(C(1, 6, 3), S(Do(lambda x: x.mul_(0.5)), C(6, 6, 3)), nn.ReLU(), *tail(864)),
    "view_then_write": lambda: S(nn.Flatten(), Do(lambda x: x.neg_()), L(256, 9), nn.ReLU(), L(9, 5)),
    "nested": lambda: S(S(C(1, 6, 3), nn.BatchNorm2d(6)), nn.ReLU(), *tail(1176)),
    "nested_deep": lambda: S(S(S(C(1, 6, 3), nn.Tanh()), A2(2)), S(S(C(6, 8, 3)), nn.Tanh()), S(*tail(200))),
    "batch_norm": lambda: S(C(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU6(), *tail(1176)),
    "residual_relu": lambda: S(C(1, 6, 3), nn.ReLU(), Residual(), nn.ReLU(), *tail(1176)),
    "residual_first": lambda: S(Residual(1), nn.Tanh(), Residual(1), nn.Tanh(), *tail(256)),
    "tokens": lambda: S(Do(lambda x: x.flatten(1).reshape(len(x), 16, 16)), L(16, 8), nn.ReLU(), *tail(128)),
    "tokens_tanh": lambda: S(Do(lambda x: x[:, 0]), L(16, 8), nn.Tanh(), L(8, 4), nn.Tanh(), *tail(64)),
    "layer_norm": lambda: S(nn.Flatten(), L(256, 20), nn.LayerNorm(20), nn.GELU(), L(20, 5)),
    "group_norm": lambda: S(C(1, 6, 3), nn.GroupNorm(2, 6), nn.SiLU(), *tail(1176)),
    "instance_norm": lambda: S(C(1, 6, 3), nn.InstanceNorm2d(6), nn.ELU(), *tail(1176)),
    "prelu": lambda: S(C(1, 6, 3), nn.PReLU(), A2(2), C(6, 8, 3), nn.PReLU(8), *tail(200)),
    "softmax_inside": lambda: S(nn.Flatten(), L(256, 20), nn.Softmax(1), L(20, 5)),
    "log_softmax_end": lambda: S(nn.Flatten(), L(256, 20), nn.ReLU(), L(20, 5), nn.LogSoftmax(1)),
    "dropout": lambda: S(nn.Flatten(), nn.Dropout(0.5), L(256, 20), nn.ReLU(), nn.Dropout(0.5), L(20, 5), nn.Dropout(0.5)),
    "identity": lambda: S(nn.Identity(), C(1, 6, 3), nn.Identity(), nn.ReLU(), nn.Identity(), *tail(1176), nn.Identity()),
    "grouped": lambda: S(C(1, 6, 3), nn.ReLU(), C(6, 6, 3, groups=3), nn.ReLU(), *tail(864)),
    "depthwise": lambda: S(C(1, 8, 1), nn.ReLU(), C(8, 8, 3, groups=8), nn.ReLU(), C(8, 6, 1), *tail(1176)),
    "dilated": lambda: S(C(1, 6, 3, dilation=2), nn.Tanh(), A2(2), C(6, 6, (1, 3)), nn.Tanh(), A2(2), *tail(36)),
    "strided": lambda: S(C(1, 6, 3, stride=2), nn.ReLU(), A2(2), *tail(54)),
    "reflected": lambda: S(C(1, 6, 3, padding=1, padding_mode="reflect"), nn.ReLU(), A2(2), *tail(384)),
    "circular": lambda: S(C(1, 6, 3, padding="same", padding_mode="circular"), nn.Tanh(), A2(2), *tail(384)),
    "no_bias": lambda: S(C(1, 6, 3, bias=False), nn.Tanh(), A2(2), nn.Flatten(), L(294, 9, bias=False), nn.Tanh(), L(9, 5)),
    "large_kernel": lambda: S(C(1, 3, 9), nn.Tanh(), A2(2), *tail(48)),
    "covering": lambda: S(C(1, 12, 16), nn.Tanh(), nn.Flatten(), L(12, 5)),
    "covering_unflattened": lambda: S(C(1, 12, 16), nn.Tanh(), C(12, 8, 1), nn.ReLU(), *tail(8)),
    "transposed": lambda: S(C(1, 4, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2, stride=2), nn.Tanh(), *tail(588)),
    "one_dimensional": lambda: S(nn.Flatten(2), nn.Conv1d(1, 4, 9, stride=4), nn.ReLU(), nn.MaxPool1d(2), *tail(124)),
    "unflatten": lambda: S(nn.Flatten(), L(256, 64), nn.ReLU(), nn.Unflatten(1, (4, 4, 4)), C(4, 4, 3), nn.ReLU(), *tail(16)),
    "pixel_shuffle": lambda: S(C(1, 8, 3), nn.PixelShuffle(2), nn.ReLU(), *tail(1568)),
    "upsample": lambda: S(A2(2), nn.Upsample(scale_factor=2), C(1, 4, 3), nn.ReLU(), *tail(784)),
    "zero_pad": lambda: S(nn.ZeroPad2d(1), C(1, 4, 3), nn.ReLU(), A2(2), *tail(256)),
    "flatten_partly": lambda: S(C(1, 6, 3), nn.ReLU(), nn.Flatten(2), L(196, 4), nn.ReLU(), *tail(24)),
    "bilinear_use": lambda: S(nn.Flatten(), L(256, 6), Do(lambda x: (x[:, :, None] * x[:, None]).flatten(1)), L(36, 5)),
    "large_logits": lambda: S(nn.Flatten(), L(256, 20), nn.ReLU(), L(20, 5), Do(lambda x: x * 1e6)),
    "small_logits": lambda: S(nn.Flatten(), L(256, 20), nn.ReLU(), L(20, 5), Do(lambda x: x * 1e-6)),
    "not_a_number": lambda: S(nn.Flatten(), L(256, 20), nn.ReLU(), L(20, 5), Do(lambda x: torch.where(x > 0.2, torch.nan, x))),
    "hook_on_activation": hooked(lambda model: model[1]), "hook_on_layer": hooked(lambda model: model[0]),
    "hook_on_pool": hooked(lambda model: model[2]), "hook_on_network": hooked(lambda model: model),
    "squeezing": Squeezing, "attention": Attention, "functional": Functional, "experts": Experts, "recurrent": Recurrent,
    "tied": Tied, "lying": Lying, "borrowing": Borrowing,
    "resnet18": small("resnet18", short_resnet), "mobilenet_v2": small("mobilenet_v2", width_mult=0.25),
    "mobilenet_v3": small("mobilenet_v3_small", short(9, 48)), "shufflenet": small("shufflenet_v2_x0_5"), "squeezenet": small("squeezenet1_1"),
    "mnasnet": small("mnasnet0_5"), "efficientnet": small("efficientnet_b0", short(5, 80)),
}  # fmt: skip
AGAIN, COMPANY = "gives other answers to the same images", "gives another answer to an image in another batch"
REFUSED = {
    "batch_statistics": (lambda: S(C(1, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), nn.ReLU(), *tail(1176)), COMPANY),
    "centred": (lambda: S(C(1, 6, 3), Do(lambda x: x - x.mean(0)), nn.ReLU(), *tail(1176)), COMPANY),
    "softmax_over_the_batch": (lambda: S(nn.Flatten(), L(256, 9), nn.Softmax(0), L(9, 5)), COMPANY),
    "sorted_batch": (lambda: S(nn.Flatten(), Do(lambda x: x.sort(0).values), L(256, 5)), COMPANY),
    "chance": (lambda: S(C(1, 6, 3), nn.ReLU(), Do(lambda x: F.dropout(x, 0.3)), *tail(1176)), AGAIN),
    "noise": (lambda: S(nn.Flatten(), Do(lambda x: x + torch.randn_like(x)), L(256, 5)), AGAIN),
    "state": (lambda: S(C(1, 6, 3), nn.Tanh(), Remembering(), *tail(1176)), AGAIN),
    "kept_weights": (Kept, "gives the same answers for all weights of l,"),
    "tuple": (lambda: S(*tail(256), Do(lambda x: (x, x))), "must give logits of shape .* got tuple"),
    "dict": (lambda: S(*tail(256), Do(lambda x: {"out": x})), "must give logits of shape .* got dict"),
    "maps": (lambda: S(C(1, 5, 3)), "must give logits of shape .* got"),
    "classes": (lambda: S(nn.Flatten(), Do(lambda x: x.long()), Do(lambda x: x.float()), L(256, 3)), "has 3 outputs, but"),
    "saying_text": (lambda: Saying("layers"), "must return the modules"),
    "saying_nothing": (lambda: Saying([]), "must return the modules"),
    "double": (lambda: S(*tail(256), Do(lambda x: x)).double(), "float64|cannot take"),
    "half": (lambda: S(Do(lambda x: x.half()), *tail(256)).half(), "layer 2 has weights of torch.float16"),
    "complex": (lambda: S(Do(lambda x: x.cfloat()), *tail(256), Do(lambda x: x.real)).to(torch.complex64), "complex64|cannot"),
    "meta": (lambda: S(*tail(256)).to("meta"), "has no values yet|cannot"),
    "empty_layer": (lambda: S(nn.Flatten(), L(256, 0), L(0, 5)), "has no weights, its shape is"),
}  # fmt: skip


def seeded(make):
    """What a factory makes, with weights that are the same at every call, in evaluation mode."""

    def factory():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return make().eval()

    return factory


globals().update({name: seeded(make) for name, make in RIGHT.items()})
globals().update({name: seeded(make) for name, (make, _) in REFUSED.items()})
