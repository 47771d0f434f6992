"""Kombu's transports to a Redis, which outlive what is not a message."""

from queue import Empty

from kombu.transport import redis

from workers.consumer import refuse


class _Outliving:
    """Of a channel: what is not a message is dropped as it comes out of Redis."""

    connection_errors: tuple[type[Exception], ...]

    def _brpop_read(self, **options: object) -> object:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]  # a channel's
        except Empty:
            raise
        except Exception as error:  # noqa: BLE001  of as many kinds as there are ways to be wrong
            refuse(error, self.connection_errors)
            return True


class Channel(_Outliving, redis.Channel):
    """Of a Redis."""


class Transport(redis.Transport):
    """What the scheme redis stands for."""

    Channel = Channel


class SentinelChannel(_Outliving, redis.SentinelChannel):
    """Of a Redis behind sentinels."""


class SentinelTransport(redis.SentinelTransport):
    """What the scheme sentinel stands for."""

    Channel = SentinelChannel
