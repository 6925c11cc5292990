"""Colours by lightness, chroma and hue, in a space where equal steps look equal, and their contrast.

Sources: B. Ottosson, A perceptual color space for image processing (2020); W3C, Web Content Accessibility
Guidelines 2.2, relative luminance and contrast ratio.
"""

from __future__ import annotations

import math


def oklch(lightness: float, chroma: float, hue: float) -> str:
    """The nearest colour of a screen, as "#rrggbb": lightness from 0 to 1, chroma up to some 0.3, hue in degrees.

    >>> oklch(1.0, 0.0, 0.0), oklch(0.0, 0.0, 0.0)
    ('#ffffff', '#000000')
    """
    while max(abs(part - min(1.0, max(0.0, part))) for part in linear_rgb(lightness, chroma, hue)) > 1e-4 and chroma:
        chroma = max(0.0, chroma - 0.002)  # screens cannot show it: paler, at the same lightness
    parts = [min(1.0, max(0.0, part)) for part in linear_rgb(lightness, chroma, hue)]
    encoded = [12.92 * p if p <= 0.0031308 else 1.055 * p ** (1 / 2.4) - 0.055 for p in parts]
    return "#" + "".join(f"{round(255 * p):02x}" for p in encoded)


def linear_rgb(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    a, b = chroma * math.cos(math.radians(hue)), chroma * math.sin(math.radians(hue))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def decoded(colour: str) -> list[float]:
    """The linear parts of "#rrggbb"."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]


def luminance(colour: str) -> float:
    red, green, blue = decoded(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, from 1 to 21; text needs 4.5, lines 3.

    >>> contrast("#000000", "#ffffff")
    21.0
    """
    darker, lighter = sorted((luminance(one), luminance(other)))
    return round((lighter + 0.05) / (darker + 0.05), 3)
