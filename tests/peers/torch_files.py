#!/usr/bin/env python3
"""Carries nets from PyTorch to Halftone and back: logits must agree, and every tensor must come back the same.

usage: torch_files.py [--program build/bin/tests/halftone_peer_load]

The nets are lenet5 and resnet18 under torchvision's names (its stem made 3x3 for small images), with random weights and
statistics, saved in f32, f16 and bf16 by the safetensors package. Logits may differ by 1e-4 of the largest. As a control
the same file is read with the wrong layout, which must be told from it. Exit status 1 where something differs, and 77
where PyTorch is missing.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file, save_file
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    print(f"{error}. To compare with PyTorch: pip install torch safetensors numpy", file=sys.stderr)
    sys.exit(77)

TOLERANCE = 1e-4


class LeNet5(nn.Module):
    image = (1, 28, 28)

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = torch.flatten(F.max_pool2d(F.relu(self.conv2(x)), 2), 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class BasicBlock(nn.Module):
    def __init__(self, before, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)) \
            if before != channels else nn.Identity()

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.downsample(x))


class ResNet18(nn.Module):
    image = (3, 32, 32)

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        for number, (before, channels) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), 1):
            blocks = BasicBlock(before, channels, 1 if number == 1 else 2), BasicBlock(channels, channels, 1)
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.fc = nn.Linear(512, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for number in (1, 2, 3, 4):
            x = getattr(self, f"layer{number}")(x)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


RULES = {
    "lenet5": (("dense", "fc"),),
    "resnet18": (("shortcut.conv1", "downsample.0"), ("shortcut.norm1", "downsample.1"), ("stage", "layer"), (".block", "."),
                 ("norm", "bn"), ("dense1", "fc")),
}


def back(name, file, net):
    """Halftone's tensors under PyTorch's names, in its order."""
    state = {}
    for ours, t in file.items():
        for before, after in RULES[name]:
            ours = ours.replace(before, after)
        if t.dim() == 4:
            t = t.permute(0, 3, 1, 2)
        elif name == "lenet5" and ours == "fc1.weight":
            t = t.reshape(120, 5, 5, 16).permute(0, 3, 1, 2).flatten(1)
        state[ours] = t.contiguous()
    return state


def check(name, net, dtype, program):
    torch.manual_seed(1)
    for module in net.modules():  # what would hide a mistake at 0 and 1
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5), module.running_var.uniform_(0.5, 1.5)
            module.num_batches_tracked += 7
    net.load_state_dict({k: t.to(dtype).to(t.dtype) if t.is_floating_point() else t for k, t in net.state_dict().items()})
    images = torch.randn(5, *net.image)
    with torch.no_grad():
        logits = net.eval()(images)
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in net.state_dict().items()}
        save_file(state, at / "torch.safetensors", metadata={"format": "pt"})
        save_file({"images": images.permute(0, 2, 3, 1).contiguous()}, at / "images.safetensors")

        def load(out, *more):
            command = [program, name, at / "torch.safetensors", at / "images.safetensors", at / out, *more]
            done = subprocess.run(command, capture_output=True, text=True)
            return done, load_file(at / out / "logits.safetensors")["logits"] if done.returncode == 0 else None

        done, ours = load("out")
        assert done.returncode == 0, done.stderr
        counters = sorted(k for k in state if "num_batches" in k)
        assert sorted(line.split()[1] for line in done.stdout.splitlines()) == counters, done.stdout
        error = ((ours - logits).abs().max() / logits.abs().max()).item()
        returned = back(name, load_file(at / "out" / "model.safetensors"), net)
        expected = {k: t.float() for k, t in state.items() if k not in counters}
        same = returned.keys() == expected.keys() and all(torch.equal(returned[k], t) for k, t in expected.items())
        done, wrong = load("wrong", "krsc")
        told = wrong is None or ((wrong - logits).abs().max() / logits.abs().max()).item() > 100 * TOLERANCE
    good = error <= TOLERANCE and same and told
    print(f"{name:9} {str(dtype)[6:]:9} logits {error:.1e}, back {'the same' if same else 'DIFFERENT'}, "
          f"wrong layout {'told' if told else 'NOT TOLD'}{'' if good else ': FAILED'}", flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/bin/tests/halftone_peer_load")
    program = parser.parse_args().program
    good = [check(name, net(), dtype, program) for name, net in (("lenet5", LeNet5), ("resnet18", ResNet18))
            for dtype in (torch.float32, torch.float16, torch.bfloat16)]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
