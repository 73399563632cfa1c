"""What is tried around a sign-in by redirect: addresses, hosts, redirects; and what the server's log holds."""

from pathlib import Path
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import pytest

from tests.integration.relay.servers import TOKEN

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CORPUS = Path(__file__).parents[4] / "shared" / "data" / "openredirects" / "openredirects.txt"
PAYLOADS = [
    "//evil.example",
    "///evil.example/%2f..",
    "/\\evil.example",
    "\\/\\/evil.example/",
    "https:evil.example",
    "https://evil.example",
    "https://127.0.0.1@evil.example/",
    "//evil%E3%80%82example",
    "/%09/evil.example",
    "/%5cevil.example",
    "/%2f%2fevil.example",
    "/.evil.example",
    "//%0d%0aLocation:%20https://evil.example",
    "/%0d%0aSet-Cookie:%20a=b",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "/..//evil.example",
    "%00https://evil.example",
]


def payloads():
    """Return own payloads, and those of a public collection where it is there."""
    lines = CORPUS.read_text(encoding="utf-8").splitlines() if CORPUS.exists() else []
    return [*PAYLOADS, *(line for line in lines if line.strip())]


@pytest.fixture(scope="module")
def own_cookies(server):
    """What the browser of a person of the server sends along."""
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in server.browser().cookies)


def test_no_payload_leads_a_browser_elsewhere(server, own_cookies, sign_in):
    own = urlsplit(server.url).netloc
    away = []

    for payload in payloads():
        encoded = quote(payload, safe="%/\\:;?&=@,.")
        for path in (
            f"/team/x/micromegas/start/{encoded}",
            f"/team/x/micromegas/start/{encoded}?next={encoded}",
            f"/team/x/micromegas/callback?next={encoded}&redirect_uri={encoded}&state={encoded}",
            f"/team/x/micromegas/done?next={encoded}",
            f"/team/x/micromegas{encoded}",
        ):
            request = f"GET {path} HTTP/1.1\r\nHost: {own}\r\nCookie: {own_cookies}\r\nConnection: close\r\n\r\n"
            status, text = server.raw(request.encode())
            head = text.partition("\r\n\r\n")[0]
            location = next((line[10:] for line in head.split("\r\n") if line.lower().startswith("location: ")), None)
            is_elsewhere = location is not None and urlsplit(urljoin(server.url, location)).netloc != own
            if status >= 500 or is_elsewhere or "\nSet-Cookie: a=b" in head:
                away.append((path, status, location))

    assert away == []
    assert sign_in.still_works()


def test_who_has_to_sign_in_to_jupyter_first_is_led_back_below_the_base_url_only(server):
    own = urlsplit(server.url).netloc

    for payload in PAYLOADS:
        encoded = quote(payload, safe="%/\\:;?&=@,.")
        request = f"GET /team/x/micromegas/start/{encoded} HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n\r\n"
        _status, text = server.raw(request.encode())
        location = next((line[10:] for line in text.split("\r\n") if line.lower().startswith("location: ")), "/team/x/")
        target = parse_qs(urlsplit(location).query).get("next", ["/team/x/"])[0]

        assert urlsplit(urljoin(server.url, location)).netloc == own
        assert target.startswith("/team/x/")


def test_a_forged_host_is_refused(server, sign_in):
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.1@evil.example"):
        assert sign_in.get(sign_in.start_url, headers={"Host": host}).status_code in {400, 403}
    for lines in (b"Host: evil.example\r\nHost: 127.0.0.1\r\n", b"Host: \r\n", b""):
        status, text = server.raw(
            b"GET /team/x/micromegas/callback HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n"
        )
        assert status in {0, 400, 403}
        assert "evil.example" not in text
    assert sign_in.still_works()


def test_a_forwarded_address_is_not_believed_unless_the_server_is_configured_to(sign_in):
    forged = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Scheme": "https",
        "Forwarded": "host=evil.example;proto=https",
    }

    sign_in.start(headers=forged)

    assert sign_in.redirect_uri == urljoin(sign_in.start_url, "/team/x/micromegas/callback")
    assert sign_in.still_works()


@pytest.mark.parametrize(
    "target",
    [
        b"/team/x/micromegas/callback?%00",
        b"/team/x/micromegas/callback?code=%FF%FE&state=%FF",
        b"/team/x/micromegas/callback?\xff\xfe",
        b"/team/x/micromegas/callback?state=%ED%A0%80",
        b"/team/x/micromegas/callback?" + b"&" * 5000,
        b"/team/x/micromegas/callback?state=a.b&state[]=c",
        b"/team/x/micromegas/start/%2e%2e%2f%2e%2e%2fapi",
        b"/team/x/micromegas/start/" + b"a" * 5000,
        b"/team/x/micromegas/start/%00." + b"A" * 43,
        b"/team/x/micromegas/start/file-x." + b"A" * 43,
        b"/team/x/micromegas/start/../../api/kernels",
        b"/team/x/micromegas/done?x=%",
        b"//team/x/micromegas/callback",
        b"http://evil.example/team/x/micromegas/callback?state=x",
        b"/team/x/micromegas/" + b"%2f" * 1000,
    ],
)
def test_no_input_makes_the_server_fail(server, own_cookies, target):
    host = urlsplit(server.url).netloc.encode()

    for cookie in (b"a=b", b"micromegas-done=2|1:0|10:1|x", b"=;=;\xff=\xfe;;", b'micromegas-done="', b"x" * 20_000):
        head = b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\nCookie: "
        status, _text = server.raw(head + own_cookies.encode() + b"; " + cookie + b"\r\n\r\n")

        assert status < 500


def test_neither_code_nor_state_is_in_any_log(server, sign_in):
    callback = sign_in.answer()
    found = parse_qs(urlsplit(callback).query)
    base, _, query = callback.partition("?")
    hidden = query.replace("code=", "%63ode=").replace("state=", "%73tate=")
    too_long = f"{query}&x={'x' * 17_000}"
    for url in (f"{base}/stray?{query}", f"{base}/stray?{hidden}", f"{base}?{query}&state=x", f"{base}?{too_long}"):
        sign_in.get(url)
    sign_in.browser.post(callback, timeout=30)
    sign_in.get(callback, headers={"Sec-Fetch-Dest": "iframe"})
    sign_in.get(f"{base}done", headers={"Referer": callback})

    page = sign_in.come_back(f"{base}?{hidden}")

    log = server.log
    assert "Signed in as Alice Martin." in page
    assert "GET /team/x/micromegas/callback" in log
    assert "Control received" in log  # the kernel logs all that it can
    for secret in (found["code"][0], found["state"][0]):
        assert secret not in log
    assert TOKEN not in "".join(line for line in log.splitlines() if "micromegas" in line)
