"""What dynrec_store is measured against.

| file | what it holds |
|---|---|
| base.py | the data they see, and the form in which they are tuned |
| popularity.py | of all time, of the last days, decayed |
| neighbours.py | ItemKNN, EASE |
| factors.py | iALS |
| sequence.py | SASRec |
| content.py | the centroid of encoder vectors |
| blend.py | EASE, popularity and content together |
| tuning.py | choosing parameters on the validation period |
| line_up.py | all of them, in the order in which they are tuned |
"""
