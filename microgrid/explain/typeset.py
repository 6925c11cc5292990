"""Names and numbers as they are printed, in Unicode and in LaTeX, whatever characters a name holds."""

from __future__ import annotations

import math
import re
import unicodedata

LONGEST = 60
"""Characters of a name or a setting; what is longer is cut."""

LOWER = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi"
UPPER = "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"
GREEK = {
    **dict(zip("αβγδεζηθικλμνξπρστυφχψω", (*LOWER.split(), "omega"), strict=True)),
    **dict(zip("ΓΔΘΛΞΠΣΦΨΩ", UPPER.split(), strict=True)),
}
ESCAPED = {c: f"\\{c}" for c in "{}$%&#_"} | {
    "\\": r"\backslash ",
    "^": r"\hat{\ }",
    "~": r"\sim ",
    " ": r"\ ",
    "−": "-",
    "…": r"\ldots ",
    "→": r"\to ",
    "×": r"\times ",
    "<": "{<}",  # no tag where LaTeX is put into a page
    ">": "{>}",
}
FUNCTIONS = frozenset({"tanh", "exp", "log", "sin", "cos", "max", "min"})
"""Functions that LaTeX has a command for."""


def printable(text: str) -> str:
    """The text on one line, without characters that cannot be seen, and not too long."""
    seen = "".join(" " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"} else c for c in text)
    return (seen if len(seen) <= LONGEST else seen[: LONGEST - 1] + "…") or "?"


def escaped(text: str) -> str:
    """The text for LaTeX's mathematics, where every character stands for itself."""
    found = "".join(ESCAPED.get(c, f"\\{GREEK[c]} " if c in GREEK else c) for c in printable(text))
    return found.replace(r"\ \times \ ", r" \times ")


def latex_name(name: str) -> tuple[str, str]:
    """A name in LaTeX, and the subscript that it brings with it.

    >>> latex_name("h"), latex_name("W1"), latex_name("W_ih"), latex_name("alpha"), latex_name("lstm.h")
    (('h', ''), ('W', '1'), ('W', '\\\\mathrm{ih}'), ('\\\\alpha', ''), ('\\\\mathrm{lstm.h}', ''))
    """
    parts = re.fullmatch(r"([A-Za-zΑ-ω]|[a-z]{2,7})(?:_?([0-9]+)|_([A-Za-z0-9]+))?", name)
    if parts is not None:
        letter, number, word = parts.groups()
        letter = GREEK.get(letter, letter)
        if len(letter) == 1 or letter in GREEK.values():
            below = number or word or ""
            return letter if len(letter) == 1 else f"\\{letter}", below if len(
                below
            ) < 2 or number else rf"\mathrm{{{below}}}"
    return rf"\mathrm{{{escaped(name)}}}", ""


def latex_function(name: str) -> str:
    if name == "σ":
        return r"\sigma"
    return f"\\{name}" if name in FUNCTIONS else rf"\operatorname{{{escaped(name)}}}"


def number_text(value: float) -> str:
    """A number as people write it, with four significant digits: "0.5", "−3", "1.5e−07".

    >>> number_text(2.0), number_text(-0.25), number_text(float("inf")), number_text(1.5e-7)
    ('2', '−0.25', '∞', '1.5e−07')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    whole = value == int(value) and abs(value) < 1e6 if not math.isnan(value) else False
    return (str(int(value)) if whole else f"{value:.4g}").replace("-", "−")


def number_latex(value: float) -> str:
    r"""The same in LaTeX.

    >>> number_latex(-0.25), number_latex(float("inf")), number_latex(1.5e-7)
    ('-0.25', '\\infty', '1.5 \\cdot 10^{-7}')
    """
    if isinstance(value, bool):
        return rf"\mathrm{{{str(value).lower()}}}"
    text = number_text(value).replace("−", "-").replace("∞", r"\infty").replace("nan", r"\mathrm{nan}")
    mantissa, exponent, power = text.partition("e")
    return rf"{mantissa} \cdot 10^{{{int(power)}}}" if exponent else text
