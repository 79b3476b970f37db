#!/usr/bin/env python3
"""Asks Halftone's reader of .safetensors files and the format's reference implementation whether they take the same
files and read the same tensors: a table of cases, and random changes of sound files.

usage: safetensors_cases.py [--program build/bin/tests/halftone_peer_read_safetensors] [--seed N] [--changes N]

Exit status 1 where they differ, and 77 where the Python package is missing. The one difference that is meant: extents
of 2^63 and more, which Halftone refuses.
"""
import argparse
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

try:
    import safetensors
except ImportError as error:
    print(f"{error}. To compare with the reference implementation: pip install safetensors", file=sys.stderr)
    sys.exit(77)

DTYPES = """BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64
F64 I64 U64 C128 I128 F5 F8_E4M3FN F8_E3M4 E4M3 E2M1 SIGN F8_E2M1 f32""".split()


def file_of(header, data=b""):
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header)) + header + data


def table():
    good = '"dtype":"U8","shape":[2],"data_offsets":[0,2]'
    tensor = lambda fields, data=b"ab": file_of('{"t":{' + fields + "}}", data)
    fields = lambda dtype='"U8"', shape="[2]", offsets="[0,2]": f'"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}'
    shaped = lambda shape, data=b"ab", dtype='"U8"': tensor(fields(dtype, shape, f"[0,{len(data)}]"), data)
    two = lambda offsets, data: file_of('{"t":{' + good + '},"u":{' + fields(offsets=offsets) + "}}", data)

    yield "sound", tensor(good)
    for dtype in DTYPES:
        for size in range(0, 129):
            yield f"{dtype} of {size} bytes for 8", shaped("[8]", b"a" * size, f'"{dtype}"')
    for header in ("{}", "", "   ", "[]", "null", "7", '"t"', '{"t":null}', '{"t":7}', '{"t":[]}', "{}{}", '{"t":{', "{}\0\0",
                   "{}\0{", "\0", " {}", "\n{}", "{}\n\t\r ", "\v{}", "{}/**/", "{,}", "{'t':1}", "\ufeff{}", "\u00a0{}"):
        yield f"header {header!r}", file_of(header)
    yield "header with a tensor, zeros behind it", file_of('{"t":{' + good + "}}\0\0", b"ab")
    yield "header with a tensor and a comma", file_of('{"t":{' + good + "},}", b"ab")
    for length in (-1, 1, 2**32, 100_000_000, 100_000_001, 2**63, 2**64 - 9, 2**64 - 8, 2**64 - 1):
        yield f"told length {length}", struct.pack("<Q", length % 2**64) + b"{}"
    yield "eight zeros", b"\0" * 8
    yield "seven bytes", b"1234567"

    for name in ("", "a\\u0000b", "\\ud83d\\ude00", "\\ud800", "\\ude00", "\\ud800\\u0041", "\x7f", "\\n", "\\x", "\\u12", "\u00e9",
                 "\\/", "a" * 10000):
        yield f"name {name[:10]!r}", file_of('{"' + name + '":{' + good + "}}", b"ab")
    for name in (b"\x01", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3", b"\n"):
        yield f"name {name!r}", file_of(b'{"' + name + b'":{' + good.encode() + b"}}", b"ab")

    for extra in ('"x":1', '"x":null', '"x":{"a":[1,{"dtype":2}]}', '"x":[[1],{"shape":[]}]', '"x":1,"x":2', '"x":1e999', '"x":-1e400',
                  '"x":1e-999', '"x":' + "9" * 40, '"x":NaN', '"x":"\\ud800"', '"x":01', '"x":1.', '"x":.5', '"x":+1', '"x":-',
                  '"dtype":"U8"', '"shape":[2]', '"data_offsets":[0,2]', '"name":{"t":{"dtype":"U8"}}', '"":0'):
        yield f"also {extra[:30]}", tensor(good + "," + extra)
        yield f"first {extra[:30]}", tensor(extra + "," + good)
    for depth in (3, 60, 124, 125, 126, 127, 128, 1000):
        yield f"{depth} arrays in an unknown field", tensor(good + ',"x":' + "[" * depth + "]" * depth)
        yield f"{depth} objects in an unknown field", tensor(good + ',"x":' + '{"x":' * depth + "0" + "}" * depth)
    for left_out in ("dtype", "shape", "data_offsets"):
        yield f"no {left_out}", tensor(",".join(p for p in ('"dtype":"U8"', '"shape":[2]', '"data_offsets":[0,2]') if left_out not in p))

    for dtype in ("8", "null", '["U8"]', '{"U8":null}', '{"U8":1}', '{"U8":null,"U8":null}', '{"U8":null,"I8":null}', "{}", '{"X":null}',
                  '"u8"', '" U8"', '"U8 "', '""', '{"U8":[]}', '{"U8":[1]}', '{"U8":""}'):
        yield f"dtype {dtype}", tensor(fields(dtype=dtype))
    for shape in ("[]", "2", '"2"', "null", "[null]", "[-2]", "[2.0]", "[2e0]", "[-0]", "[02]", "[[2]]", '["2"]', '{"0":2}', "[2,[1]]", "[true]",
                  "[1,2]", "[2,1,1]", "[2" + ",1" * 64 + "]", "[2" + ",1" * 1000 + "]", "[3]", "[0]", "[ 2 ]", "[2,]", "[9223372036854775807,2,1]",
                  "[18446744073709551616]", "[4294967296,4294967296]", "[9223372036854775807,2]", "[1,2,{}]"):
        yield f"shape {shape[:30]}", tensor(fields(shape=shape))
    for shape in ("[0]", "[0,5]", "[5,0]", "[4294967296,4294967296,0]", "[0,4294967296,4294967296]", "[2305843009213693952,0]",
                  "[288230376151711744]", "[2305843009213693952]", "[1152921504606846976,16]", "[]", "[9223372036854775807,0]"):
        for dtype in ("U8", "F16", "F32", "F64", "F4"):
            yield f"shape {shape}, {dtype}, no bytes", shaped(shape, b"", f'"{dtype}"')
    yield "F4 with half a byte", shaped("[3]", b"ab", '"F4"')

    for offsets in ("[0,2,2]", "[0]", "[]", "[2,0]", "[1,3]", "[0,3]", "[0,1]", "[-0,2]", "[0.0,2]", '["0",2]', "null", '{"0":0,"1":2}',
                    "[9223372036854775805,9223372036854775807]", "[18446744073709551614,0]", "[0,18446744073709551616]", "[0,[2]]"):
        yield f"offsets {offsets}", tensor(fields(offsets=offsets))
    for offsets, data in (("[1,3]", b"abc"), ("[0,2]", b"ab"), ("[3,5]", b"abcde"), ("[2,4]", b"abcd"), ("[2,4]", b"abcde"), ("[2,4]", b"abc")):
        yield f"second tensor at {offsets} of {len(data)}", two(offsets, data)
    yield "data too long", tensor(good, b"abc")
    yield "no tensor, some data", file_of("{}", b"a")
    empty = '{"dtype":"F32","shape":[0],"data_offsets":[%d,%d]}'
    yield "empty ones everywhere", file_of('{"v":%s,"t":{%s},"u":%s,"w":%s}' % (empty % (2, 2), good, empty % (0, 0), empty % (2, 2)), b"ab")
    yield "an empty one inside another", file_of('{"t":{%s},"u":%s}' % (good, empty % (1, 1)), b"ab")
    yield "an empty one behind the end", file_of('{"t":{%s},"u":%s}' % (good, empty % (3, 3)), b"ab")

    one = '{"dtype":"U8","shape":[1],"data_offsets":[0,1]}'
    for first, last in ((f"{{{good}}}", f"{{{good}}}"), (one, f"{{{good}}}"), (f"{{{good}}}", one), ("7", f"{{{good}}}"), ('{"dtype":"X"}', f"{{{good}}}"),
                        ("{" + fields(offsets="[2,0]") + "}", f"{{{good}}}"), ("{" + fields(shape="[9]") + "}", f"{{{good}}}"),
                        ("{" + fields(offsets="[0,99]") + "}", f"{{{good}}}")):
        yield f"name twice: {first} {last}", file_of('{"t":%s,"t":%s}' % (first, last), b"ab")
    for array in ('["U8",[2],[0,2]]', '["U8",[2]]', '["U8",[2],[0,2],1]', '[[2],"U8",[0,2]]', '["U8",[[2]],[0,2]]', '[{"U8":null},[2],[0,2]]',
                  '["U8",[2],[0,2]'):
        yield f"tensor {array}", file_of('{"t":' + array + "}", b"ab")

    for metadata in ("{}", "null", '{"a":"b"}', '{"a":"1","a":"2"}', '{"a":1}', '{"a":null}', '{"a":[]}', '{"a":{}}', "[]", '"x"', "1", "{" + good + "}",
                     '{"dtype":"a","dtype":"b"}', '{"x":"' + "y" * 1000 + '"}', '{"":""}', '[["a","b"]]'):
        yield f"metadata {metadata[:30]}", file_of('{"__metadata__":%s,"t":{%s}}' % (metadata, good), b"ab")
    for twice in ('null,"__metadata__":null', 'null,"__metadata__":{}', '{"a":"1"},"__metadata__":{"a":"2"}'):
        yield f"metadata twice: {twice}", file_of('{"__metadata__":%s,"t":{%s}}' % (twice, good), b"ab")


def changed(seed, count):
    """Random changes of sound files: bytes, and pieces that JSON is made of."""
    rng = random.Random(seed)
    pieces = [b"{", b"}", b"[", b"]", b",", b":", b'"', b"0", b"1", b"-", b"e", b".", b"null", b"\\", b" ", b"\0", b'"dtype"', b'"shape"',
              b'"data_offsets"', b'"x":', b'"U8"', b'"F4"', b"\xff", b"true", b'"__metadata__":', b"[0,0]"]
    sound = [{"t": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}},
             {"__metadata__": {"a": "b"}, "t": {"dtype": "F16", "shape": [1, 1], "data_offsets": [0, 2]}},
             {"t": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "u": {"dtype": "I8", "shape": [], "data_offsets": [1, 2]}},
             {"t": ["F4", [4], [0, 2]], "u": {"dtype": "F64", "shape": [0, 3], "data_offsets": [2, 2]}}]
    for i in range(count):
        header = bytearray(json.dumps(rng.choice(sound), separators=rng.choice([(",", ":"), (", ", ": ")])).encode())
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            at, length = rng.randrange(len(header) + 1), rng.choice([0, 0, 1, 1, 2, 5])
            if rng.random() < 0.3:
                begin = rng.randrange(len(header))
                header[at:at + length] = header[begin:begin + rng.randrange(1, 20)]
            else:
                header[at:at + length] = rng.choice(pieces)
        yield f"change {i}: {bytes(header)!r}", file_of(bytes(header), b"ab")


def reference(path):
    """What the reference implementation reads, or None."""
    try:
        tensors = safetensors.deserialize(path.read_bytes())
    except Exception:
        return None
    return sorted((name.encode().hex(), list(t["shape"]), bytes(t["data"]).hex()) for name, t in tensors)


def ours(lines):
    """The answers of the program."""
    answers = []
    for line in lines:
        if line.startswith(" "):
            words = line[1:].split(" ")
            answers[-1].append((words[0], [int(word) for word in words[1:-1]], words[-1]))
        else:
            answers.append([] if line == "takes" else None)
    return [answer and sorted(answer) if answer else answer for answer in answers]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="build/bin/tests/halftone_peer_read_safetensors")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--changes", type=int, default=3000)
    args = parser.parse_args()
    cases = list(table()) + list(changed(args.seed, args.changes))
    differing = taken = 0
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, len(cases), 1000):
            part = cases[first:first + 1000]
            paths = [pathlib.Path(folder) / str(i) for i in range(len(part))]
            for path, (_, content) in zip(paths, part):
                path.write_bytes(content)
            output = subprocess.run([args.program, *map(str, paths)], check=True, capture_output=True).stdout
            answers = ours(output.decode(errors="replace").splitlines())
            for (name, _), path, answer in zip(part, paths, answers, strict=True):
                expected = reference(path)
                taken += expected is not None
                if answer != expected:
                    differing += 1
                    print(f"DIFFERS: {name}: the reference {'refuses' if expected is None else 'takes'} it, "
                          f"Halftone {'refuses' if answer is None else 'takes'} it" + (f": {expected} {answer}" if answer and expected else ""))
    print(f"safetensors {safetensors.__version__}: {len(cases)} files, of which it takes {taken}; Halftone differs in {differing}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
