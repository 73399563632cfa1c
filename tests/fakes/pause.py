"""A pause between two questions that takes no time: the clock is moved instead."""


class FakePause:
    """Implements what the device flow uses of a `threading.Event`."""

    def __init__(self, clock):
        self.waited = []
        self.meanwhile = {}
        self._clock = clock
        self._is_set = False

    def set(self):
        self._is_set = True

    def is_set(self):
        return self._is_set

    def wait(self, timeout):
        assert len(self.waited) < 1000, "the pauses do not end"
        self.waited.append(timeout)
        self._clock.advance(timeout)
        self.meanwhile.get(len(self.waited), lambda: None)()
        return self._is_set
