"""Expressions written as text or as LaTeX, with brackets only where the signs' binding asks for them."""

from __future__ import annotations

from abc import ABC, abstractmethod

from microgrid.explain.expression import Expression, When
from microgrid.explain.typeset import (
    escaped,
    latex_function,
    latex_name,
    number_latex,
    number_text,
    printable,
)

OR, AND, COMPARISON, SUM, NEGATED, BIG, PRODUCT, MATRICES, POWERED, WHOLE = range(10)
"""How tightly the outermost sign binds."""

BINDING = {
    **dict.fromkeys("∨", OR),
    **dict.fromkeys("∧", AND),
    **dict.fromkeys("=≠<≤>≥", COMPARISON),
    **dict.fromkeys("+−", SUM),
    **dict.fromkeys("⊙·⊗/", PRODUCT),
    **dict.fromkeys("@", MATRICES),
    **dict.fromkeys("^", POWERED),
}

Written = tuple[str, int]
"""What is written, and how tightly it binds."""


class Writer(ABC):
    """Writes expressions; knows where brackets go, and leaves to its kinds how each sign looks.

    Parameters
    ----------
    t, T : str
        The letters for the timestep and for the number of timesteps.
    """

    def __init__(self, t: str = "t", T: str = "T") -> None:
        self.t, self.T = t, T

    def write(self, expression: Expression) -> str:
        return self.written(expression)[0]

    def written(self, e: Expression) -> Written:
        match e.kind:
            case "symbol":
                return self.symbol(e), WHOLE if not e.word.startswith("∂") else POWERED
            case "number":
                return self.number(e.value), NEGATED if e.value < 0 else WHOLE
            case "infix":
                return self.power(*e.parts) if e.word == "^" else self.infix(e)
            case "prefix" if e.word == "√":
                return self.root(e.parts[0])
            case "prefix":
                return self.sign(e.word) + self.within(e.parts[0], BIG), NEGATED
            case "big":
                return f"{self.over(e.word, e.under)} {self.within(e.parts[0], BIG)}", BIG
            case "call":
                return self.function(e.word, e.under) + self.bracketed(", ".join(map(self.write, e.parts))), WHOLE
            case "transpose":
                return self.within(e.parts[0], WHOLE, symbols=True) + self.transposed, POWERED
            case "fence":
                return self.fence(self.write(e.parts[0])), WHOLE
            case "holds":
                return self.bracketed(self.write(e.parts[0]), "[]"), WHOLE
            case "join":
                return self.bracketed(f"{e.word} ".join(map(self.write, e.parts)), "[]"), WHOLE
            case "blocks":
                return self.bracketed(", ".join(map(self.write, e.parts)), "[]"), WHOLE
            case "index":
                places = self.bracketed(", ".join(map(self.write, e.parts[1:])), "[]")
                return self.within(e.parts[0], WHOLE, symbols=True) + places, WHOLE
            case "time":
                assert e.when is not None
                return self.time(e.when), SUM if e.when.base and e.when.offset else WHOLE
        return self.raw(e.word), WHOLE

    def within(self, e: Expression, level: int, *, symbols: bool = False) -> str:
        """An expression where something of a level is expected: in brackets if it binds less tightly."""
        text, own = self.written(e)
        return text if own >= level or (symbols and e.kind == "symbol") else self.bracketed(text)

    def infix(self, e: Expression) -> Written:
        left, right = e.parts
        level = BINDING[e.word]
        if e.word == "/":
            return self.quotient(left, right)
        if level == COMPARISON:
            return f"{self.within(left, SUM)} {self.sign(e.word)} {self.within(right, SUM)}", level
        first, first_level = self.written(left)
        if first_level < level and not (level == PRODUCT and is_negated(left)):
            first, first_level = self.bracketed(first), WHOLE
        second, second_level = self.written(right)
        needed = level if associates(e) else level + 1
        open_ended = level == PRODUCT and second_level == BIG  # Σ reaches to the end
        if level == SUM and second_level == NEGATED:
            needed = BIG
        if second_level < needed and not open_ended:
            second, second_level = self.bracketed(second), WHOLE
        if level == MATRICES:
            return f"{first} {second}", level
        if open_ended and left.kind == "infix" and left.word == "/":
            return f"{self.coefficient(left, first)} {second}", BIG
        if level == PRODUCT and left.kind == "number" and not second[0].isdigit() and right.kind != "number":
            return f"{first} {second}", min(first_level, second_level, level)
        return f"{first} {self.sign(e.word)} {second}", BIG if open_ended else min(first_level, level)

    def quotient(self, above: Expression, below: Expression) -> Written:
        level = NEGATED if is_negated(above) else PRODUCT
        return f"{self.within(above, level)} / {self.within(below, POWERED)}", level

    def coefficient(self, fraction: Expression, written: str) -> str:
        """A fraction before Σ."""
        return written

    @property
    @abstractmethod
    def transposed(self) -> str: ...
    @abstractmethod
    def symbol(self, e: Expression) -> str: ...
    @abstractmethod
    def number(self, value: float) -> str: ...
    @abstractmethod
    def sign(self, sign: str) -> str: ...
    @abstractmethod
    def bracketed(self, text: str, pair: str = "()") -> str: ...
    @abstractmethod
    def fence(self, text: str) -> str: ...
    @abstractmethod
    def power(self, base: Expression, exponent: Expression) -> Written: ...
    @abstractmethod
    def root(self, of: Expression) -> Written: ...
    @abstractmethod
    def over(self, sign: str, under: str) -> str: ...
    @abstractmethod
    def function(self, name: str, under: str) -> str: ...
    @abstractmethod
    def time(self, when: When) -> str: ...
    @abstractmethod
    def raw(self, text: str) -> str: ...
    @abstractmethod
    def words(self, text: str) -> str: ...


def is_negated(e: Expression) -> bool:
    """Whether a minus stands before a product, which may as well stand before its first factor."""
    return (e.kind == "number" and e.value < 0) or (e.kind == "prefix" and e.word == "−" and e.parts[0].kind != "big")


def is_condition(e: Expression) -> bool:
    """Whether an expression would be misread after a sign of equality."""
    return e.kind == "infix" and BINDING[e.word] <= COMPARISON


def associates(e: Expression) -> bool:
    """Whether the right operand of a sign needs no brackets where it is of the same level."""
    if e.word == "@":
        return all(len(part.shape) == 2 for operand in e.parts for part in (operand, *operand.parts))
    return e.word in "+⊙·∧∨"


class Text(Writer):
    """Unicode on one line."""

    transposed = "ᵀ"

    def symbol(self, e: Expression) -> str:
        if e.when is None:
            return e.word
        when = self.time(e.when)
        return f"{e.word}_{when}" if len(when) == 1 else f"{e.word}_{{{when}}}"

    def number(self, value: float) -> str:
        return number_text(value)

    def sign(self, sign: str) -> str:
        return sign

    def bracketed(self, text: str, pair: str = "()") -> str:
        return f"{pair[0]}{text}{pair[1]}"

    def fence(self, text: str) -> str:
        return f"|{text}|"

    def power(self, base: Expression, exponent: Expression) -> Written:
        raised = (
            {2: "²", 3: "³"}.get(int(exponent.value))
            if exponent.kind == "number" and exponent.value in (2, 3)
            else None
        )
        return self.within(base, WHOLE) + (raised or f"^{self.within(exponent, WHOLE)}"), POWERED

    def coefficient(self, fraction: Expression, written: str) -> str:
        return f"({written.replace(' / ', '/')})"

    def root(self, of: Expression) -> Written:
        return f"√{self.within(of, WHOLE)}", POWERED

    def words(self, text: str) -> str:
        return text

    def over(self, sign: str, under: str) -> str:
        return f"{sign}{self.subscript(under)}"

    def function(self, name: str, under: str) -> str:
        return f"{printable(name)}{self.subscript(under)}"

    def subscript(self, under: str) -> str:
        text = self.t if under == "t" else printable(under).replace("-", "−") if under else ""
        return "" if not text else f"_{text}" if len(text) == 1 else f"_{{{text}}}"

    def time(self, when: When) -> str:
        return when.written(self.t, self.T)

    def raw(self, text: str) -> str:
        return printable(text)


SIGNS = {"−": "-", "⊙": r"\odot", "·": r"\cdot", "⊗": r"\otimes", "≠": r"\neq", "≤": r"\le", "≥": r"\ge"} | {
    "∧": r"\land",
    "∨": r"\lor",
    "¬": r"\lnot ",
    "Σ": r"\sum",
    "∏": r"\prod",
}


class Latex(Writer):
    """LaTeX's mathematics, as MathJax reads it too."""

    transposed = r"^\top"

    def symbol(self, e: Expression) -> str:
        partial = r"\partial " if e.word.startswith("∂") else ""
        name, below = latex_name(e.word.removeprefix("∂"))
        inner = ", ".join(part for part in (below, self.time(e.when) if e.when is not None else "") if part)
        return f"{partial}{name}{self.below(inner)}"

    def number(self, value: float) -> str:
        return number_latex(value)

    def sign(self, sign: str) -> str:
        return SIGNS.get(sign, sign)

    def bracketed(self, text: str, pair: str = "()") -> str:
        tall = r"\frac" in text or r"\sum" in text or r"\prod" in text
        return rf"\left{pair[0]}{text}\right{pair[1]}" if tall else f"{pair[0]}{text}{pair[1]}"

    def fence(self, text: str) -> str:
        return rf"\left|{text}\right|"

    def power(self, base: Expression, exponent: Expression) -> Written:
        raised = self.write(exponent)
        return f"{self.within(base, WHOLE)}^{raised if len(raised) == 1 else f'{{{raised}}}'}", POWERED

    def root(self, of: Expression) -> Written:
        return rf"\sqrt{{{self.write(of)}}}", POWERED

    def quotient(self, above: Expression, below: Expression) -> Written:
        return rf"\frac{{{self.write(above)}}}{{{self.write(below)}}}", PRODUCT

    def over(self, sign: str, under: str) -> str:
        return SIGNS[sign] + self.subscript(under)

    def function(self, name: str, under: str) -> str:
        return latex_function(name) + self.subscript(under)

    def subscript(self, under: str) -> str:
        return self.below(self.time(When()) if under == "t" else self.raw(under) if under else "")

    def time(self, when: When) -> str:
        return when.written(self.t, self.T).replace("−", "-").replace("τ", r"\tau")

    def words(self, text: str) -> str:
        """Text between formulas."""
        return rf"\text{{{text}}}"

    def below(self, text: str) -> str:
        return "" if not text else f"_{text}" if len(text) == 1 else f"_{{{text}}}"

    def raw(self, text: str) -> str:
        return rf"\mathrm{{{escaped(text)}}}" if any(c.isalpha() for c in text) else escaped(text)
