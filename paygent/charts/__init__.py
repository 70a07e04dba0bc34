"""
Charts as text: values in, HTML and SVG out, for any framework.

Nothing here needs a script, a style attribute or an outside resource: the strictest content security policy
leaves it as it is. Everything that is drawn takes its colours from the custom properties of
:func:`stylesheet` (light and dark; ``data-theme`` on the root element or the class ``dark`` decide, else the
system), and every chart brings its numbers as a table that everybody can open.

All texts are escaped here: give them plain. What is returned is safe to put into a page as it is.
"""

from paygent.charts.bars import Series, bars, stacked_bars, top_series
from paygent.charts.formats import compact, day_label, dollars, number, percent, short_dollars
from paygent.charts.markup import Words, stylesheet
from paygent.charts.meters import meter, sparkline
from paygent.charts.ranking import Rank, ranking

__all__ = [
    "Rank",
    "Series",
    "Words",
    "bars",
    "compact",
    "day_label",
    "dollars",
    "meter",
    "number",
    "percent",
    "ranking",
    "short_dollars",
    "sparkline",
    "stacked_bars",
    "stylesheet",
    "top_series",
]
