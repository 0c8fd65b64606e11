"""Every published claim beside ours: on which hosts it holds, with intervals.

claims.py        what was published, as data (published.toml)
bindings.py      which measurement answers which claim, and how its number is read
answers.py       the reading: results -> numbers with intervals
verdict.py       a number beside a published one, in words
sizes.py, dictionaries.py   how much is measured, and the dictionaries that claims are about
registration.py  the plan, hashed before anything runs
run.py           the whole of it, resumable
page.py          one page
"""

from writesae.reproduce.config import ReproduceConfig

__all__ = ["ReproduceConfig"]
