#!/usr/bin/env python3
"""Carries nets from PyTorch through ONNX to Halftone and on to onnxruntime: logits must agree.

usage: onnx_files.py [--program build/bin/tests/halftone_peer_onnx]

The nets are a LeNet, torchvision's resnet18, mobilenet_v2 and mobilenet_v3_small, one with asymmetric padding, ceil-mode pools,
a depthwise convolution and a concatenation, and a small U-Net with a transposed convolution and both ways of upsampling, 
one with parts, gates and a softmax between its layers, and one that ends in a convolution, with random weights and statistics, exported by both of PyTorch's exporters, by one of them
with batch norm kept, by the other with numbers beside the file. Halftone's logits may differ from PyTorch's, and
onnxruntime's from Halftone's, by 1e-4 of the largest, before a step of training and after it, which must change them. Files
that lack an operation or numbers must be refused by name. Exit status 1 where something differs, and 77 where a package is
missing.
"""
import argparse
import logging
import pathlib
import subprocess
import sys
import tempfile
import warnings

try:
    import onnx
    import onnxruntime
    import onnxscript
    import torch
    import torchvision
    from safetensors.torch import load_file, save_file
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    print(f"{error}. To compare: pip install torch torchvision onnx onnxruntime onnxscript safetensors", file=sys.stderr)
    sys.exit(77)

TOLERANCE = 1e-4
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.max_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.max_pool2d(F.leaky_relu(self.conv2(x), 0.1), 2)
        x = x.view(x.size(0), -1)
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(x))), approximate="tanh"))


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8)
        self.depthwise, self.fc = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Linear(16, 7, bias=False)

    def forward(self, x):
        x = F.silu(self.bn(self.conv(F.pad(x, (0, 1, 0, 1)))))
        a, b = F.max_pool2d(x, 3, 2, ceil_mode=True), F.avg_pool2d(F.relu6(self.depthwise(x)), 3, 2, ceil_mode=True)
        return self.fc(torch.cat([a, b], 1).mean((2, 3)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.bn, self.inner = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.out, self.fc = nn.Conv2d(30, 8, 3, padding=1, bias=False), nn.Linear(8, 5)

    def forward(self, x):
        a = F.relu(self.bn(self.down(x)))
        b = F.hardswish(self.inner(F.max_pool2d(a, 2)))
        ways = [F.interpolate(b, scale_factor=2.0, mode="nearest"),
                F.interpolate(b, scale_factor=2.0, mode="bilinear", align_corners=False)]
        y = torch.cat([a, self.up(b), *ways], 1)
        y = F.hardsigmoid(self.out(y))[:, :, 1:-2, 3:]
        return self.fc(y.mean((2, 3)))


class Parts(nn.Module):
    """What a graph has between its layers."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.other = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.expand = nn.Linear(8, 4, bias=False), nn.Linear(4, 8)
        self.mix, self.fc = nn.Linear(8 * 49, 6), nn.Linear(14, 5)

    def forward(self, x):
        x = F.gelu(self.bn(self.conv(F.pad(x, (1, 0, 2, 1)))))  # more at the top and left
        a, b = self.other(x).chunk(2, 1)
        x = torch.cat([torch.clamp(a, min=0.0), -b], 1)
        n, c = x.shape[:2]
        x = x * torch.sigmoid(self.expand(F.relu(self.squeeze(x.mean((2, 3)))))).view(n, c, 1, 1)
        y = F.softmax(F.max_pool2d(x, 2).flatten(1), 1)  # over all numbers of an image
        return self.fc(torch.cat([self.mix(50 * y), F.adaptive_max_pool2d(x, 1).squeeze(-1).squeeze(-1)], 1))


class ConvHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x):
        return F.adaptive_avg_pool2d(self.conv(x), 1).flatten(1)


NETS = {
    "lenet": (LeNet, (1, 28, 28)),
    "odd": (Odd, (3, 32, 32)),
    "resnet18": (torchvision.models.resnet18, (3, 64, 64)),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), (3, 64, 64)),
    "mobilenet_v3": (lambda: torchvision.models.mobilenet_v3_small(num_classes=10), (3, 64, 64)),
    "unet": (UNet, (3, 32, 48)),
    "parts": (Parts, (3, 27, 28)),
    "conv_head": (ConvHead, (3, 12, 12)),
}


def make(name):
    torch.manual_seed(1)
    net, image = NETS[name][0](), NETS[name][1]
    for module in net.modules():  # what would hide a mistake at 0 and 1
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5), module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net.eval(), torch.randn(4, *image)


def export(net, images, file, way):
    if way == "dynamo":
        torch.onnx.export(net, (images,), file, dynamo=True, verbose=False, external_data=True)
    else:
        more = dict(training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False) if way == "kept" else {}
        torch.onnx.export(net, images, file, dynamo=False, **more)
        net.eval()


def far(one, other):
    return ((one - other).abs().max() / other.abs().max()).item()


def run_onnx(file, images):
    onnx.checker.check_model(onnx.load(file), full_check=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def check(name, way, program, at):
    net, images = make(name)
    file = at / f"{name}.onnx"
    export(net, images, file, way)
    with torch.no_grad():
        logits = net(images)
    save_file({"images": images.permute(0, 2, 3, 1).contiguous()}, at / "images.safetensors")
    done = subprocess.run([program, file, at / "images.safetensors", at / "out"], capture_output=True, text=True)
    if done.returncode == 77:
        print(done.stderr.strip(), file=sys.stderr)
        sys.exit(77)
    assert done.returncode == 0, f"{name} {way}: {done.stderr}"
    ours = load_file(at / "out/logits.safetensors")["logits"]
    trained = load_file(at / "out/trained.safetensors")["logits"]
    again, after = (run_onnx(at / f"out/{one}.onnx", images) for one in ("again", "trained"))
    differences = far(ours, logits), far(again, ours), far(after, trained)
    good = again.shape == logits.shape and all(d <= TOLERANCE for d in differences) and far(trained, ours) > 10 * TOLERANCE
    print(f"{name:13} {way:7} from PyTorch {differences[0]:.1e}, onnxruntime {differences[1]:.1e}, after a step "
          f"{differences[2]:.1e}  {'ok' if good else 'WRONG'}")
    return good


def refused(program, at, change, *words):
    net, images = make("lenet")
    export(net, images, at / "bad.onnx", "dynamo")
    model = onnx.load(at / "bad.onnx", load_external_data=False)
    change(model)
    (at / "bad.onnx").write_bytes(model.SerializeToString())
    save_file({"images": images.permute(0, 2, 3, 1).contiguous()}, at / "images.safetensors")
    done = subprocess.run([program, at / "bad.onnx", at / "images.safetensors", at / "out"], capture_output=True, text=True)
    good = done.returncode == 1 and all(word in done.stderr for word in words)
    print(f"refused: {done.stderr.strip()}  {'ok' if good else 'WRONG'}")
    return good


def place(name):
    def change(model):
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = name
    return change


def beyond(model):
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "offset":
            entry.value = "100000000"


def main():
    here = pathlib.Path(__file__).resolve()
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=here.parents[2] / "build/bin/tests/halftone_peer_onnx")
    program = parser.parse_args().program
    good = True
    for name in NETS:
        for way in ("legacy", "kept", "dynamo"):
            with tempfile.TemporaryDirectory() as folder:
                good &= check(name, way, program, pathlib.Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        at = pathlib.Path(folder)
        good &= refused(program, at, lambda m: setattr(m.graph.node[1], "op_type", "Softsign"), "bad.onnx", "Softsign", "lacks")
        good &= refused(program, at, place("../bad.onnx.data"), "no file beside it")
        good &= refused(program, at, place("/etc/passwd"), "no file beside it")
        good &= refused(program, at, place("absent.data"), "absent.data")
        good &= refused(program, at, beyond, "lie outside")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
