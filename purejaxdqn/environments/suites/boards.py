"""Draws the boards of 2048, for jumanji and pgx.

Jumanji's viewers draw with pyplot, slowly, and into a window where there is a display; pgx writes vector graphics,
which need another library to become pixels.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_SIDE = 96
_EMPTY, _DARK, _LIGHT = (205, 193, 180), (60, 58, 50), (249, 246, 242)


def draw_2048(exponents: np.ndarray) -> np.ndarray:
    """The board whose tiles are 2 to these powers [H, W], 0 where there is none -> [height, width, 3] uint8."""
    picture = Image.new("RGB", tuple(_SIDE * size for size in reversed(exponents.shape)), (150, 140, 130))
    pen = ImageDraw.Draw(picture)
    for (row, column), power in np.ndenumerate(exponents):
        x, y = column * _SIDE, row * _SIDE
        warmth = min(int(power), 11) / 11
        colour = (238, int(228 - 90 * warmth), int(218 - 180 * warmth)) if power else _EMPTY
        pen.rounded_rectangle((x + 4, y + 4, x + _SIDE - 5, y + _SIDE - 5), 8, fill=colour)
        if power:
            font = ImageFont.load_default(28)
            pen.text(
                (x + _SIDE / 2, y + _SIDE / 2),
                f"{2 ** int(power)}",
                fill=_LIGHT if power > 2 else _DARK,
                font=font,
                anchor="mm",
            )
    return np.asarray(picture)
