#!/usr/bin/env python3
"""Images a second that Halftone and PyTorch's eager mode classify on the same machine, taken in turn, and their ratio.

  infer.py [--program build/bin/halftone] [--nets resnet18] [--batches 1,64] [--threads 2] [--seconds 5] [--rounds 3]
           [--precisions f32,bf16,f16] [--json FILE]

PyTorch runs in f32, contiguous or channels_last, whichever is faster, under inference_mode with the net in evaluation. The
other number systems of Halftone are held against its own f32. Needs PyTorch: pip install torch
"""
import argparse
import json
import statistics
import time

import torch

from train import halftone_rate, net_of


class Eager:
    def __init__(self, name, batch, layout):
        torch.manual_seed(1)
        net, image = net_of(name)
        self.net = net.eval().to(memory_format=layout)
        self.x = torch.randn(batch, *image).to(memory_format=layout)

    def rate(self, seconds):
        times, began = [], time.perf_counter()
        with torch.inference_mode():
            for _ in range(3):
                self.net(self.x)
            while time.perf_counter() - began < seconds or len(times) < 5:
                t = time.perf_counter()
                self.net(self.x)
                times.append(time.perf_counter() - t)
        return len(self.x) / statistics.median(times)


def main():
    p = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__)
    p.add_argument("--program", default="build/bin/halftone")
    p.add_argument("--nets", default="resnet18")
    p.add_argument("--batches", default="1,64")
    p.add_argument("--precisions", default="f32,bf16,f16")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--json")
    p.set_defaults(device="cpu")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    rows = []
    for net in a.nets.split(","):
        for batch in map(int, a.batches.split(",")):
            peers = {"contiguous": Eager(net, batch, torch.contiguous_format), "channels_last": Eager(net, batch, torch.channels_last)}
            ours, theirs = {precision: [] for precision in a.precisions.split(",")}, {name: [] for name in peers}
            for _ in range(a.rounds):  # in turn, so that a drifting machine slows all alike
                for precision in ours:
                    ours[precision].append(halftone_rate(a, net, precision, batch, "--inference"))
                for name, peer in peers.items():
                    theirs[name].append(peer.rate(a.seconds))
            mode = max(theirs, key=lambda name: statistics.median(theirs[name]))
            for precision, rates in ours.items():
                held_against = theirs[mode] if precision == "f32" else ours["f32"]
                ratios = [x / y for x, y in zip(rates, held_against)]
                rows.append(dict(net=net, batch=batch, precision=precision, halftone=statistics.median(rates),
                                 against="PyTorch, " + mode if precision == "f32" else "f32", other=statistics.median(held_against),
                                 ratio=statistics.median(ratios), ratios=ratios, threads=a.threads, version=torch.__version__))
                print(f"{net:10} batch {batch:4} {precision:5} {statistics.median(rates):8.1f}  {rows[-1]['against']} "
                      f"{rows[-1]['other']:8.1f}  ratio {rows[-1]['ratio']:.2f}  [{min(ratios):.2f}, {max(ratios):.2f}]", flush=True)
            if a.json:
                json.dump(rows, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    main()
