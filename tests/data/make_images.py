"""Writes images.hex: small files of every kind that PIL writes, and what it reads from them, for images_test.cpp.

    python make_images.py > images.hex                (Pillow 13.0.0 gave the committed files)
    python make_images.py upright > upright.hex       files with an EXIF orientation, as ImageOps.exif_transpose turns them

Each line: a name, height, width, the file's bytes, convert("RGB")'s bytes and convert("L")'s (hexadecimal).
"""
import io
import random
import sys

from PIL import Image, ImageOps

random.seed(20261125)
w, h = 12, 8
smooth = Image.new("RGB", (w, h))
smooth.putdata([(20 * x, 30 * y, 255 - 10 * x - 10 * y) for y in range(h) for x in range(w)])
noise = Image.frombytes("RGB", (w, h), bytes(random.randrange(256) for _ in range(3 * w * h)))


def saved(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def line(name, image, **options):
    read(name, saved(image, **options))


def read(name, file):
    back = Image.open(io.BytesIO(file))
    rgb = back.convert("RGB")
    grey = rgb.convert("L") if back.mode not in ("L", "1", "I;16") else back.convert("L") if back.mode != "I;16" else None
    if back.mode == "I;16":  # PIL clips these; everybody else takes the upper half
        upper = bytes(v >> 8 for v in back.getdata())
        grey = Image.frombytes("L", (w, h), upper)
        rgb = grey.convert("RGB")
    print(name, h, w, file.hex(), rgb.tobytes().hex(), grey.tobytes().hex())


def upright(name, image, orientation, **options):
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    file = saved(image, exif=exif, **options)
    back = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
    print(name, back.height, back.width, file.hex(), back.tobytes().hex(), back.convert("L").tobytes().hex())


def without_adobe(file):
    """Without the marker APP14, which says Adobe."""
    start = file.index(b"\xff\xee\x00\x0eAdobe")
    return file[:start] + file[start + 16:]


if sys.argv[1:] == ["upright"]:
    for orientation in range(1, 9):
        upright(f"{orientation}.png", noise, orientation, format="PNG")
    upright("6.jpg", smooth, 6, format="JPEG", quality=95, subsampling=0)
    sys.exit()

line("colour.jpg", smooth, format="JPEG", quality=95, subsampling=0)
line("progressive.jpg", smooth, format="JPEG", quality=95, subsampling=0, progressive=True)
line("grey.jpg", smooth.convert("L"), format="JPEG", quality=95)
line("cmyk.jpg", smooth.convert("CMYK"), format="JPEG", quality=98)
line("colour.png", noise, format="PNG")
line("grey.png", noise.convert("L"), format="PNG")
line("alpha.png", noise.convert("RGBA"), format="PNG")
line("palette.png", noise.quantize(16), format="PNG")
line("one_bit.png", noise.convert("1"), format="PNG")
line("deep.png", Image.frombytes("I;16", (w, h), bytes(random.randrange(256) for _ in range(2 * w * h))), format="PNG")
read("cmyk_no_adobe.jpg", without_adobe(saved(smooth.convert("CMYK"), format="JPEG", quality=98)))
