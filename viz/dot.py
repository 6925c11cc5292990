"""Scene → DOT, with every position given."""

from __future__ import annotations

import graphviz

from viz import theme
from viz.scene import Route, Scene, towards

ARROW_LENGTH = 10.0
"""Points, at arrowsize 1."""


def to_dot(scene: Scene) -> str:
    """The DOT source of a scene, for the layout engine nop2."""
    left, bottom, right, top = scene.bounds
    scene = scene.moved(-left, -bottom)
    graph = graphviz.Digraph(
        graph_attr={
            "layout": "nop2",
            "bb": f"0,0,{right - left:.1f},{top - bottom:.1f}",
            "bgcolor": theme.BACKGROUND,
            "fontname": theme.FONT,
            "outputorder": "edgesfirst",
            "pad": f"{theme.MARGIN / 72:.3f}",
        },
        node_attr={
            "fontname": theme.FONT,
            "fontsize": f"{theme.MAIN_SIZE:g}",
            "fontcolor": theme.INK,
            "fixedsize": "true",
            **node_look(COMMON_NODE),
        },
        edge_attr={"fontname": theme.FONT, "fontsize": f"{theme.LABEL_SIZE:g}", **edge_look(COMMON_EDGE)},
    )
    for frame in scene.frames.values():
        with graph.subgraph(name=f"cluster_{frame.id}") as cluster:
            cluster.attr(
                label=graphviz.escape(frame.label),
                bb=f"{frame.left:.1f},{frame.bottom:.1f},{frame.right:.1f},{frame.top:.1f}",
                lp=f"{frame.label_x:.1f},{frame.top - 11:.1f}",
                style="rounded,filled",
                fillcolor=theme.CLUSTER_FILL,
                color=theme.CLUSTER_LINE,
                fontcolor=theme.QUIET_INK,
                fontsize=f"{theme.LABEL_SIZE:g}",
            )
    for box in scene.boxes.values():
        style = theme.NODES[box.content.kind]
        outlines = 8 * (style.peripheries - 1)  # Graphviz draws each further outline 4 points outside the last
        graph.node(
            box.id,
            label=box.content.markup,
            tooltip=graphviz.escape(box.content.tooltip),
            pos=f"{box.x:.1f},{box.y:.1f}",
            width=f"{(box.width - outlines) / 72:.3f}",
            height=f"{(box.height - outlines) / 72:.3f}",
            **unlike(node_look(style), node_look(COMMON_NODE)),
        )
    for caption in scene.captions:
        graph.node(
            caption.id,
            label=graphviz.escape(caption.text),
            shape="plaintext",
            peripheries="0",
            pos=f"{caption.x:.1f},{caption.y:.1f}",
            width="0",
            height="0",
            fixedsize="false",
            fontsize=f"{caption.size:g}",
            fontcolor=theme.QUIET_INK,
        )
    for wire in scene.wires:
        look = theme.EDGES[wire.kind]
        attributes = {
            "pos": position(wire.route, look.arrow * ARROW_LENGTH),
            **unlike(edge_look(look), edge_look(COMMON_EDGE)),
        }
        if wire.label:
            attributes |= {
                "label": graphviz.escape(wire.label),
                "lp": f"{wire.label_at[0]:.1f},{wire.label_at[1]:.1f}",
                "fontcolor": look.color,
            }
        graph.edge(wire.tail, wire.head, **attributes)
    return str(graph.source)


COMMON_NODE, COMMON_EDGE = theme.NODES["operation"], theme.EDGES["operand"]
"""The looks that most nodes and edges share: written once, as the default of the picture."""


def node_look(style: theme.NodeStyle) -> dict[str, str]:
    return {
        "shape": style.shape,
        "style": style.style,
        "fillcolor": style.fill,
        "color": style.line,
        "penwidth": f"{style.pen:g}",
        "peripheries": str(style.peripheries),
    }


def edge_look(style: theme.EdgeStyle) -> dict[str, str]:
    return {
        "color": style.color,
        "penwidth": f"{style.pen:g}",
        "style": style.style,
        "arrowsize": f"{style.arrow:g}",
    }


def unlike(look: dict[str, str], common: dict[str, str]) -> dict[str, str]:
    return {name: setting for name, setting in look.items() if setting != common[name]}


def position(route: Route, arrow: float) -> str:
    """A route as Graphviz writes it: the arrow's tip, then the curve up to its base."""
    tip, before = route[-1], route[-2]
    base = towards(tip, before, arrow)
    points = [*route[:-1], base]
    return f"e,{tip[0]:.1f},{tip[1]:.1f} " + " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
