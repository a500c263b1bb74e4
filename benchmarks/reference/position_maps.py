"""What a trained masker depends on: position, or the image.

For each run of `mlomae pretrain`, the deviation of T's probabilities between positions (of their mean over the images) and within a
position (between images); and the correlation of the maps of each two runs. On the first 2,000 test images of CIFAR-10 (binary
layout) or of an IDX folder. docs/mlomae.md has the figures. Needs torch, safetensors, numpy.

usage: python position_maps.py DATA RUN...
"""

import gzip
import json
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import load_file

COUNT = 2000


def test_images(folder):
    cifar = folder / "test_batch.bin"
    if cifar.exists():
        return np.fromfile(cifar, np.uint8).reshape(-1, 3073)[:COUNT, 1:].reshape(-1, 3, 32, 32)
    with gzip.open(folder / "t10k-images-idx3-ubyte.gz") as file:
        raw = file.read()
    _, _, rows, columns = np.frombuffer(raw, ">u4", 4)
    return np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 1, rows, columns)[:COUNT]


def probabilities(run, images):
    info = json.loads((run / "run.json").read_text())
    mae, t = load_file(run / "mae.safetensors"), load_file(run / "masker.safetensors")
    mean, deviation = (torch.tensor(info[name]).view(1, -1, 1, 1) for name in ("mean", "deviation"))
    x = (torch.tensor(images).float() / 255 - mean) / deviation
    weight = mae["patch_embed.proj.weight"]
    z = torch.nn.functional.conv2d(x, weight, mae["patch_embed.proj.bias"], stride=weight.shape[-1]).flatten(2).transpose(1, 2)
    z = (z + mae["pos_embed"][:, 1:]).flatten(1)
    hidden = torch.relu(torch.nn.functional.linear(z, t["first_hidden_layer.fc.weight"], t["first_hidden_layer.fc.bias"]))
    return torch.sigmoid(torch.nn.functional.linear(hidden, t["output_layer.weight"], t["output_layer.bias"]))


if len(sys.argv) < 3:
    sys.exit(__doc__)
images = test_images(pathlib.Path(sys.argv[1]))
maps = {}
for name in sys.argv[2:]:
    p = probabilities(pathlib.Path(name), images)
    maps[name] = p.mean(0)
    print(f"{name}: deviation between positions {maps[name].std():.4f}, within a position {(p - maps[name]).pow(2).mean().sqrt():.4f}")
names = list(maps)
for i, a in enumerate(names):
    for b in names[i + 1 :]:
        print(f"{a}, {b}: correlation {np.corrcoef(maps[a], maps[b])[0, 1]:.2f}")
