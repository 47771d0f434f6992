"""`python -m dynrec_store` is `dynrec`."""

from dynrec_store.cli import app

app(prog_name="dynrec")
