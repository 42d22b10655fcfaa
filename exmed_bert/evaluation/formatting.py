"""Estimates with their intervals, as a reader sees them."""

from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.reporting.content import Cell, Interval


def format_estimate(estimate: Estimate | None, sign: bool = False) -> str:
    """Return an estimate with its interval as text.

    >>> format_estimate(Estimate(0.8123, 0.79, 0.8351)), format_estimate(None)
    ('0.812 (0.790 to 0.835)', '–')
    >>> format_estimate(Estimate(-0.02, -0.031, 0.004), sign=True)
    '−0.020 (−0.031 to +0.004)'
    """
    return str(estimate_cell(estimate, sign))


def estimate_cell(estimate: Estimate | None, sign: bool = False) -> Cell:
    """Return the same as the cell of a table."""
    if estimate is None:
        return "–"
    if estimate.interval is None:
        return format_number(estimate.value, sign)
    low, high = (format_number(end, sign) for end in estimate.interval)
    return Interval(format_number(estimate.value, sign), f"{low} to {high}")


def format_number(value: float | None, sign: bool = False) -> str:
    """Return a number with three decimals.

    >>> format_number(0.0004), format_number(-0.0004), format_number(1.5, sign=True), format_number(None)
    ('0.000', '0.000', '+1.500', '–')
    """
    if value is None:
        return "–"
    return f"{value:{'+.3f' if sign else '.3f'}}".replace("-0.000", "0.000").replace("-", "−")
