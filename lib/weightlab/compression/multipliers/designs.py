"""Approximate unsigned 8-bit multipliers in closed form: their tables, their gates and the power that a model gives them.

A table is uint16 (256, 256): row a is the first operand (activation), column b the second (weight). Bits of a have index i, bits of b
index j; the partial product a_i b_j stands in column i + j.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BITS = 8
OPERAND = np.arange(1 << BITS)
BIT = (OPERAND[:, None] >> np.arange(BITS)) & 1  # (256, 8)
OF_A, OF_B = np.indices((BITS, BITS))  # i and j of the partial products
COLUMN = OF_A + OF_B
LEADING = np.array([0, *(int(a).bit_length() - 1 for a in OPERAND[1:])])  # place of the leading one, and 0 for 0

# Power in mW of one gate in a 45 nm process (PDK45). Non-negative least squares over the gate counts of the 36 C netlists of
# EvoApprox8b that tf-approximate carries: R^2 0.991, largest error 0.048 mW; the coefficient of OR came out 0.
AND_MW = 0.00074
XOR_MW = 0.00268


@dataclass(frozen=True)
class Gates:
    """Numbers of two-input gates."""

    ands: int = 0
    xors: int = 0
    ors: int = 0

    def __add__(self, other: "Gates") -> "Gates":
        return Gates(self.ands + other.ands, self.xors + other.xors, self.ors + other.ors)

    def __mul__(self, times: int) -> "Gates":
        return Gates(self.ands * times, self.xors * times, self.ors * times)

    @property
    def power_mw(self) -> float:
        """Power of the model in mW; OR gates cost nothing in it."""
        return AND_MW * self.ands + XOR_MW * self.xors


PARTIAL_PRODUCT = Gates(ands=1)
HALF_ADDER = Gates(ands=1, xors=1)
FULL_ADDER = Gates(ands=2, xors=2, ors=1)
MUX = Gates(ands=2, ors=1)  # of two bits; also each stage of leading-one detectors, encoders and shifters


@dataclass(frozen=True, eq=False)
class Design:
    """A multiplier: its table, uint16 (256, 256), and its gates."""

    table: np.ndarray
    gates: Gates


def adders(bits: Sequence[int]) -> Gates:
    """The adders that sum columns of bits, lowest column first, to one bit a column.

    Full adders take three bits of a column and a half adder the last two; each passes a carry to the next column. For all partial
    products of 8 x 8 bits these are the 48 full and 8 half adders of an array multiplier.

    >>> adders([1, 2, 1])  # 2 x 2 bits
    Gates(ands=2, xors=2, ors=0)
    """
    gates = Gates()
    waiting = [*bits]
    carries = 0
    while waiting or carries:
        spare = (waiting.pop(0) if waiting else 0) + carries - 1  # bits of the column that adders take away
        full, half = divmod(max(spare, 0), 2)
        gates += FULL_ADDER * full + HALF_ADDER * half
        carries = full + half
    return gates


def array(kept: np.ndarray) -> Design:
    """An array multiplier with only the partial products `kept`, bool (8, 8) over (i, j): an AND for each, and the adders of their columns."""
    table = BIT @ (kept << COLUMN) @ BIT.T
    gates = PARTIAL_PRODUCT * int(kept.sum()) + adders(np.bincount(COLUMN.ravel(), kept.ravel()).astype(int).tolist())
    return Design(table.astype(np.uint16), gates)


def exact() -> Design:
    """All partial products: 168 AND, 104 XOR."""
    return array(COLUMN >= 0)


def column_truncated(k: int) -> Design:
    """Without the partial products of the k lowest columns, i + j < k."""
    return array(k <= COLUMN)


def broken_array(h: int, v: int) -> Design:
    """Broken-array multiplier (Mahdiani et al. 2010): without a_i b_j where i + j < v (vertical break) or j < h (horizontal break)."""
    return array((v <= COLUMN) & (h <= OF_B))


def operand_truncated(t: int) -> Design:
    """Without the t lowest bits of both operands: an array of (8 - t) x (8 - t) bits."""
    return array((t <= OF_A) & (t <= OF_B))


def or_accumulated(columns: int) -> Design:
    """The lowest columns are not added but ORed, without carries, as in the lower-part-OR adder (Mahdiani et al. 2010).

    Partial products stay; a low column of n of them takes n - 1 OR instead of its adders.
    """
    upper = column_truncated(columns)
    table, gates = upper.table.astype(int), upper.gates
    for column in range(columns):
        places = np.argwhere(column == COLUMN)
        any_set = np.logical_or.reduce([np.outer(BIT[:, i], BIT[:, j]) for i, j in places])
        table += any_set.astype(int) << column
        gates += PARTIAL_PRODUCT * len(places) + Gates(ors=len(places) - 1)
    return Design(table.astype(np.uint16), gates)


def shifter(width: int, shifts: int, most: int) -> Gates:
    """A barrel shifter to the left: stages of 1, 2, 4, ... places on `width` bits that grow to at most `most`; one mux a bit and stage."""
    gates = Gates()
    for stage in range(shifts):
        width = min(width + (1 << stage), most)
        gates += MUX * width
    return gates


def drum(k: int) -> Design:
    """DRUM-k (Hashemi, Bahar and Reda 2015): k bits of each operand from its leading one, the last set to 1 where bits are cut off.

    Gates of each operand, of which s = 8 - k bits may be cut off: s muxes that detect the leading one, s for each of the k bits that they
    steer, s for each bit of the shift's number, and an OR that sets the last bit. Then an array of k x k bits, an adder of the two shifts
    and a barrel shifter of the 2k bits of the product to 16.
    """
    cut = np.maximum(LEADING - k + 1, 0)
    operand = np.where(cut > 0, (OPERAND >> cut | 1) << cut, OPERAND)
    spare = BITS - k
    wide = spare.bit_length()
    steering = MUX * (spare * (1 + k + wide)) + Gates(ors=1)
    core = array((k > OF_A) & (k > OF_B)).gates
    shift = adders([2] * wide) + shifter(2 * k, (2 * spare).bit_length(), 2 * BITS)
    return Design(np.outer(operand, operand).astype(np.uint16), steering * 2 + core + shift)


def mitchell() -> Design:
    """Mitchell's logarithmic multiplier (1962): log2(2^n (1 + x)) is taken as n + x, with all 7 bits of x.

    Gates of each operand: 8 muxes that detect the leading one, 7 for each of the 3 bits of n, a barrel shifter of 3 stages that aligns x,
    and 7 OR that detect 0. Then an adder of 10 bits, a barrel shifter of 4 stages to 16 bits and 16 AND that make products with 0 be 0.
    """
    n, m = LEADING[:, None], LEADING[None, :]
    a, b = OPERAND[:, None], OPERAND[None, :]
    fractions = (a << m) + (b << n) - (2 << (n + m))  # (x + y) 2^(n + m)
    table = np.where(fractions < 1 << (n + m), (1 << (n + m)) + fractions, 2 * fractions)
    table[(a == 0) | (b == 0)] = 0
    logarithm = MUX * (BITS + 3 * (BITS - 1)) + shifter(BITS - 1, 3, BITS - 1) + Gates(ors=BITS - 1)
    power_of_two = shifter(BITS, 4, 2 * BITS) + Gates(ands=2 * BITS)
    return Design(table.astype(np.uint16), logarithm * 2 + adders([2] * 10) + power_of_two)


def kulkarni() -> Design:
    """Kulkarni, Gupta and Ercegovac (2011): blocks of 2 x 2 bits in which 3 * 3 = 7, summed exactly.

    A block takes 4 AND and 1 OR and gives 3 bits: a_0 b_0, a_1 b_0 or a_0 b_1, and a_1 b_1.
    """
    threes = ((BIT[:, 0::2] & BIT[:, 1::2]) << np.arange(0, BITS, 2)).sum(1)  # sum of 4^d over digits d that are 3
    table = np.outer(OPERAND, OPERAND) - 2 * np.outer(threes, threes)
    bits = [0] * 2 * BITS
    for column in COLUMN[0::2, 0::2].ravel():
        for place in range(3):
            bits[column + place] += 1
    return Design(table.astype(np.uint16), Gates(ands=4, ors=1) * 16 + adders(bits))


def designs() -> dict[str, Design]:
    """All designs by name."""
    return {
        "exact": exact(),
        **{f"trunc{k}": column_truncated(k) for k in range(1, 9)},
        **{f"bam{h}_{v}": broken_array(h, v) for h, v in [(1, 4), (2, 5), (3, 7), (4, 8), (4, 9), (5, 10)]},
        **{f"operand{t}": operand_truncated(t) for t in range(1, 6)},
        **{f"drum{k}": drum(k) for k in range(3, 8)},
        "mitchell": mitchell(),
        "kulkarni": kulkarni(),
        **{f"or{columns}": or_accumulated(columns) for columns in (4, 6, 8)},
    }
