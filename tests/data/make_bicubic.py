"""Writes bicubic.hex: what PIL makes of small images, for images_test.cpp.

    python make_bicubic.py > bicubic.hex          (Pillow 13.0.0 gave the committed file)

Each line: height and width before, height and width after, the source's bytes, the result's bytes (hexadecimal, one channel).
"""
import random

from PIL import Image

random.seed(20261125)
for (h, w), (oh, ow) in [((7, 5), (4, 4)), ((5, 9), (8, 8)), ((16, 16), (5, 11)), ((3, 3), (12, 12)), ((20, 13), (20, 6)), ((9, 31), (4, 31)), ((1, 8), (6, 3))]:
    source = bytes(random.choice((0, 255, random.randrange(256))) for _ in range(h * w))
    result = Image.frombytes("L", (w, h), source).resize((ow, oh), Image.Resampling.BICUBIC).tobytes()
    print(h, w, oh, ow, source.hex(), result.hex())
