"""Trend reports: a day, a week or a month of the stored history in plain words, tables and plots.

Data flow: questions.py says what is asked of the samples (PromQL) for a `Period`; the command line asks it,
and adds the episodes of alerts and the times of calls out of their tables; facts.py makes `Facts` of the
answers, for the period and for the one before; sections.py says what they mean, in sentences, tables and
series; markdown.py and html.py write the sections.

Invariants: each figure stands beside that of the period before, or says that it is not known; what was not
observed is told (coverage) and never counted as good; the dead man's switch is no alert. Pure.
"""

from __future__ import annotations
