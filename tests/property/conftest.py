"""How hard to try: `--hypothesis-profile long` for hours, the default for a minute and the same every time."""

from hypothesis import HealthCheck, settings

_ALWAYS = settings(deadline=None, print_blob=True, suppress_health_check=list(HealthCheck))
settings.register_profile("short", _ALWAYS, max_examples=25, stateful_step_count=40, derandomize=True, database=None)
settings.register_profile("long", _ALWAYS, max_examples=2000, stateful_step_count=80)
settings.load_profile("short")
