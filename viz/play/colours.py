"""The themes of the pictures as CSS variables, light and dark."""

from __future__ import annotations

from viz.theme import DARK, LIGHT, Theme

DASHES = {"dashed": "7 5", "dotted": "2 3"}


def style_sheet() -> str:
    """Variables for both themes: the system's choice, unless `data-theme` says otherwise."""
    return (
        f":root {{ {variables(LIGHT)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ {variables(DARK)} }} }}\n"
        f":root[data-theme=dark] {{ {variables(DARK)} }}\n"
        + "".join(
            f".kind-{slug(kind)} {{ --fill: var(--{slug(kind)}-fill); --line: var(--{slug(kind)}-line); "
            f"--pen: {style.pen:g}px; }}\n"
            for kind, style in LIGHT.nodes.items()
        )
        + "".join(
            f".wire-{slug(kind)} {{ --wire: var(--wire-{slug(kind)}-colour); --pen: {style.pen:g}px; "
            f"--dashes: {DASHES.get(style.style, 'none')}; }}\n"
            for kind, style in LIGHT.edges.items()
        )
    )


def variables(theme: Theme) -> str:
    """The colours of a theme, by the kind of node and edge."""
    found = {
        "scheme": theme.name,
        "ink": theme.ink,
        "forward-mark": theme.forward,
        "focus": theme.focus,
        "quiet": theme.quiet_ink,
        "ground": theme.background,
        "frame-fill": theme.cluster_fill,
        "frame-line": theme.cluster_line,
        "negative": theme.signed(-1),
        "zero": theme.signed(0),
        "positive": theme.signed(1),
        "gradient": theme.strength(0.75),
        "gradient-weak": theme.strength(0.0),
    }
    for kind, style in theme.nodes.items():
        found |= {f"{slug(kind)}-fill": style.fill, f"{slug(kind)}-line": style.line}
    for kind, edge in theme.edges.items():
        found[f"wire-{slug(kind)}-colour"] = edge.color
    return "; ".join(f"--{name}: {value}" for name, value in found.items()) + f"; color-scheme: {theme.name}"


def slug(kind: str) -> str:
    """A kind as a CSS name."""
    return kind.replace(" ", "-")
