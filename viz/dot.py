"""Scene → DOT, with every position given."""

from __future__ import annotations

import html

import graphviz

from viz import theme
from viz.scene import Legend, Route, Scene, Wire, towards

ARROW_LENGTH = 10.0
"""Points, at arrowsize 1."""

THINNEST, THICKEST = 0.8, 4.0
"""Pens of the edges through which the weakest and the strongest gradient flows."""


def to_dot(scene: Scene, look: theme.Theme = theme.LIGHT) -> str:
    """The DOT source of a scene, for the layout engine nop2."""
    left, bottom, right, top = scene.bounds
    scene = scene.moved(-left, -bottom)
    common_node, common_edge = node_look(look.nodes["operation"]), edge_look(look.edges["operand"])
    graph = graphviz.Digraph(
        graph_attr={
            "layout": "nop2",
            "bb": f"0,0,{right - left:.1f},{top - bottom:.1f}",
            "bgcolor": look.background,
            "fontname": theme.FONT,
            "outputorder": "edgesfirst",
            "pad": f"{theme.MARGIN / 72:.3f}",
        },
        node_attr={
            "fontname": theme.FONT,
            "fontsize": f"{theme.MAIN_SIZE:g}",
            "fontcolor": look.ink,
            "fixedsize": "true",
            **common_node,
        },
        edge_attr={"fontname": theme.FONT, "fontsize": f"{theme.LABEL_SIZE:g}", **common_edge},
    )
    for frame in scene.frames.values():
        with graph.subgraph(name=f"cluster_{frame.id}") as cluster:
            cluster.attr(
                label=graphviz.escape(frame.label),
                bb=f"{frame.left:.1f},{frame.bottom:.1f},{frame.right:.1f},{frame.top:.1f}",
                lp=f"{frame.label_x:.1f},{frame.top - 11:.1f}",
                style="rounded,filled",
                fillcolor=look.cluster_fill,
                color=look.cluster_line,
                fontcolor=look.quiet_ink,
                fontsize=f"{theme.LABEL_SIZE:g}",
            )
    for box in scene.boxes.values():
        style = look.nodes[box.content.kind]
        outlines = 8 * (style.peripheries - 1)  # Graphviz draws each further outline 4 points outside the last
        graph.node(
            box.id,
            label=box.content.markup(look),
            tooltip=graphviz.escape(box.content.tooltip),
            pos=f"{box.x:.1f},{box.y:.1f}",
            width=f"{(box.width - outlines) / 72:.3f}",
            height=f"{(box.height - outlines) / 72:.3f}",
            **unlike(node_look(style), common_node),
        )
    for caption in scene.captions:
        graph.node(
            caption.id,
            label=graphviz.escape(caption.text),
            pos=f"{caption.x:.1f},{caption.y:.1f}",
            fontsize=f"{caption.size:g}",
            fontcolor=look.quiet_ink,
            **TEXT_ALONE,
        )
    for wire in scene.wires:
        line = edge_style(wire, look)
        attributes = {"pos": position(wire.route, line.arrow * ARROW_LENGTH), **unlike(edge_look(line), common_edge)}
        if wire.label:
            attributes |= {
                "label": graphviz.escape(wire.label),
                "lp": f"{wire.label_at[0]:.1f},{wire.label_at[1]:.1f}",
                "fontcolor": look.edges[wire.kind].color,
            }
        graph.edge(wire.tail, wire.head, **attributes)
    if scene.legend is not None:
        add_legend(graph, scene.legend, look)
    return str(graph.source)


TEXT_ALONE = {"shape": "plaintext", "style": "", "peripheries": "0", "width": "0", "height": "0", "fixedsize": "false"}

LEGEND_CELLS = 36


def add_legend(graph: graphviz.Digraph, legend: Legend, look: theme.Theme) -> None:
    """The scale of strengths as a bar, its title above and its ticks below."""
    width = legend.width / LEGEND_CELLS
    cells = "".join(
        f'<td fixedsize="true" width="{width:g}" height="10" bgcolor="{look.strength(i / (LEGEND_CELLS - 1))}"></td>'
        for i in range(LEGEND_CELLS)
    )
    bar = f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="0"><tr>{cells}</tr></table>>'
    middle = legend.x + legend.width / 2
    graph.node("legend", label=bar, pos=f"{middle:.1f},{legend.y:.1f}", **TEXT_ALONE)
    words = [("legend_title", f"<{html.escape(legend.title)}>", middle, legend.y + 16)]
    words += [
        (f"legend_{i}", f"<{html.escape(text)}>", legend.x + share * legend.width, legend.y - 14)
        for i, (share, text) in enumerate(legend.ticks)
    ]
    for id, label, x, y in words:
        place = {"pos": f"{x:.1f},{y:.1f}", "fontsize": f"{theme.LABEL_SIZE:g}", "fontcolor": look.quiet_ink}
        graph.node(id, label=label, **place, **TEXT_ALONE)


def edge_style(wire: Wire, look: theme.Theme) -> theme.EdgeStyle:
    """The style of an edge's kind, or that of the gradient which flows through it."""
    kind = look.edges[wire.kind]
    if wire.strength is None:
        return kind
    if wire.strength < 0:
        return theme.EdgeStyle(look.edges["over time"].color, 0.8, "dotted", kind.arrow)
    pen = THINNEST + wire.strength * (THICKEST - THINNEST)
    return theme.EdgeStyle(look.strength(wire.strength), pen, "solid", kind.arrow)


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
    if not arrow:
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in route)
    base = towards(tip, before, arrow)
    points = [*route[:-1], base]
    return f"e,{tip[0]:.1f},{tip[1]:.1f} " + " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
