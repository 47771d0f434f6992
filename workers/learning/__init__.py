"""Learning vectors and a ranking from a recommender's own data.

| file            | responsibility                                                           |
|-----------------|--------------------------------------------------------------------------|
| `data.py`       | interactions, histories and catalogue as arrays                          |
| `examples.py`   | calls of the past and what came after them                               |
| `history.py`    | the histories of a batch, whole or thinned out                           |
| `popularity.py` | decayed counts at any moment                                             |
| `towers.py`     | items to vectors, histories to queries                                   |
| `ease.py`       | which items the same users meet                                          |
| `initial.py`    | where training starts: EASE, components of content                       |
| `objective.py`  | what training minimises                                                  |
| `tasks.py`      | further heads: values and categories                                     |
| `trends.py`     | popularity beside the towers while they learn                            |
| `training.py`   | batches, steps, epochs                                                   |
| `candidates.py` | what recommend() would have ranked, and all that the score looks at      |
| `ranking.py`    | the learned weights of the score                                         |
| `exploration.py` | whether a place is held for items that nobody has met                    |
| `transitions.py` | what comes right after what, and goes with what, item by item           |
| `measures.py`   | nDCG                                                                     |
| `settings.py`   | hyper-parameters                                                         |
| `validation.py` | the validation period: its examples, early stopping, the ranking's fit   |
| `continuing.py` | a previous model's weights in the towers of today                        |
| `fit.py`        | the whole, from data to a model                                          |
| `config.py`     | the numbers that SQL is made of                                          |
| `artefact.py`   | a fitted model at rest                                                   |
| `serving.py`    | vectors of items, one by one                                             |
| `cleaning.py`, `preprocessing.py`, `features.py` | raw interactions and features to arrays |
| `source.py`, `run.py` | from the tables of a recommender to a stored model                 |
"""
