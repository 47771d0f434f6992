"""Quality, `dynrec bench quality`: how good the lists are, beside strong baselines in the same cases.

| file | what it holds |
|---|---|
| command.py | the command |
| dataset.py | a data set |
| neutral.py | read from csv or parquet |
| known.py | the known ones |
| protocols.py | split, and what is asked under each protocol |
| metrics.py | nDCG, recall, hit rate, coverage, cold items, intervals |
| ranking.py | from scores to lists |
| baselines/ | what dynrec_store is measured against |
| system.py | dynrec_store itself, tables.py the application's tables, ours.py its answers |
| harness.py | the whole comparison |
| progress.py | how far it is |
| outcome.py | table, JSON |
| plots.py | plot |
"""
