"""Benchmarks, `dynrec bench`: what dynrec_store costs, measured beside what one would do without it.

| file | what it holds |
|---|---|
| app.py | the commands |
| measure.py | a figure with its reference, and taking both in turn |
| place.py | a database of the benchmark's own |
| report.py | progress, the table, JSON |
| capture.py | writing with capture on, pgbench.py runs it |
| freshness.py | from a commit to the new vector |
| backfill.py | encoding a whole table, texts.py makes it |
| recommend.py | reading, catalogue.py makes what is read, pgbench.py reads from many clients |
| filtered.py, reads.py | reading with a filter; the other reads |
| quality/ | how good the lists are |

Times depend on the machine and on what else it does; ratios much less. So everything is a ratio.
"""

from workers.bench.app import app

__all__ = ["app"]
