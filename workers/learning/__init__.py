"""Learning vectors and a ranking from a recommender's own data.

| file            | responsibility                                                           |
|-----------------|--------------------------------------------------------------------------|
| `data.py`       | interactions, histories and catalogue as arrays                          |
| `examples.py`   | calls of the past and what came after them                               |
| `history.py`    | the histories of a batch, whole or thinned out                           |
| `popularity.py` | decayed counts at any moment                                             |
| `towers.py`     | items to vectors, histories to queries                                   |
| `initial.py`    | where training starts: EASE, components of content                       |
| `objective.py`  | what training minimises                                                  |
| `training.py`   | batches, steps, epochs                                                   |
| `candidates.py` | what recommend() would have ranked, and all that the score looks at      |
| `ranking.py`    | the learned weights of the score                                         |
| `measures.py`   | nDCG                                                                     |
| `settings.py`   | hyper-parameters                                                         |
| `fit.py`        | the whole: validation, early stopping, ranking, refit                    |
| `config.py`     | the numbers that SQL is made of                                          |
| `artefact.py`   | a fitted model at rest                                                   |
| `serving.py`    | vectors of items, one by one                                             |
"""
