#!/usr/bin/env python3
"""Convolutions of Halftone and of PyTorch on one CPU thread, layer by layer and taken in turn, and their ratio.

  layers.py [--kernels build/bin/benchmarks/kernels] [--format f32|bf16|f16] [--isa auto] [--only PART_OF_A_NAME] [--rounds 3] [--json FILE]

Shapes and batches are those of benchmarks/kernels; of its kernels the one that a plan would choose counts. Both are timed by the
processor time that they got. PyTorch's tensors are channels_last; f16 is held against its f32, since its f16 weight gradients on
a CPU are a reference loop. With --isa avx2 PyTorch is held to AVX2 too. Needs PyTorch: pip install torch
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time


def options():
    p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    p.add_argument("--kernels", default="build/bin/benchmarks/kernels")
    p.add_argument("--format", default="f32", choices=["f32", "bf16", "f16"])
    p.add_argument("--isa", default="auto")
    p.add_argument("--only", default="(")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--json")
    return p.parse_args()


OPTIONS = options()
if OPTIONS.isa == "avx2":  # must be known before PyTorch is loaded
    os.environ |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
try:
    import torch
except ImportError as error:
    sys.exit(f"{error}. To compare with PyTorch: pip install torch")

DIRECTIONS = {"conv2d": "forward", "conv2d_d_input": "d_input", "conv2d_d_weight": "d_weight"}


def halftone(a, shape):
    """GFLOP/s by direction, and the batch."""
    command = [a.kernels, "--isa", a.isa, "--only", shape, "--format", a.format]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [row for row in map(json.loads, lines) if row.get("chosen") and row["shape"] == shape]
    return {DIRECTIONS[row["kernel"].split("/")[0]]: row["gflops"] for row in rows}, rows[0]["batch"]


def timed(f):
    f()
    best, began = 1e9, time.perf_counter()
    while time.perf_counter() - began < 0.15 or best == 1e9:
        t = time.thread_time()
        f()
        best = min(best, time.thread_time() - t)
    return best


def pytorch(a, shape, batch):
    h, w, c, k, r, stride = (int(x or 1) for x in re.match(r"(\d+)x(\d+) (\d+)>(\d+) (\d+)x\d+(?: /(\d))?", shape).groups())
    pad = 0 if " valid" in shape else r // 2
    dtype = torch.bfloat16 if a.format == "bf16" else torch.float32
    tensor = lambda *s: torch.randn(*s, dtype=dtype).contiguous(memory_format=torch.channels_last)
    x, f = tensor(batch, c, h, w), tensor(k, c, r, r)
    conv = lambda: torch.nn.functional.conv2d(x, f, stride=stride, padding=pad)
    d = conv().contiguous(memory_format=torch.channels_last)
    back = lambda *mask: torch.ops.aten.convolution_backward(d, x, f, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], 1, mask)
    operations = 2e-9 * d.numel() * c * r * r
    return {"forward": operations / timed(conv), "d_input": operations / timed(lambda: back(True, False, False)),
            "d_weight": operations / timed(lambda: back(False, True, False))}


def main():
    a = OPTIONS
    torch.set_num_threads(1)
    shapes = subprocess.run([a.kernels, "--list"], check=True, capture_output=True, text=True).stdout.splitlines()
    rows = []
    for shape in (s for s in shapes if a.only in s):
        ours, theirs = [], []
        for _ in range(a.rounds):  # in turn, so that a drifting machine slows both alike
            rates, batch = halftone(a, shape)
            ours.append(rates)
            theirs.append(pytorch(a, shape, batch))
        row = dict(shape=shape, batch=batch, format=a.format)
        for way in DIRECTIONS.values():
            row[way] = [statistics.median(r[way] for r in side) for side in (ours, theirs)]
            row[way].append(statistics.median(x[way] / y[way] for x, y in zip(ours, theirs)))
        rows.append(row)
        print(f"{shape:24} " + "  ".join(f"{way} {row[way][0]:6.1f} / {row[way][1]:6.1f} = {row[way][2]:5.2f}" for way in DIRECTIONS.values()), flush=True)
    for way in DIRECTIONS.values():
        ratios = [row[way][2] for row in rows]
        print(f"{way}: geometric mean {statistics.geometric_mean(ratios):.2f}, worst {min(ratios):.2f}")
    if a.json:
        json.dump(dict(pytorch=torch.__version__, isa=a.isa, rows=rows), open(a.json, "w"), indent=1)


main()
