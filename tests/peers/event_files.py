#!/usr/bin/env python3
"""Reads Halftone's event files with TensorBoard's own reader: every scalar must be there, and what a resumed run does anew
must take the place of what was there. As a control a damaged file must be refused.

usage: event_files.py [--program build/bin/tests/halftone_peer_events]

Exit status 1 where something differs, and 77 where TensorBoard is missing.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

try:
    from tensorboard.backend.event_processing import event_file_loader
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError as error:
    print(f"{error}. To compare with TensorBoard: pip install tensorboard", file=sys.stderr)
    sys.exit(77)


def scalars(folder, tag):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


def damaged_is_refused(folder):
    first = sorted(folder.iterdir())[0]
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    try:
        return len(list(event_file_loader.RawEventFileLoader(str(first)).Load())) < 302
    except Exception:  # whatever the reader says of a wrong checksum
        return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/bin/tests/halftone_peer_events")
    program = parser.parse_args().program
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "logs"
        subprocess.run([program, str(folder)], check=True)
        loss = {1: 0.5, 2: 1.0, 3: -3.0, 4: -4.0}
        rate = {step: 2.0 ** -20 for step in loss}
        checks = {"the loss": scalars(folder, "train/loss") == loss,
                  "the learning rate": scalars(folder, "train/learning_rate") == rate,
                  "a damaged file": damaged_is_refused(folder)}
    for what, good in checks.items():
        print(f"{what}: {'as it should be' if good else 'WRONG'}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
