"""The looks: every text and line can be seen on what it stands on, by eyes that see little or no colour, too."""

import functools
import itertools
import math
import re

import numpy as np
import pytest
from networks import NETWORKS

import microgrid as mg
import viz
from viz.colour import contrast, decoded, oklch
from viz.theme import DARK, LIGHT, PRINT, THEMES, theme

TEXT, LINE = 4.5, 3.0
"""The least contrast ratios of WCAG 2.2, levels AA: 1.4.3 for text of any size here, 1.4.11 for what is not text."""


def ratio(one, other):
    """The contrast ratio as WCAG defines it, written out apart from the code that is tested."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = max(luminance(one), luminance(other)), min(luminance(one), luminance(other))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture(params=THEMES)
def look(request):
    return THEMES[request.param]


def grounds(look):
    """What nodes and edges stand on: the picture, and a timestep. The frame around a timestep is an ornament."""
    return look.background, look.cluster_fill


def test_contrast_is_that_of_the_guidelines():
    for one, other in (("#000000", "#ffffff"), ("#777777", "#ffffff"), ("#33659e", "#dbe9fb")):
        assert contrast(one, other) == contrast(other, one) == pytest.approx(ratio(one, other), abs=1e-3)


def test_all_themes_have_a_look_for_the_same_kinds(look):
    assert set(look.nodes) == set(LIGHT.nodes)
    assert set(look.edges) == set(LIGHT.edges)


@pytest.mark.parametrize("kind", LIGHT.nodes)
def test_text_can_be_read_on_every_kind_of_node(look, kind):
    fill = look.nodes[kind].fill
    assert ratio(look.ink, fill) >= TEXT
    assert ratio(look.quiet_ink, fill) >= TEXT


@pytest.mark.parametrize("kind", LIGHT.nodes)
def test_the_outline_of_every_kind_of_node_can_be_seen(look, kind):
    style = look.nodes[kind]
    assert min(ratio(style.line, ground) for ground in (style.fill, *grounds(look))) >= LINE


@pytest.mark.parametrize("kind", LIGHT.edges)
def test_every_kind_of_edge_can_be_seen_and_the_labels_of_delays_be_read(look, kind):
    least = TEXT if kind == "delay back" else LINE
    assert min(ratio(look.edges[kind].color, ground) for ground in grounds(look)) >= least


def test_captions_and_the_names_of_timesteps_can_be_read(look):
    assert min(ratio(ink, ground) for ink in (look.ink, look.quiet_ink) for ground in grounds(look)) >= TEXT


def test_an_edge_of_any_strength_can_be_seen(look):
    for share in np.linspace(0, 1, 21):
        assert min(ratio(look.strength(share), ground) for ground in grounds(look)) >= LINE


def lightness(colour):
    """CIE L*, from 0 to 100."""
    red, green, blue = decoded(colour)
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return 116 * y ** (1 / 3) - 16 if y > 216 / 24389 else y * 24389 / 27


def ok_lightness(colour):
    """The lightness of OKLab, from 0 to 1: B. Ottosson (2020)."""
    red, green, blue = decoded(colour)
    long = math.cbrt(0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue)
    medium = math.cbrt(0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue)
    short = math.cbrt(0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue)
    return 0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short


def test_the_scale_of_strengths_goes_in_equal_steps_of_lightness_away_from_the_ground(look):
    colours = [look.strength(share) for share in np.linspace(0, 1, 11)]
    steps = np.diff([ok_lightness(colour) for colour in colours])
    assert np.ptp(steps) < 0.02
    towards = 1 if lightness(look.background) < 50 else -1
    assert min(towards * steps) > 0.015
    assert min(towards * np.diff([lightness(colour) for colour in colours])) > 0
    away = [ratio(colour, look.background) for colour in colours]
    assert away == sorted(away)


def test_a_share_beyond_the_scale_is_its_end(look):
    assert (look.strength(-1.0), look.strength(7.0)) == (look.strength(0.0), look.strength(1.0))
    assert (look.signed(-9.0), look.signed(9.0)) == (look.signed(-1.0), look.signed(1.0))


def test_numbers_of_opposite_signs_differ_without_colour(look):
    """In the lightness of their strongest, so that a strip can be read in grey."""
    assert abs(lightness(look.signed(-1.0)) - lightness(look.signed(1.0))) > 8
    for sign in (-1, 1):
        away = [
            abs(ok_lightness(look.signed(sign * share)) - ok_lightness(look.signed(0.0))) for share in (0.2, 0.6, 1)
        ]
        assert away == sorted(away)


def appearance(style):
    return style.shape, style.style, style.pen, style.peripheries


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *itertools.combinations(["input", "parameter", "operation", "reduction", "output", "cell", "gap"], 2),
        *(("state", other) for other in ("parameter", "operation", "input")),
        *(("next", other) for other in ("operation", "cell")),
    ],
)
def test_kinds_of_nodes_differ_without_colour(look, one, other):
    assert appearance(look.nodes[one]) != appearance(look.nodes[other])


def test_delays_ties_and_weights_differ_from_operands_without_colour(look):
    def line(kind):
        return look.edges[kind].style, look.edges[kind].pen, look.edges[kind].arrow

    assert len({line(kind) for kind in ("operand", "delay", "delay back", "weight", "tie")}) == 5


# --- of whole pictures ------------------------------------------------------------------------------


@functools.cache
def pictures(name):
    """Every kind of node and edge, in a theme."""
    dag = NETWORKS["bidirectional"]().unroll(steps=9)
    dag.backward()
    start = NETWORKS["learnable_start"]().unroll(steps=2)
    return [
        viz.draw(dag, theme=name, fold=1, values=True, gradients=True),
        viz.draw(dag, theme=name, level="cell", weights="repeated"),
        viz.draw(dag, theme=name, fold=1, flow=True),
        viz.draw(dag.graph, theme=name),
        viz.draw(start, theme=name),
        viz.before_after(NETWORKS["odd_delays"](), steps=2, theme=name),
    ]


def colours(picture):
    """All colours of an SVG, as #rrggbb."""
    svg = picture.render("svg").decode()
    found = {"black" for text in re.findall("<text[^>]*>", svg) if "fill=" not in text}  # what viewers write with
    found |= set(re.findall(r'(?:fill|stroke)="([^"]+)"', svg))
    return {{"black": "#000000", "white": "#ffffff"}.get(colour, colour) for colour in found} - {"none", "transparent"}


def own_colours(look):
    styles = [colour for style in look.nodes.values() for colour in (style.fill, style.line)]
    styles += [style.color for style in look.edges.values()]
    return {*styles, look.ink, look.quiet_ink, look.background, look.cluster_fill, look.cluster_line}


def test_a_dark_picture_has_no_colour_of_the_light_theme_left():
    for picture in pictures("dark"):
        assert not colours(picture) & (own_colours(LIGHT) - own_colours(DARK))
        assert not colours(picture) & {"#000000", "#ffffff"}


def test_a_printed_picture_has_no_colour():
    for picture in pictures("print"):
        for colour in colours(picture):
            assert colour[1:3] == colour[3:5] == colour[5:7], colour


def test_a_picture_has_the_colours_of_its_theme_alone(look):
    for number, picture in enumerate(pictures(look.name)):
        if number not in (0, 2):  # strips and strengths are on scales
            assert colours(picture) <= own_colours(look)


def test_themes_differ_in_looks_alone():
    net = NETWORKS["lstm"]()
    scenes = [viz.draw(net, theme=name).scene for name in THEMES]
    places = [[(box.id, box.x, box.y, box.width, box.height) for box in scene.boxes.values()] for scene in scenes]
    assert places[0] == places[1] == places[2]


def test_an_unknown_theme_is_refused_with_the_nearest_name():
    for draw in (viz.draw, viz.before_after):
        with pytest.raises(mg.MicrogridError, match=r"'dork'.*dark"):
            draw(NETWORKS["scalar"](), theme="dork")
    assert theme("print") is PRINT
    assert theme(DARK) is DARK


def test_colours_that_no_screen_shows_are_paler_at_the_same_lightness():
    shown = oklch(0.5, 0.4, 150.0)
    assert re.fullmatch("#[0-9a-f]{6}", shown)
    assert ok_lightness(shown) == pytest.approx(0.5, abs=0.01)
    assert oklch(0.7, 0.0, 0.0) == oklch(0.7, 0.0, 222.0)
