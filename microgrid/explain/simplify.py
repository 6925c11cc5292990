"""Adjoint expressions without what only the rules put there: products with 1, sums with 0, nested fractions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from microgrid.explain.blocks import merge
from microgrid.explain.expression import STEPS, Expression, When, common_shape, depends_on_time, is_number, number

BACK = "⟲"
"""How the names begin that stand for what a delay brings back, until it is written out."""

Signed = tuple[bool, Expression]
"""Whether a term is subtracted, and the term."""


def simplified(expression: Expression, done: Sequence[Expression] = ()) -> Expression:
    """The whole tree in its short form; the parts in `done` have it."""
    if not expression.parts or any(expression is each for each in done):
        return expression
    parts = tuple(simplified(part, done) for part in expression.parts)
    return shortened(expression if parts == expression.parts else replace(expression, parts=parts))


def shortened(e: Expression) -> Expression:
    """An expression whose parts are short already."""
    match e.kind:
        case "infix" if e.word in ("+", "−"):
            return total(terms(e))
        case "prefix" if e.word == "−":
            return total(terms(e)) if e.parts[0].kind == "infix" and e.parts[0].word in "+−" else product([e])
        case "infix" if e.word in ("⊙", "·", "/"):
            outer = outer_product(e)
            return product([e]) if outer is None else outer
        case "infix" if e.word == "^" and is_number(e.parts[1], 1):
            return e.parts[0]
        case "infix" if e.word in ("∧", "∨"):
            for one, other in itertools.permutations(e.parts):
                if one.kind == "number":
                    return other if bool(one.value) == (e.word == "∧") else one
        case "infix" if e.word == "=" and all(part.kind == "time" for part in e.parts):
            return at_once(e)
        case "infix" if e.word == "@":
            return replace(e, parts=(without_column(e.parts[0]), without_column(e.parts[1])))
        case "holds" if e.parts[0].kind == "number":
            return e.parts[0]
        case "big" if e.binds_time and not depends_on_time(e.parts[0]):
            return product([STEPS, e.parts[0]])
        case "big" if e.under == "axis 0":
            return weighted_rows(e.parts[0]) or e
        case "transpose" if e.parts[0].kind == "big" and e.parts[0].binds_time:
            inner = shortened(Expression("transpose", parts=e.parts[0].parts, shape=e.shape))
            return replace(e.parts[0], parts=(inner,), shape=e.shape)
        case "transpose" if e.parts[0].word == "@" and all(len(part.shape) == 2 for part in e.parts[0].parts):
            left, right = (
                shortened(Expression("transpose", parts=(part,), shape=part.shape[::-1])) for part in e.parts[0].parts
            )
            return replace(e.parts[0], parts=(right, left), shape=e.shape)
        case "transpose" if e.parts[0].kind in ("transpose", "number"):
            return e.parts[0].parts[0] if e.parts[0].parts else e.parts[0]
        case "call" if e.word == "exp":
            return softmax_of(e) or e
        case "call" if e.word == "where":
            return chosen(e)
    return e


# --- sums --------------------------------------------------------------------------------------------


def terms(e: Expression, negated: bool = False) -> list[Signed]:
    """What is added and subtracted in an expression."""
    if e.kind == "prefix" and e.word == "−":
        return terms(e.parts[0], not negated)
    if e.kind == "infix" and e.word in ("+", "−"):
        return terms(e.parts[0], negated) + terms(e.parts[1], negated != (e.word == "−"))
    if e.kind == "number" and e.value < 0:
        return [(not negated, number(-e.value))]
    return [] if is_number(e, 0) else [(negated, e)]


def total(summands: list[Signed]) -> Expression:
    """The sum of terms; arrays that are 0 but for a slice of their own are joined."""
    summands = like_terms(joined_blocks(summands))
    plain = [(negated, e) for negated, e in summands if e.kind != "number"]
    constant = math.fsum(-e.value if negated else e.value for negated, e in summands if e.kind == "number")
    if constant:
        own = [e.kind for _, e in summands].index("number")
        plain.insert(min(own, len(plain)), (constant < 0, number(abs(constant))))
    if not plain:
        return number(0)
    plain.sort(key=lambda term: comes_back(term[1]))
    first = next((i for i, (negated, _) in enumerate(plain) if not negated), 0)
    plain.insert(0, plain.pop(first))
    common = common_factor(plain)
    if common is not None:
        return common
    negated, found = plain[0]
    if negated:
        found = (
            Expression("prefix", "−", (found,), shape=found.shape) if found.kind != "number" else number(-found.value)
        )
    for negated, e in plain[1:]:
        found = infix("−" if negated else "+", found, e)
    return found


def comes_back(e: Expression) -> bool:
    """Whether a term is what a delay brings, which is written last."""
    return e.word.startswith(BACK) or any(map(comes_back, e.parts))


def like_terms(summands: list[Signed]) -> list[Signed]:
    """The terms with those added up that differ in their number only."""
    found: dict[tuple[tuple[Expression, ...], tuple[Expression, ...]], list[Signed]] = {}
    for negated, e in summands:
        _, above, below = fraction(e)
        found.setdefault((tuple(above), tuple(below)), []).append((negated, e))
    if len(found) == len(summands):
        return summands
    added = []
    for (factors, divisors), alike in found.items():
        if len(alike) == 1 or not factors:
            added += alike
            continue
        coefficient = sum((-1 if negated else 1) * fraction(e)[0] for negated, e in alike)
        if coefficient:
            added.append((coefficient < 0, product([number(float(abs(coefficient))), *factors], divisors)))
    return added


def common_factor(summands: list[Signed]) -> Expression | None:
    """a ⊙ b − a ⊙ c as a ⊙ (b − c), and a / n − b / n as (a − b) / n."""
    parts = [fraction(e) for _, e in summands]
    if len(parts) < 2 or any(not above for _, above, _ in parts):
        return None
    (size, first, below), *others = parts
    if any(abs(c) != abs(size) or under != below for c, _, under in others):
        return None
    shared = first[:1] if all(len(above) > 1 and above[0] == first[0] for _, above, _ in parts) else []
    if not shared and not below:
        return None
    signs = [negated != (c < 0) for (negated, _), (c, _, _) in zip(summands, parts, strict=True)]
    rest = [product(above[len(shared) :]) for _, above, _ in parts]
    return product([number(float(abs(size))), *shared, total(list(zip(signs, rest, strict=True)))], below)


def infix(sign: str, left: Expression, right: Expression) -> Expression:
    return Expression("infix", sign, (left, right), shape=common_shape(left, right))


def joined_blocks(summands: list[Signed]) -> list[Signed]:
    found: list[Signed] = []
    for negated, e in summands:
        for i, (other_negated, other) in enumerate(found):
            merged = merge(e, other) if not negated and not other_negated else None
            if merged is not None:
                found[i] = (False, merged)
                break
        else:
            found.append((negated, e))
    return found


# --- products ----------------------------------------------------------------------------------------


def product(factors: list[Expression], over: Sequence[Expression] = ()) -> Expression:
    """The product of expressions, over others, as one fraction, its number in front."""
    coefficient, above, below = Fraction(1), list[Expression](), list(over)
    for factor in factors:
        c, a, b = fraction(factor)
        coefficient, above, below = coefficient * c, above + a, below + b
    if not coefficient:
        return number(0)
    whole = coefficient.denominator < 10_000
    front = coefficient.numerator if whole else float(coefficient)
    if whole and coefficient.denominator > 1:
        below.insert(0, number(coefficient.denominator))
    numerator = powers(above)
    negative, size = front < 0, abs(front)
    if size != 1 or not numerator:
        numerator.insert(0, number(size))
    found = multiplied(numerator)
    if below:
        found = infix("/", found, multiplied(powers(below)))
    if not negative:
        return found
    return number(-found.value) if found.kind == "number" else Expression("prefix", "−", (found,), shape=found.shape)


def fraction(e: Expression) -> tuple[Fraction, list[Expression], list[Expression]]:
    """The number in an expression, the factors above and those below the line."""
    if e.kind == "number" and math.isfinite(e.value):
        return Fraction(e.value).limit_denominator(10**9), [], []
    if e.kind == "prefix" and e.word == "−":
        c, above, below = fraction(e.parts[0])
        return -c, above, below
    if e.kind == "infix" and e.word in ("⊙", "·", "/"):
        (c, above, below), (d, more_above, more_below) = map(fraction, e.parts)
        if e.word != "/":
            return c * d, above + more_above, below + more_below
        if d:
            return c / d, above + more_below, below + more_above
    return Fraction(1), [e], []


def powers(factors: list[Expression]) -> list[Expression]:
    """The factors with those that occur several times as powers, and Σ, which reaches to the end, last."""
    once = list(dict.fromkeys(factors))
    found = []
    for factor in once:
        n = factors.count(factor)
        found.append(factor if n == 1 else Expression("infix", "^", (factor, number(n)), shape=factor.shape))
    return sorted(found, key=lambda factor: factor.kind == "big")


def multiplied(factors: list[Expression]) -> Expression:
    found = factors[0]
    for factor in factors[1:]:
        found = infix(product_sign(found, factor), found, factor)
    return found


def product_sign(x: Expression, y: Expression) -> str:
    """⊙ between arrays, · where one of them is a scalar."""
    return "⊙" if x.shape and y.shape else "·"


def outer_product(e: Expression) -> Expression | None:
    """x[:, None] ⊙ y[None, :] as x ⊗ y."""
    left, right = e.parts
    if e.word == "/" or not is_call(left, "column") or not (is_call(right, "row") or len(right.shape) == 1):
        left, right = right, left
    if e.word == "/" or not is_call(left, "column") or not (is_call(right, "row") or len(right.shape) == 1):
        return None
    right = right.parts[0] if is_call(right, "row") else right
    return Expression("infix", "⊗", (left.parts[0], right), shape=(*left.parts[0].shape, *right.shape))


def weighted_rows(e: Expression) -> Expression | None:
    """The sum of rows, each times a number, Σ_{axis 0} A ⊙ g[:, None], as Aᵀ g."""
    if e.kind != "infix" or e.word != "⊙" or len(e.parts[0].shape) != 2 or not is_call(e.parts[1], "column"):
        return None
    matrix, (weights,) = e.parts[0], e.parts[1].parts
    turned = shortened(Expression("transpose", parts=(matrix,), shape=matrix.shape[::-1]))
    return Expression("infix", "@", (turned, weights), shape=matrix.shape[1:])


def without_column(e: Expression) -> Expression:
    """A vector, though it was made a matrix for a product: a vector on the right is a column by itself."""
    return e.parts[0] if is_call(e, "column") else e


# --- functions ---------------------------------------------------------------------------------------


def is_call(e: Expression, name: str) -> bool:
    return e.kind == "call" and e.word == name


def softmax_of(e: Expression) -> Expression | None:
    """exp(x − logsumexp(x)) and exp(log_softmax(x)) as softmax(x)."""
    (inner,) = e.parts
    if is_call(inner, "log_softmax"):
        return replace(inner, word="softmax")
    if inner.kind == "infix" and inner.word == "−" and is_call(inner.parts[1], "logsumexp"):
        x, normaliser = inner.parts
        if normaliser.parts == (x,):
            return replace(normaliser, word="softmax", shape=x.shape)
    return None


def chosen(e: Expression) -> Expression:
    """where(c, x, 0) as [c] x."""
    condition, x, y = e.parts
    if condition.kind == "number":
        return x if condition.value else y
    if is_number(y, 0):
        return product([Expression("holds", parts=(condition,), shape=condition.shape), x])
    if is_number(x, 0):
        other = Expression("prefix", "¬", (condition,), shape=condition.shape)
        return product([Expression("holds", parts=(other,), shape=condition.shape), y])
    return e


def at_once(e: Expression) -> Expression:
    """t + 1 = T − 1 as t = T − 2; a number where both sides are known."""
    own, other = (part.when or When() for part in e.parts)
    if own.base == other.base:
        return number(own.offset == other.offset)
    if own.base == "t":
        sides = When(), When(other.base, other.offset - own.offset)
        return replace(e, parts=tuple(Expression("time", when=side) for side in sides))
    return e
