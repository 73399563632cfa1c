"""A browser without a person: follows redirects from the start page to the last page, and remembers where it was."""

import threading

import requests


class ScriptedBrowser:
    """Implements `core.system.Browser`; browses on a thread of its own, as a real one does."""

    def __init__(self, before=None):
        self.visited = []
        self.statuses = []
        self.last_page = ""
        self._before = before or (lambda url: url)
        self._thread = None

    def open(self, url):
        self._thread = threading.Thread(target=self._browse, args=(url,), daemon=True)
        self._thread.start()
        return True

    def wait(self):
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self

    def _browse(self, url):
        with requests.Session() as session:
            session.trust_env = False
            while True:
                url = self._before(url)
                self.visited.append(url)
                response = session.get(url, allow_redirects=False, timeout=60)
                self.statuses.append(response.status_code)
                if not response.is_redirect:
                    self.last_page = response.text
                    return
                url = requests.compat.urljoin(url, response.headers["Location"])
