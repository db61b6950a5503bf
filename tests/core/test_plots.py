"""Charts stay readable whatever they are given."""

import math

from tutelage.plots import lines


def test_lines_share_their_axes_and_leave_out_what_is_not_finite() -> None:
    chart = lines([("a", [(0, 1.0), (10, 3.0)]), ("b", [(5, 2.0), (7, math.nan)]), ("<c>", [])], name="n", unit="%")
    assert '<polyline points="64.0,260.0 440.0,28.0"/>' in chart, "the extremes are the corners"
    assert '<polyline points="252.0,144.0"/>' in chart
    assert "&lt;c&gt;" in chart
    assert "nan" not in chart
    assert ">3%<" in chart
    assert ">2,817<" in lines([("a", [(0, 0.0), (1, 2817.0)])], name="n"), "no power of ten for so small a number"


def test_no_values_are_said_so() -> None:
    assert "no values" in lines([("a", [])], name="n")
