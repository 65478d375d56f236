"""A dozen invented two-inch photos: a figure on a white ground with grain, drawn here, nobody's likeness."""

from __future__ import annotations

import base64
import random
from functools import cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 413, 579
COUNT = 12
QUALITY = 90

SKIN = ((241, 205, 178), (228, 184, 150), (214, 168, 132))
HAIR = ((26, 22, 20), (48, 36, 30), (70, 66, 66))
CLOTHES = ((52, 73, 108), (110, 52, 60), (64, 92, 80), (90, 90, 98))


@cache
def album() -> tuple[str, ...]:
    """All photos, base64 as the route takes them. Drawn once: four thousand people share a dozen."""
    return tuple(base64.b64encode(draw(number)).decode() for number in range(COUNT))


def draw(number: int) -> bytes:
    chance = random.Random(f"photo:{number}")
    picture = Image.new("RGB", (WIDTH, HEIGHT), (252, 252, 252))
    pen = ImageDraw.Draw(picture)
    hair, skin, clothes = chance.choice(HAIR), chance.choice(SKIN), chance.choice(CLOTHES)
    middle, wide = WIDTH // 2 + chance.randint(-6, 6), chance.randint(82, 94)
    pen.ellipse((middle - wide - 14, 96, middle + wide + 14, 330), fill=hair)
    pen.rounded_rectangle((middle - 44, 330, middle + 44, 450), 30, fill=skin)
    pen.ellipse((middle - 190, 410, middle + 190, 760), fill=clothes)
    pen.polygon([(middle - 44, 412), (middle + 44, 412), (middle, 470)], fill=(244, 244, 246))
    pen.ellipse((middle - wide, 128, middle + wide, 378), fill=skin)
    for side in (-1, 1):
        pen.ellipse((middle + side * 38 - 11, 238, middle + side * 38 + 11, 252), fill=(40, 34, 32))
        pen.arc((middle + side * 38 - 20, 212, middle + side * 38 + 20, 240), 200, 340, fill=hair, width=4)
    pen.arc((middle - 26, 300, middle + 26, 332), 20, 160, fill=(150, 84, 78), width=4)
    picture = picture.filter(ImageFilter.GaussianBlur(1.2))
    # Grain gives the file the weight of a real photo: a flat drawing would be smaller than the notice allows.
    grain = Image.frombytes("RGB", (WIDTH, HEIGHT), chance.randbytes(WIDTH * HEIGHT * 3))
    picture = Image.blend(picture, grain, 0.055)
    file = BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
