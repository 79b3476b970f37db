#!/usr/bin/env python3
"""Training images a second of Halftone and of PyTorch on the same machine, taken in turn, and their ratio.

  train.py [--program build/bin/halftone] [--nets lenet5,resnet20] [--precisions f32,bf16,f16] [--batch N] [--threads 2]
           [--device cpu|cuda] [--modes default,channels_last,compile] [--seconds 5] [--rounds 3] [--json FILE]

Nets are lenet5, resnet20, resnet18, airbench94 and resnet50; a batch is 128 images, of airbench94 1024. Both train on one
fixed random batch; PyTorch's lies on the device already. PyTorch runs in f32, under bf16 autocast, or on a GPU under f16
autocast with its GradScaler, in each mode; the fastest counts. On a CPU f16 is held against PyTorch's f32, since its f16
weight gradients there are a reference loop. Needs PyTorch: pip install torch
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    sys.exit(f"{error}. To compare with PyTorch: pip install torch")


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.short = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(self.body(x) + self.short(x))


def resnet(widths, blocks):
    layers, channels = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()], widths[0]
    for stage, width in enumerate(widths):
        for block in range(blocks):
            layers.append(Block(channels, width, 2 if stage and not block else 1))
            channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def airbench94():
    layers, channels = [nn.Conv2d(3, 24, 2), nn.GELU()], 24
    layers[0].weight.requires_grad = False
    for width in (64, 256, 256):
        for first in (True, False):
            norm = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
            norm.weight.requires_grad = False
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), *([nn.MaxPool2d(2)] if first else []), norm, nn.GELU()]
            channels = width
    return nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(channels, 10, bias=False), Scaled(1 / 9))


def net_of(name):
    if name == "lenet5":
        return nn.Sequential(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
                             nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)), (1, 28, 28)
    if name == "resnet20":
        return resnet((16, 32, 64), 3), (3, 32, 32)
    if name == "resnet18":
        return resnet((64, 128, 256, 512), 2), (3, 32, 32)
    if name == "airbench94":
        return airbench94(), (3, 32, 32)
    if name == "resnet50":
        import torchvision
        return torchvision.models.resnet50(), (3, 224, 224)
    raise SystemExit(f"{name}: known nets are lenet5, resnet20, resnet18, airbench94 and resnet50 (torchvision)")


class Torch:
    """One net in one mode, ready to be timed."""

    def __init__(self, name, precision, mode, batch, device):
        torch.manual_seed(1)
        layout = torch.contiguous_format if mode == "default" else torch.channels_last
        net, image = net_of(name)
        self.net = net.to(device=device, memory_format=layout)
        self.x = torch.randn(batch, *image, device=device).to(memory_format=layout)
        self.y = torch.randint(0, 10, (batch,), device=device)
        on_gpu = device != "cpu"
        trained = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=0.01, momentum=0.9, weight_decay=5e-4, fused=on_gpu)
        self.kind, self.batch = "cuda" if on_gpu else "cpu", batch
        self.type = torch.bfloat16 if precision == "bf16" else torch.float16 if precision == "f16" and on_gpu else None
        self.scaler = torch.amp.GradScaler(self.kind, enabled=self.type == torch.float16)
        self.wait = torch.cuda.synchronize if on_gpu else lambda: None
        self.loss = torch.compile(self.forward) if mode == "compile" else self.forward

    def forward(self):
        with torch.autocast(self.kind, dtype=self.type or torch.bfloat16, enabled=self.type is not None):
            return F.cross_entropy(self.net(self.x).float(), self.y)

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(self.loss()).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def rate(self, seconds):
        for _ in range(3):
            self.step()
        self.wait()
        times, began = [], time.perf_counter()
        while time.perf_counter() - began < seconds or len(times) < 3:
            t = time.perf_counter()
            self.step()
            self.wait()
            times.append(time.perf_counter() - t)
        return self.batch / statistics.median(times)


def halftone_rate(a, net, precision, batch, *options):
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run([a.program, "bench", *options, "--net", net, "--precision", precision, "--batch", str(batch), "--threads",
                        str(a.threads), "--device", a.device, "--seconds", str(a.seconds), "--json", report.name],
                       check=True, capture_output=True)
        return json.load(open(report.name))["images_per_second"]


def main():
    p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    p.add_argument("--program", default="build/bin/halftone")
    p.add_argument("--nets", default="lenet5,resnet20")
    p.add_argument("--precisions", default="f32,bf16,f16")
    p.add_argument("--batch", type=int)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--device", default="cpu")
    p.add_argument("--modes", default="default,channels_last")
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--json")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.backends.cudnn.benchmark = True
    rows = []
    for net in a.nets.split(","):
        batch = a.batch or (1024 if net == "airbench94" else 128)
        for precision in a.precisions.split(","):
            peers = {mode: Torch(net, precision, mode, batch, a.device) for mode in a.modes.split(",")}
            ours, theirs = [], {name: [] for name in peers}
            for _ in range(a.rounds):  # in turn, so that a drifting machine slows all alike
                ours.append(halftone_rate(a, net, precision, batch))
                for name, peer in peers.items():
                    theirs[name].append(peer.rate(a.seconds))
            mode = max(theirs, key=lambda name: statistics.median(theirs[name]))
            ratios = [x / y for x, y in zip(ours, theirs[mode])]
            row = dict(net=net, precision=precision, batch=batch, device=torch.cuda.get_device_name() if a.device != "cpu" else "cpu",
                       threads=a.threads, halftone=statistics.median(ours), pytorch=statistics.median(theirs[mode]), mode=mode,
                       ratio=statistics.median(ratios), ratios=ratios, all=theirs, version=torch.__version__)
            rows.append(row)
            format = {None: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[peers[mode].type]
            print(f"{net:10} {precision:5} halftone {row['halftone']:8.0f}  pytorch {format:4} {row['pytorch']:8.0f} "
                  f"({mode})  ratio {row['ratio']:.2f}  [{min(ratios):.2f}, {max(ratios):.2f}]", flush=True)
            if a.json:
                json.dump(rows, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    main()
