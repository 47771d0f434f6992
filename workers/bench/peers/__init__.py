"""dynrec_store beside other systems, each measured in turn with it in the same run, on the same server and data.

| file | what it holds |
|---|---|
| command.py | dynrec bench peers |
| environments.py | peers whose packages clash with ours: virtual environments of their own |
| conversation.py | asking a process of such an environment, line by line |
| feast.py, feast_side.py | Feast's vector retrieval out of Postgres; the process that calls Feast |
| pgai.py, endpoint.py | pgai's vectorizer worker; the model behind the API that this worker calls |
| implicit.py | implicit, in the memory of this process |
"""
