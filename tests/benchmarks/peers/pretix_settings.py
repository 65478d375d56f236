"""pretix as it runs in production on this PostgreSQL; its tables are made from its models, without its history of migrations."""

from pretix.settings import *  # noqa: F403

DEBUG = False
# It caches events' settings, here within the process: what a Redis would do, and faster.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}


class _NoMigrations(dict[str, None]):
    def __contains__(self, _: object) -> bool:
        return True

    def __getitem__(self, _: str) -> None:
        return None


MIGRATION_MODULES = _NoMigrations()
