"""A canary: a sequence that moves when text is run as SQL, even if the statement fails and is rolled back."""

from tests.drain import Session

SONG = "nextval('public.canary')"

# Each calls the canary once it leaves the place that it was put in: a literal, a name, a comment, a dollar quote, a list.
FRAGMENTS = [
    f"'; select {SONG}; --",
    f"'; select {SONG}; /*",
    f"' or {SONG} > 0 or '",
    f"') or {SONG} > 0 or ('",
    f"'::text, {SONG}, '",
    f"' || {SONG} || '",
    f'"; select {SONG}; --',
    f'" = {SONG} or "',
    f'", {SONG} as "',
    f"\\'; select {SONG}; --",
    f"$$; select {SONG}; --",
    f"$$ || {SONG} || $$",
    f"$body$; select {SONG}; $body$",
    f"$query$ union select {SONG}::text $query$",
    f"$template$ {SONG} $template$",
    f"*/ select {SONG} /*",
    f"--\n; select {SONG}; --",
    f"\n); select {SONG}; --",
    f"x\u2028; select {SONG}",
    f"{{id}}'; select {SONG}; --{{key}}",
    f"%s'; select {SONG}; --%I %1$L",
    f"public.canary; select {SONG}",
    f"shop.products; select {SONG}",
    f"shop.products where {SONG} > 0 --",
    f"shop.products) x, (select {SONG}",
]


def plant(connection: Session) -> None:
    """Create the canary."""
    connection.execute("create sequence public.canary")


def has_sung(connection: Session) -> bool:
    """Whether a fragment was run."""
    return connection.execute("select is_called from public.canary").fetchall() != [(False,)]
