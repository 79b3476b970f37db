#!/usr/bin/env python3
"""Trains small nets in Halftone and, from the same weights on the same batch, in PyTorch, and compares what both got.

usage: compare.py [--program build/bin/tests/halftone_peer_export] [--seed N] [lenet5] [resnet20] [everything]

For each kind of tensor the table shows the worst max|a - b| / max|b| over its tensors, and which one it was. PyTorch in
f64 stands beside both, so that one sees whose error it is. Rows "their change" are what training added to the
parameters, about a hundredth of them, in which the rounding of each stored weight weighs more. Exit status 1 where
Halftone and PyTorch, both in f32, differ by more than 1e-4, or 1e-3 in such a row, and 77 where PyTorch is missing.

A relu or a maximum that lies within rounding of its kink makes any two f32 runs part by percents. The last column shows
whether a seed has one: how far PyTorch's f64 run moves when all images and parameters move by 1e-6, which is more than
f32 rounding does. The seeds were chosen by that column alone. AdamW has an epsilon of 1e-3 here, since with 1e-8 the
sign of a gradient that is nothing but rounding noise decides a whole step.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file
    from torch.nn import functional as F
except ImportError as error:
    print(f"{error}. To compare with PyTorch: pip install torch safetensors numpy", file=sys.stderr)
    sys.exit(77)

TOLERANCE = 1e-4
CHANGE_TOLERANCE = 1e-3
MOVE = 1e-6
STEPS = 5


class Model:
    """Parameters and statistics under Halftone's names, and the layers that use them; images are [n, c, h, w]."""

    def __init__(self, initial, dtype):
        tensors = {name: to_torch(t).to(dtype).clone() for name, t in initial.items()}
        self.statistics = {n: t for n, t in tensors.items() if "running_" in n}
        self.parameters = {n: t.requires_grad_() for n, t in tensors.items() if n not in self.statistics}

    def state(self):
        return {name: to_halftone(t) for name, t in (self.parameters | self.statistics).items()}

    def weights(self, name):
        return self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")

    def conv(self, x, name, **options):
        return F.conv2d(x, *self.weights(name), **options)

    def dense(self, x, name):
        return F.linear(x.permute(0, 2, 3, 1).flatten(1), *self.weights(name))[:, :, None, None]

    def batch_norm(self, x, name):
        mean, variance = (self.statistics[f"{name}.running_{s}"] for s in ("mean", "var"))
        return F.batch_norm(x, mean, variance, *self.weights(name), training=True)

    def group_norm(self, x, name, groups):
        return F.group_norm(x, groups, *self.weights(name))

    def layer_norm(self, x, name):
        return F.layer_norm(x.movedim(1, -1), x.shape[1:2], *self.weights(name)).movedim(-1, 1)


def to_torch(t):
    return t.permute(0, 3, 1, 2).contiguous() if t.dim() == 4 else t


def to_halftone(t):
    t = t.detach()
    return t.permute(0, 2, 3, 1) if t.dim() == 4 else t


def lenet5(m, x, labels):
    x = F.max_pool2d(F.relu(m.conv(x, "conv1", padding=2)), 2)
    x = F.max_pool2d(F.relu(m.conv(x, "conv2")), 2)
    x = F.relu(m.dense(x, "dense1"))
    x = F.relu(m.dense(x, "dense2"))
    logits = m.dense(x, "dense3").flatten(1)
    return logits, F.cross_entropy(logits, labels)


def resnet20(m, x, labels):
    def conv_norm(x, scope, number, stride=1):
        padding = m.weights(f"{scope}conv{number}")[0].shape[-1] // 2
        return m.batch_norm(m.conv(x, f"{scope}conv{number}", stride=stride, padding=padding), f"{scope}norm{number}")

    x = F.relu(conv_norm(x, "", 1))
    for stage in (1, 2, 3):
        for block in range(3):
            scope = f"stage{stage}.block{block}."
            stride = 2 if stage > 1 and block == 0 else 1
            y = F.relu(conv_norm(x, scope, 1, stride))
            y = conv_norm(y, scope, 2)
            x = F.relu(y + (conv_norm(x, scope + "shortcut.", 1, stride) if stride == 2 else x))
    logits = m.dense(F.adaptive_avg_pool2d(x, 1), "dense1").flatten(1)
    return logits, F.cross_entropy(logits, labels)


def everything(m, x, labels):
    mean, deviation = (torch.tensor(v, dtype=x.dtype)[:, None, None] for v in ((0.1, -0.2, 0.3), (1.0, 0.8, 1.25)))
    x = (x - mean) / deviation
    x = F.relu(m.batch_norm(m.conv(x, "conv1", padding=1), "norm1"))
    x = F.leaky_relu(m.conv(x, "conv2", stride=(2, 1), padding=(2, 1), groups=4), 0.1)
    depthwise = m.conv(x, "conv3", padding=2, dilation=2, groups=16)
    gate = torch.sigmoid(m.conv(x, "conv4"))
    x = F.gelu(m.group_norm(depthwise, "norm2", 4)) * gate + F.silu(x) * 0.5
    largest = F.max_pool2d(x, 3, stride=2, padding=1)
    x = torch.cat([largest, F.avg_pool2d(x, (2, 3), stride=2, padding=(0, 1), count_include_pad=False)], 1)
    x = torch.tanh(m.layer_norm(m.conv(x, "conv5"), "norm3"))
    x = x.permute(0, 2, 3, 1).reshape(-1, 5, 4, 24).permute(0, 3, 1, 2)
    pooled = torch.cat([F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)], 1)
    pooled = F.gelu(m.dense(pooled, "dense1"), approximate="tanh")
    flat = F.hardtanh(m.dense(x, "dense2"))
    logits = (m.dense(pooled, "shared") + m.dense(flat, "shared")).flatten(1)
    return logits, F.cross_entropy(logits, labels, label_smoothing=0.1) + F.mse_loss(pooled, flat) * 0.5


NETS = {"lenet5": lenet5, "resnet20": resnet20, "everything": everything}
SEEDS = {"lenet5": 2, "resnet20": 13, "everything": 2}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.001, weight_decay=0.01, eps=1e-3),
}


def part(file, kind):
    return {name[len(kind) + 1:]: t for name, t in file.items() if name.startswith(f"{kind}.")}


def statistics(tensors, wanted):
    return {name: t for name, t in tensors.items() if ("running_" in name) == wanted}


def run_torch(net, file, dtype):
    """Kind of tensor -> name -> tensor, in Halftone's layout."""
    images, labels, initial = to_torch(file["images"]).to(dtype), file["labels"].long(), part(file, "initial")
    model = Model(initial, dtype)
    logits, loss = net(model, images, labels)
    loss.backward()
    result = {
        "logits": {"logits": logits.detach()},
        "loss": {"loss": loss.detach()[None]},
        "gradient": {name: to_halftone(t.grad) for name, t in model.parameters.items()},
    }
    for name, optimizer in OPTIMIZERS.items():
        model = Model(initial, dtype)
        step = optimizer(list(model.parameters.values()))
        for _ in range(STEPS):
            step.zero_grad()
            net(model, images, labels)[1].backward()
            step.step()
        result |= after_training(name, model.state(), initial)
    return result


def after_training(optimizer, state, initial):
    changes = {name: t.double() - initial[name].double() for name, t in statistics(state, False).items()}
    return {
        f"{optimizer}: parameters": statistics(state, False),
        f"{optimizer}: their change": changes,
        f"{optimizer}: statistics": statistics(state, True),
    }


def of_halftone(file):
    result = {kind: {kind: file[kind]} for kind in ("logits", "loss")}
    result["gradient"] = part(file, "gradient")
    for name in OPTIMIZERS:
        result |= after_training(name, part(file, name), part(file, "initial"))
    return result


def worst(ours, theirs):
    """The greatest max|a - b| / max|b| over all tensors, and the tensor's name."""
    assert ours.keys() == theirs.keys(), f"only on one side: {sorted(ours.keys() ^ theirs.keys())}"
    errors = []
    for name, b in theirs.items():
        a, b = ours[name].double(), b.double()
        assert a.shape == b.shape, f"{name}: {list(a.shape)} and {list(b.shape)}"
        error = ((a - b).abs().max() / b.abs().max()).item()
        errors.append((float("inf") if error != error else error, name))
    return max(errors)


def moved(file):
    random = torch.Generator().manual_seed(1)
    return {name: t if name == "labels" else t * (1 + MOVE * (2 * torch.rand(t.shape, generator=random) - 1).double())
            for name, t in file.items()}


def compare(name, program, seed):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "halftone.safetensors")
        subprocess.run([program, name, str(seed), path], check=True)
        file = load_file(path)
    ours, f32 = of_halftone(file), run_torch(NETS[name], file, torch.float32)
    f64, near = (run_torch(NETS[name], f, torch.float64) for f in (file, moved(file)))
    print(f"{name:22} Halftone-PyTorch  Halftone-f64  PyTorch-f64  f64 moved  worst tensor")
    good = True
    for kind, theirs in f32.items():
        if not theirs:
            continue
        error, tensor = worst(ours[kind], theirs)
        tolerance = CHANGE_TOLERANCE if kind.endswith("change") else TOLERANCE
        others = [worst(a[kind], f64[kind])[0] for a in (ours, f32, near)]
        good = good and error <= tolerance
        print("  {:20} {:16.1e} {:13.1e} {:12.1e} {:10.1e}  {}{}".format(
            kind, error, *others, tensor, "" if error <= tolerance else ": TOO FAR"), flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/bin/tests/halftone_peer_export")
    parser.add_argument("--seed", type=int, help="of inputs and parameters")
    parser.add_argument("nets", nargs="*", default=list(NETS), metavar="net")
    options = parser.parse_args()
    for name in options.nets:
        if name not in NETS:
            parser.error(f"unknown net {name}: known are {', '.join(NETS)}")
    print(f"PyTorch {torch.__version__}, difference allowed: {TOLERANCE:.0e}, {CHANGE_TOLERANCE:.0e} in a change")
    good = [compare(name, options.program, options.seed or SEEDS[name]) for name in options.nets]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
