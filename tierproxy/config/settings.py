"""The configuration that is in force. It may be another one in a moment."""

from tierproxy.config.model import Config


class Settings:
    """Whoever follows changes asks `now` each time and keeps no copy; who keeps one goes by what was in force then.

    Whatever has to be told besides is told by `App.change`.
    """

    def __init__(self, config: Config) -> None:
        self.now = config
